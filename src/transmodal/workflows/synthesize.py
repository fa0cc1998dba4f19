"""From runs and a scan, or a folder of scans, to the other modality on the scans' own grids."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transmodal import __version__
from transmodal.contracts import Method
from transmodal.core.errors import CasesFailed, ConfigError, DataError, FileError, TransmodalError, about
from transmodal.core.files import require_new_folder, require_room, write_json
from transmodal.core.jobs import HERE, Workers
from transmodal.core.progress import track
from transmodal.core.record import RECORD_NAME, make_record, require_replaceable
from transmodal.core.volume import Direction, Modality, Volume, source_of
from transmodal.engine.hardware import choose_device, keep_memory
from transmodal.engine.run import read_run
from transmodal.imaging.dicom_files import is_dicom
from transmodal.imaging.dicom_write import write_series
from transmodal.imaging.guard import require_head
from transmodal.imaging.layouts import Found, Layout, ScanSource, SubjectFiles, find_subjects
from transmodal.imaging.layouts.dicom import series_source
from transmodal.imaging.layouts.subjects import Options
from transmodal.imaging.layouts.table import is_table
from transmodal.imaging.plausibility import require_plausible
from transmodal.imaging.scan import require_unsheared, require_writable, strip_scan_suffix, write_scan
from transmodal.methods.builtin import DEFAULT_MODEL, find_model
from transmodal.methods.ensemble import load_ensemble
from transmodal.methods.runs import weights_hash
from transmodal.workflows.derivative import describe_derivative, sidecar
from transmodal.workflows.places import EXTRAS, Extra, Place, beside, is_scan_file, place_of, record_in

Part = Literal["all", "train", "validation", "test"]

_SERIES_OPTION = "--series"


def synthesize(
    scan: Path,
    output: Path,
    model: str | Path | Sequence[str | Path] = DEFAULT_MODEL,
    *,
    direction: Direction | None = None,
    layout: Layout = "auto",
    part: Part = "all",
    device: str = "auto",
    series: str | None = None,
    force_geometry: bool = False,
    force: bool = False,
    uncertainty: bool = False,
    cycle: bool = False,
    brain: Path | None = None,
    workers: Workers = HERE,
) -> list[Path]:
    """Make the other modality of one scan, or of every subject of a folder or table; with a model that segments, a mask of the bone.

    Parameters
    ----------
    scan : Path
        A scan, a folder of subjects in any layout, a table of scans, or a folder of DICOM files.
    output : Path
        A scan file; or, for DICOM of one patient, a folder to make that takes the result as a series; or, for several subjects, the
        folder that takes ``<subject>/sct.nii.gz`` (``smr.nii.gz`` from CT to MR, ``bone.nii.gz`` for a mask), a DICOM series
        ``<subject>/`` for those that come as DICOM, or a BIDS derivative for those in BIDS.
    model : str, Path or sequence of them
        A run, or the name of a built-in model; or several, whose mean is taken.
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
    force : bool
        Go on where the guard refuses a scan; of models whose recipe asks for it (``guarded``).
    uncertainty : bool
        Also write ``<result>_uncertainty.nii.gz``: the standard deviation over the runs and over the planes, mirror images and exposures of
        each, with what a network has learned to expect of its own error, in the unit of the result.
    cycle : bool
        Also write ``<result>_cycle.nii.gz``: the scan made again from the result, by a model that goes both ways.
    brain : Path, optional
        A mask of the brain in the one scan, for a model that uses it, as atlases do; of several subjects, ``brain`` beside each scan.
    workers : Workers
        Who does what a model can share, as the registrations of atlases.

    Returns
    -------
    list of Path
        The files that are there now. Cases that the same model has done already are not done again.

    Raises
    ------
    ConfigError
        If the runs do not make the same thing, not in that direction, or leave no uncertainty.
    FileError
        If what is to be written is what is read, or there is a note beside it that another program wrote.
    DataError
        If the guard refuses the one scan.
    CasesFailed
        If some of several cases could not be done.
    """
    require_room(output)
    models = [find_model(one) for one in ([model] if isinstance(model, str | Path) else model)]
    # A whole head at once goes through a network too seldom for its freed memory to be worth keeping, which is gigabytes.
    if all(read_run(one).setting.prediction.window is None for one in models):
        keep_memory()
    maker = _maker(models, direction, device, {"uncertainty": uncertainty, "cycle": cycle}, force, workers)
    modality = source_of(maker.direction)
    if brain is not None and not maker.method.uses_brain:
        raise ConfigError(f"--brain: the model {models[0]} has no use for a mask of the brain; leave it out")
    if scan.is_file() and not is_table(scan):
        _require_default("layout", layout, "auto", scan)
        _require_default("part", part, "all", scan)
        return [maker.make_one(_single(scan, modality, series, force_geometry), output, None if brain is None else ScanSource(brain))]
    if not scan.exists():
        raise FileError(f"{scan}: there is no such file or folder")
    choices = {"mr_series": series, "ct_series": series, "force_geometry": force_geometry, "series_option": _SERIES_OPTION}
    found = find_subjects(scan, layout, wanted=(modality,), **choices)
    if found.layout == "dicom" and len(found.subjects) == 1:
        return [maker.make_one(_require_scan(found.subjects[0], modality), output, None if brain is None else ScanSource(brain))]
    if brain is not None:
        raise ConfigError(f"--brain: {scan} is a folder of subjects; put a mask beside each scan, as brain.nii.gz")
    if layout == "auto":
        print(f"transmodal: {found.explanation}", file=sys.stderr)
    if is_scan_file(output):
        problems = [case.problem for case in found.subjects if case.problem is not None]
        if len(problems) == len(found.subjects):
            raise problems[0]
        raise ConfigError(f"{output}: {scan} holds {len(found.subjects)} subjects; name a folder to write, not a file")
    return _make_all(maker, scan, found, output, _wanted(models, part), part)


def _maker(
    models: list[Path], direction: Direction | None, device: str, extras: dict[Extra, bool], force: bool, workers: Workers
) -> "_Maker":
    method = load_ensemble(models, choose_device(device), workers)
    direction = direction or method.directions[0]
    if direction not in method.directions:
        raise ConfigError(f"--direction {direction}: the model {models[0]} does {', '.join(method.directions)}")
    if extras["uncertainty"] and method.opinions < 2:
        raise ConfigError(
            f"--uncertainty: the model {models[0]} predicts each voxel once; give several runs, or one of several planes (view.axes) "
            "or mirror images (predict.flip)"
        )
    if extras["cycle"] and len(method.directions) < 2:
        raise ConfigError(f"--cycle: the model {models[0]} does {direction} alone, and cannot make the scan again from its result")
    wanted = {name: True for name, given in extras.items() if given}
    guarded = any(read_run(model).recipe.get("guarded", False) for model in models)
    return _Maker(method, direction, {"direction": direction, **_describe(models), **wanted}, guarded, force)


def _describe(models: list[Path]) -> dict[str, Any]:
    """What the record says of the runs: names, a hash of the weights of all, titles, and of several the hash of each."""
    runs = [{"model": model.name, "weights": weights_hash(model)} for model in models]
    titles = list(dict.fromkeys(read_run(model).recipe["title"] for model in models))
    if len(runs) == 1:
        return {**runs[0], "title": titles[0]}
    together = hashlib.sha256("".join(run["weights"] for run in runs).encode()).hexdigest()
    names = ", ".join(run["model"] for run in runs)
    return {"model": names, "weights": together, "title": f"Mean of {len(runs)} runs: {', '.join(titles)}", "runs": runs}


def _require_default(option: str, given: str, default: str, scan: Path) -> None:
    """Refuse what would do nothing."""
    if given != default:
        raise ConfigError(f"--{option} {given}: is for a folder or table of several subjects, and {scan} is one scan; leave it out")


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


@dataclass(frozen=True)
class _Inputs:
    """What a result is made of: a scan, and the mask of its brain where the model uses it."""

    scan: ScanSource
    brain: ScanSource | None = None

    @property
    def paths(self) -> list[Path]:
        return [self.scan.path, *([] if self.brain is None else [self.brain.path])]


@dataclass(frozen=True)
class _Maker:
    """What is the same for all cases."""

    method: Method
    direction: Direction
    settings: dict[str, Any]
    guarded: bool
    force: bool

    @property
    def extras(self) -> list[Extra]:
        return [extra for extra in EXTRAS if extra in self.settings]

    def make_one(self, source: ScanSource, output: Path, brain: ScanSource | None) -> Path:
        """Write a scan file, or a series where the source is one and `output` names no file."""
        place, inputs = beside(output, output.with_name(strip_scan_suffix(output.name) + ".json")), _Inputs(source, brain)
        place.require_free(inputs.paths, self.extras)
        if source.series is None:
            require_writable(output)
            self._make_file(inputs, place, {})
        else:
            self._make_dicom(inputs, place)
        return output

    def make_case(self, case: SubjectFiles, place: Place, metadata: dict[str, Any]) -> None:
        """Write a file or a series, unless this model has written it of these inputs already."""
        inputs = _Inputs(case.files[source_of(self.direction)], case.files.get("brain") if self.method.uses_brain else None)
        place.require_free(inputs.paths, self.extras)
        if self._is_done(inputs, place):
            return
        if inputs.scan.series is None:
            self._make_file(inputs, place, metadata)
        else:
            self._make_dicom(inputs, place)

    def _is_done(self, inputs: _Inputs, place: Place) -> bool:
        wanted = [place.target, place.note, *(place.extras[extra] for extra in self.extras)]
        if not all(path.exists() for path in wanted):
            return False
        record = record_in(place.note)
        settings = record.get("settings", {})
        same_settings = all(settings.get(key) == value for key, value in self.settings.items())
        return same_settings and record.get("inputs") == self._digests(inputs)

    def _make(self, scan: Volume, brain: ScanSource | None) -> tuple[Volume, dict[Extra, Volume]]:
        """The result, and what else is wanted."""
        method = self.method if brain is None else self.method.with_brain(brain.read("mask"))
        more: dict[Extra, Volume] = {"cycle": method.cycle(scan)} if "cycle" in self.extras else {}
        if "uncertainty" not in self.extras:
            return method.synthesize(scan), more
        result, uncertainty = method.synthesize_with_uncertainty(scan)
        return result, {**more, "uncertainty": uncertainty}

    def _guard(self, scan: Volume, path: Path) -> dict[str, Any]:
        """What the record says of the scan if the model asks for it to be looked at; what is wrong is printed, or refused."""
        if not self.guarded:
            return {}
        report = require_head(scan, str(path), force=self.force)
        for words in [*report.reasons("refuse"), *report.reasons("warn")]:
            print(f"transmodal: {path}: {words}", file=sys.stderr)
        return {"guard": report.record()}

    def _make_file(self, inputs: _Inputs, place: Place, metadata: dict[str, Any]) -> None:
        path = inputs.scan.path
        with about(path):
            scan = require_plausible(inputs.scan.read(source_of(self.direction)), str(path))
            require_unsheared(scan, path)  # the result will lie on this grid
            found = self._guard(scan, path)
            result, more = self._make(scan, inputs.brain)
        place.clear(self.extras)
        write_scan(result, place.target)
        _write_extras(more, place)
        record = self._record(inputs, {**self.settings, **found})
        write_json(place.note, {**metadata, "Record": record} if metadata else record)

    def _make_dicom(self, inputs: _Inputs, place: Place) -> None:
        if place.as_series and self.method.product == "bone":
            raise ConfigError(f"{place.target}: a mask of bone is not written as a CT series; name a scan file, such as bone.nii.gz")
        if place.as_series:
            require_new_folder(place.target)
        with about(inputs.scan.path):
            scan = inputs.scan.read_dicom(source_of(self.direction))
            if scan.series.note:
                print(f"transmodal: {scan.series.note}", file=sys.stderr)
            found = self._guard(require_plausible(scan.volume, str(inputs.scan.path)), inputs.scan.path)
            result, more = self._make(scan.volume, inputs.brain)
        series = {"series": scan.series.uid, "note": scan.series.note}
        record = self._record(inputs, {**self.settings, **found, **series})
        place.clear(self.extras)
        _write_extras(more, place)
        if place.as_series:  # which cannot be written over: it comes last, so that what was interrupted can be done again
            write_json(place.note, record)
            title, software = f"Synthetic {result.modality.upper()}", f"transmodal {__version__}"
            write_series(result, scan, place.target, description=title, software=software, model_hash=self.settings["weights"])
        else:
            write_scan(result, place.target)
            write_json(place.note, record)

    def _record(self, inputs: _Inputs, settings: dict[str, Any]) -> dict[str, Any]:
        return make_record("synthesize", inputs=self._digests(inputs), settings=settings).model_dump(mode="json")

    def _digests(self, inputs: _Inputs) -> dict[str, str]:
        brain = {} if inputs.brain is None else {"brain": inputs.brain.digest()}
        return {source_of(self.direction): inputs.scan.digest(), **brain}


def _write_extras(more: dict[Extra, Volume], place: Place) -> None:
    for extra, volume in more.items():
        write_scan(volume, place.extras[extra])


def _wanted(models: list[Path], part: Part) -> set[str] | None:
    """The subjects that are in this part of the split of every run; None for all there are."""
    if part == "all":
        return None
    names = set.intersection(*(set(getattr(read_run(model).split, part)) for model in models))
    if not names:
        runs = f"the run {models[0]} was" if len(models) == 1 else f"the {len(models)} runs were"
        raise ConfigError(f"--part {part}: {runs} trained without such subjects; set train.{part}_fraction when training")
    return names


def _make_all(maker: _Maker, source: Path, found: Found, output: Path, wanted: set[str] | None, part: Part) -> list[Path]:
    cases = [case for case in found.subjects if wanted is None or case.id in wanted]
    if not cases:
        raise DataError(f"{source}: none of the subjects there is in the part {part} of the run")
    apart = output.resolve() != source.resolve()  # otherwise the record there says what the scans are
    if apart:
        require_replaceable(output / RECORD_NAME, "synthesize")
    if found.layout == "bids":
        describe_derivative(output, source)
    done, failures = [], []
    for case in track(cases, "synthesizing"):
        try:
            scan = _require_scan(case, source_of(maker.direction))
            place = place_of(case.id, scan, found.layout, output, maker.direction, maker.method.product)
            metadata = sidecar(scan.path, source, maker.settings, maker.method.product) if found.layout == "bids" else {}
            maker.make_case(case, place, metadata)
            done.append(place.target)
        except TransmodalError as error:
            failures.append(f"{case.id}: {error}")
    if apart:
        write_json(output / RECORD_NAME, make_record("synthesize", settings={**maker.settings, "part": part}).model_dump(mode="json"))
    if failures:
        raise CasesFailed(f"{len(failures)} of {len(cases)} scans could not be synthesized:\n" + "\n".join(failures))
    return done
