"""From a run and a scan, or a folder of scans, to the other modality on the scans' own grids."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transmodal import __version__
from transmodal.contracts import Method
from transmodal.core.errors import CasesFailed, ConfigError, DataError, FileError, TransmodalError, about
from transmodal.core.files import read_json, require_new_folder, require_room, write_json
from transmodal.core.progress import track
from transmodal.core.record import RECORD_NAME, make_record
from transmodal.core.volume import Direction, Modality, source_of
from transmodal.engine.hardware import choose_device, keep_memory
from transmodal.imaging.dicom_files import is_dicom
from transmodal.imaging.dicom_write import write_series
from transmodal.imaging.layouts import Found, Layout, ScanSource, SubjectFiles, find_subjects
from transmodal.imaging.layouts.dicom import series_source
from transmodal.imaging.layouts.subjects import Options
from transmodal.imaging.layouts.table import is_table
from transmodal.imaging.plausibility import require_plausible
from transmodal.imaging.scan import require_unsheared, require_writable, strip_scan_suffix, write_scan
from transmodal.methods.runs import load_method, read_run, weights_hash
from transmodal.workflows.derivative import derivative_paths, describe_derivative, sidecar

Part = Literal["all", "train", "validation", "test"]

OUTPUT_NAMES: dict[Direction, str] = {"mr2ct": "sct", "ct2mr": "smr"}
_SERIES_OPTION = "--series"


def synthesize(
    scan: Path,
    output: Path,
    model: Path,
    *,
    direction: Direction | None = None,
    layout: Layout = "auto",
    part: Part = "all",
    device: str = "auto",
    series: str | None = None,
    force_geometry: bool = False,
) -> list[Path]:
    """Make the other modality of one scan, or of every subject of a folder or table.

    Parameters
    ----------
    scan : Path
        A scan, a folder of subjects in any layout, a table of scans, or a folder of DICOM files.
    output : Path
        A scan file; or, for DICOM of one patient, a folder to make that takes the result as a series; or, for several subjects, the
        folder that takes ``<subject>/sct.nii.gz`` (``smr.nii.gz`` from CT to MR), a DICOM series ``<subject>/`` for those that come as
        DICOM, or a BIDS derivative for those in BIDS.
    model : Path
        A run.
    direction : {"mr2ct", "ct2mr"}, optional
        By default what the model does.
    layout : str
        How a folder is organised; see `find_subjects`.
    part : {"all", "train", "validation", "test"}
        Of several subjects, those that were in this part of the run's split.
    device : str
        ``auto``, ``cpu``, ``cuda`` ...
    series : str, optional
        Of several scans of a subject, the one that is meant: of DICOM, the number or UID of the series or a pattern of its
        description; of files, a pattern of the name.
    force_geometry : bool
        Of DICOM, resample what is not on a regular grid instead of refusing it.

    Returns
    -------
    list of Path
        The files that are there now. Cases that the same model has done already are not done again.

    Raises
    ------
    CasesFailed
        If some of several cases could not be done.
    """
    keep_memory()
    require_room(output)
    method = load_method(model, choose_device(device))
    direction = direction or method.directions[0]
    if direction not in method.directions:
        raise ConfigError(f"--direction {direction}: the model {model} does {', '.join(method.directions)}")
    settings = {"direction": direction, "model": model.name, "weights": weights_hash(model), "title": read_run(model).recipe["title"]}
    modality = source_of(direction)
    maker = _Maker(method, direction, settings)
    if scan.is_file() and not is_table(scan):
        return [maker.make_one(_single(scan, modality, series, force_geometry), output)]
    if not scan.exists():
        raise FileError(f"{scan}: there is no such file or folder")
    choices = {"mr_series": series, "ct_series": series, "force_geometry": force_geometry, "series_option": _SERIES_OPTION}
    found = find_subjects(scan, layout, wanted=(modality,), **choices)
    if found.layout == "dicom" and len(found.subjects) == 1:
        return [maker.make_one(_require_scan(found.subjects[0], modality), output)]
    if layout == "auto":
        print(f"transmodal: {found.explanation}", file=sys.stderr)
    if _is_scan_file(output):
        problems = [case.problem for case in found.subjects if case.problem is not None]
        if len(problems) == len(found.subjects):
            raise problems[0]
        raise ConfigError(f"{output}: {scan} holds {len(found.subjects)} subjects; name a folder to write, not a file")
    return _make_all(maker, scan, found, output, _wanted(model, part), part)


def _single(scan: Path, modality: Modality, series: str | None, force_geometry: bool) -> ScanSource:
    """A scan file, or the series of a DICOM file."""
    if is_dicom(scan):
        options = Options(mr_series=series, ct_series=series, force_geometry=force_geometry, series_option=_SERIES_OPTION)
        return series_source(scan, modality, options)
    if series is not None or force_geometry:
        raise ConfigError(f"--series and --force-geometry are for DICOM and folders, and {scan} is neither")
    return ScanSource(scan)


def _require_scan(case: SubjectFiles, modality: Modality) -> ScanSource:
    if case.problem is not None:
        raise case.problem
    return case.files[modality]


def _is_scan_file(output: Path) -> bool:
    return strip_scan_suffix(output.name) != output.name


@dataclass(frozen=True)
class _Maker:
    """What is the same for all cases."""

    method: Method
    direction: Direction
    settings: dict[str, Any]

    def make_one(self, source: ScanSource, output: Path) -> Path:
        """Write a scan file, or a series where the source is one and `output` names no file."""
        note = output.with_name(strip_scan_suffix(output.name) + ".json")
        if source.series is None:
            require_writable(output)
            self._make_file(source, output, note, {})
        else:
            self._make_dicom(source, output, note)
        return output

    def make_case(self, source: ScanSource, target: Path, note: Path, metadata: dict[str, Any]) -> None:
        """Write a file or a series, unless this model has written it of this source already."""
        if self._is_done(source, target, note):
            return
        if source.series is None:
            self._make_file(source, target, note, metadata)
        else:
            self._make_dicom(source, target, note)

    def _is_done(self, source: ScanSource, target: Path, note: Path) -> bool:
        if not (target.exists() and note.is_file()):
            return False
        record = read_json(note)
        record = record.get("Record", record)
        settings = record.get("settings", {})
        same_settings = all(settings.get(key) == value for key, value in self.settings.items())
        return same_settings and record.get("inputs") == {source_of(self.direction): source.digest()}

    def _make_file(self, source: ScanSource, target: Path, note: Path, metadata: dict[str, Any]) -> None:
        with about(source.path):
            scan = require_plausible(source.read(source_of(self.direction)), str(source.path))
            require_unsheared(scan, source.path)  # the result will lie on this grid
            result = self.method.synthesize(scan)
        write_scan(result, target)
        record = self._record(source, self.settings)
        write_json(note, {**metadata, "Record": record} if metadata else record)

    def _make_dicom(self, source: ScanSource, target: Path, note: Path) -> None:
        as_series = not _is_scan_file(target)
        if as_series:
            require_new_folder(target)
        with about(source.path):
            scan = source.read_dicom(source_of(self.direction))
            if scan.series.note:
                print(f"transmodal: {scan.series.note}", file=sys.stderr)
            result = self.method.synthesize(require_plausible(scan.volume, str(source.path)))
        if as_series:
            title, software = f"Synthetic {result.modality.upper()}", f"transmodal {__version__}"
            write_series(result, scan, target, description=title, software=software, model_hash=self.settings["weights"])
        else:
            write_scan(result, target)
        write_json(note, self._record(source, {**self.settings, "series": scan.series.uid, "note": scan.series.note}))

    def _record(self, source: ScanSource, settings: dict[str, Any]) -> dict[str, Any]:
        inputs = {source_of(self.direction): source.digest()}
        return make_record("synthesize", inputs=inputs, settings=settings).model_dump(mode="json")


def _wanted(model: Path, part: Part) -> set[str] | None:
    if part == "all":
        return None
    names = set(getattr(read_run(model).split, part))
    if not names:
        raise ConfigError(f"--part {part}: the run {model} was trained without such subjects; set train.{part}_fraction when training")
    return names


def _make_all(maker: _Maker, source: Path, found: Found, output: Path, wanted: set[str] | None, part: Part) -> list[Path]:
    cases = [case for case in found.subjects if wanted is None or case.id in wanted]
    if not cases:
        raise DataError(f"{source}: none of the subjects there is in the part {part} of the run")
    if found.layout == "bids":
        describe_derivative(output, source)
    done, failures = [], []
    for case in track(cases, "synthesizing"):
        try:
            scan = _require_scan(case, source_of(maker.direction))
            target, note = _place(case.id, scan, found.layout, output, maker.direction)
            metadata = sidecar(scan.path, source, maker.settings) if found.layout == "bids" else {}
            maker.make_case(scan, target, note, metadata)
            done.append(target)
        except TransmodalError as error:
            failures.append(f"{case.id}: {error}")
    write_json(output / RECORD_NAME, make_record("synthesize", settings={**maker.settings, "part": part}).model_dump(mode="json"))
    if failures:
        raise CasesFailed(f"{len(failures)} of {len(cases)} scans could not be synthesized:\n" + "\n".join(failures))
    return done


def _place(case: str, scan: ScanSource, layout: Layout, output: Path, direction: Direction) -> tuple[Path, Path]:
    """Where a result goes, and the note beside it."""
    if scan.series is not None:
        return output / case, output / f"{case}.json"
    if layout == "bids":
        return derivative_paths(scan.path, output, direction)
    return output / case / f"{OUTPUT_NAMES[direction]}.nii.gz", output / case / RECORD_NAME
