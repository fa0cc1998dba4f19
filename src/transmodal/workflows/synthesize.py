"""From a run and a scan, or a folder of scans, to the other modality on the scans' own grids."""

import sys
from pathlib import Path
from typing import Any, Literal

from transmodal import __version__
from transmodal.contracts import Method
from transmodal.core.errors import CasesFailed, ConfigError, DataError, FileError, TransmodalError, about
from transmodal.core.files import read_json, require_new_folder, require_room, sha256, write_json
from transmodal.core.progress import track
from transmodal.core.record import RECORD_NAME, make_record
from transmodal.core.volume import Direction, Modality, source_of
from transmodal.engine.hardware import choose_device, keep_memory
from transmodal.imaging.dicom_files import find_dicom, is_dicom
from transmodal.imaging.dicom_read import read_series
from transmodal.imaging.dicom_write import write_series
from transmodal.imaging.layouts import SubjectFiles, find_subjects
from transmodal.imaging.plausibility import require_plausible
from transmodal.imaging.scan import read_scan, require_unsheared, require_writable, strip_scan_suffix, write_scan
from transmodal.methods.runs import load_method, read_run, weights_hash

Part = Literal["all", "train", "validation", "test"]

OUTPUT_NAMES: dict[Direction, str] = {"mr2ct": "sct", "ct2mr": "smr"}


def synthesize(
    scan: Path,
    output: Path,
    model: Path,
    *,
    direction: Direction | None = None,
    part: Part = "all",
    device: str = "auto",
    series: str | None = None,
    force_geometry: bool = False,
) -> list[Path]:
    """Make the other modality of one scan, or of every subject below a folder.

    Parameters
    ----------
    scan : Path
        A scan, a folder in SynthRAD layout, or a folder of DICOM files.
    output : Path
        A scan file; or, for a folder of subjects, the folder that takes ``<subject>/sct.nii.gz`` (``smr.nii.gz`` from CT to MR); or,
        for DICOM, a folder to make that takes the result as a series.
    model : Path
        A run.
    direction : {"mr2ct", "ct2mr"}, optional
        By default what the model does.
    part : {"all", "train", "validation", "test"}
        Of a folder, the subjects that were in this part of the run's split.
    device : str
        ``auto``, ``cpu``, ``cuda`` ...
    series : str, optional
        Of DICOM, the number or UID of the series.
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
    if _is_dicom(scan):
        return [_synthesize_dicom(method, scan, output, settings, series, force_geometry)]
    if series is not None or force_geometry:
        raise ConfigError(f"--series and --force-geometry are for DICOM, and {scan} is not")
    if scan.is_dir():
        return _synthesize_folder(method, scan, output, _wanted(model, part), settings, part)
    if not scan.is_file():
        raise FileError(f"{scan}: there is no such file or folder")
    require_writable(output)
    _synthesize_file(method, scan, output, _note_beside(output), settings)
    return [output]


def _note_beside(output: Path) -> Path:
    return output.with_name(strip_scan_suffix(output.name) + ".json")


def _is_dicom(scan: Path) -> bool:
    """Whether a scan is a DICOM file, or a folder with DICOM files and without subjects in SynthRAD layout."""
    if not scan.is_dir():
        return is_dicom(scan)
    try:
        find_subjects(scan)
    except DataError:
        return any(True for _ in find_dicom(scan))
    return False


def _synthesize_dicom(method: Method, scan: Path, output: Path, settings: dict[str, Any], series: str | None, force_geometry: bool) -> Path:
    """Write a DICOM series, or a scan file where `output` names one."""
    as_series = strip_scan_suffix(output.name) == output.name
    if as_series:
        require_new_folder(output)
    modality = source_of(settings["direction"])
    with about(scan):
        source = read_series(scan, modality, series=series, force_geometry=force_geometry)
        if source.series.note:
            print(f"transmodal: {source.series.note}", file=sys.stderr)
        result = method.synthesize(require_plausible(source.volume, str(scan)))
    if as_series:
        title = f"Synthetic {result.modality.upper()}"
        write_series(result, source, output, description=title, software=f"transmodal {__version__}", model_hash=settings["weights"])
    else:
        write_scan(result, output)
    settings = {**settings, "series": source.series.uid, "note": source.series.note}
    record = make_record("synthesize", inputs={modality: source.digest()}, settings=settings)
    write_json(_note_beside(output), record.model_dump(mode="json"))
    return output


def _wanted(model: Path, part: Part) -> set[str] | None:
    if part == "all":
        return None
    names = set(getattr(read_run(model).split, part))
    if not names:
        raise ConfigError(f"--part {part}: the run {model} was trained without such subjects; set train.{part}_fraction when training")
    return names


def _synthesize_folder(
    method: Method, source: Path, output: Path, wanted: set[str] | None, settings: dict[str, Any], part: Part
) -> list[Path]:
    modality, name = source_of(settings["direction"]), OUTPUT_NAMES[settings["direction"]]
    cases = [case for case in find_subjects(source) if modality in case.files and (wanted is None or case.id in wanted)]
    if not cases:
        raise DataError(f"{source}: none of the subjects there has an {modality.upper()}" + (" and is in that part" if wanted else ""))
    done, failures = [], []
    for case in track(cases, "synthesizing"):
        target = output / case.id / f"{name}.nii.gz"
        try:
            _synthesize_case(method, case, modality, target, settings)
            done.append(target)
        except TransmodalError as error:
            failures.append(f"{case.id}: {error}")
    record = make_record("synthesize", settings={**settings, "part": part})
    write_json(output / RECORD_NAME, record.model_dump(mode="json"))
    if failures:
        raise CasesFailed(f"{len(failures)} of {len(cases)} scans could not be synthesized:\n" + "\n".join(failures))
    return done


def _synthesize_case(method: Method, case: SubjectFiles, modality: Modality, target: Path, settings: dict[str, Any]) -> None:
    note = target.with_name(RECORD_NAME)
    inputs = {modality: sha256(case.files[modality])}
    if target.is_file() and note.is_file():
        old = read_json(note)
        if old.get("inputs") == inputs and old.get("settings") == settings:
            return
    _synthesize_file(method, case.files[modality], target, note, settings)


def _synthesize_file(method: Method, scan: Path, target: Path, note: Path, settings: dict[str, Any]) -> None:
    modality = source_of(settings["direction"])
    with about(scan):
        volume = require_plausible(read_scan(scan, modality), str(scan))
        require_unsheared(volume, scan)  # the result will lie on this grid
        result = method.synthesize(volume)
    write_scan(result, target)
    record = make_record("synthesize", inputs={modality: sha256(scan)}, settings=settings)
    write_json(note, record.model_dump(mode="json"))
