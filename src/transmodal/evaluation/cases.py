"""Which prediction belongs to which reference: matching by the name of the case.

Three layouts are understood: BIDS, where the case is the subject and the session, and, at any depth, a folder a case with files named
by what they are (``<case>/sct.nii.gz``), and files named by the case (``<case>.nii.gz``, or ``<case>_sct.nii.gz``). Otherwise a name is
never guessed from its parts.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from transmodal.core.errors import DataError
from transmodal.core.files import folders_below
from transmodal.imaging.layouts import bids
from transmodal.imaging.layouts.bids_names import CT_SUFFIX, Name, parse_name
from transmodal.imaging.layouts.subjects import Options, safe_names, scans_in
from transmodal.imaging.scan import find_scan, strip_scan_suffix

# What files of a case are called; what belongs to a synthetic image has the image's name and one of the last five.
STEMS = ("mr", "ct", "sct", "smr", "mask", "labels", "bone", "dose", "uncertainty", "cycle")


@dataclass(frozen=True)
class Pair:
    """One case: a prediction and the reference that it is scored against."""

    case: str
    prediction: Path
    reference: Path


@dataclass(frozen=True)
class Matching:
    """Pairs by name, and the names that only one side has."""

    pairs: tuple[Pair, ...]
    unreferenced: tuple[str, ...]
    unpredicted: tuple[str, ...]


def match(predictions: Path, references: Path, prediction_stem: str, reference_stem: str) -> Matching:
    """Pair the predictions with the references of the same case.

    Two folders that hold one scan each, without a folder for the case, are a pair whatever their names.

    Parameters
    ----------
    predictions, references : Path
        Folders in one of the layouts above; they may be the same.
    prediction_stem, reference_stem : str
        What the files are called: ``sct`` (or ``bone``, a mask) and ``ct``, or ``smr`` and ``mr``.

    Raises
    ------
    DataError
        If a folder holds no such scan, two scans carry one case's name or are of one reference, or no name is on both sides.
    """
    wanted = find_images(references, reference_stem)
    found: dict[str, Path] = {}
    for case, path in find_images(predictions, prediction_stem).items():
        name = _reference_name(case, wanted)
        if name in found:
            raise DataError(f"{found[name]} and {path} are both of {name}, which {references} has once; score them in two calls")
        found[name] = path
    if len(found) == len(wanted) == 1 and found.get(predictions.name) and wanted.get(references.name):
        return Matching((Pair(references.name, found[predictions.name], wanted[references.name]),), (), ())
    common = sorted(found.keys() & wanted.keys())
    if not common:
        raise DataError(
            f"no case of {predictions} has a reference in {references}: a case is matched by the name of its folder (CASE/"
            f"{prediction_stem}.nii.gz with CASE/{reference_stem}.nii.gz) or of its file (CASE.nii.gz, CASE_{prediction_stem}.nii.gz)\n"
            f"  predictions: {_some(found)}\n  references: {_some(wanted)}"
        )
    return Matching(
        tuple(Pair(case, found[case], wanted[case]) for case in common),
        tuple(sorted(found.keys() - wanted.keys())),
        tuple(sorted(wanted.keys() - found.keys())),
    )


def find_images(folder: Path, stem: str) -> dict[str, Path]:
    """Find the scans called `stem` below `folder`, by case.

    Parameters
    ----------
    folder : Path
    stem : str
        ``mr``, ``ct``, ``sct``, ``smr``, ``mask`` or ``bone``.

    Raises
    ------
    DataError
        If there is none, or two scans carry one case's name.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; give the folder that holds the cases")
    found = list(_by_bids(folder, stem)) or list(_by_folder(folder, stem)) or list(_by_file(folder, stem))
    if not found:
        raise DataError(f"{folder}: no scan of any case; expected CASE/{stem}.nii.gz, CASE_{stem}.nii.gz or CASE.nii.gz (or .mha, ...)")
    images: dict[str, Path] = {}
    for case, path in found:
        if case in images:
            raise DataError(f"two scans are called {case}: {images[case]} and {path}; give the folder of one of them")
        images[case] = path
    return images


def holds(folder: Path, stem: str) -> bool:
    """Whether scans below `folder` are called `stem` by their names."""
    return any(any(find(folder, stem)) for find in (_by_bids, _by_folder, _by_mark))


def holds_any(folder: Path, stem: str) -> bool:
    """The same, or whether there are scans that are called by their case alone."""
    return holds(folder, stem) or any(_by_file(folder, stem))


def person_of(case: str) -> str:
    """Whom a case is of, where its name tells by BIDS: ``sub-1`` of ``sub-1_ses-2``; otherwise every case is somebody else."""
    return case.split("_ses-")[0] if case.startswith("sub-") else case


def companion(image: Path, case: str, stem: str) -> Path | None:
    """Find another scan of the same case beside `image`: ``<stem>.*``, or ``<case>_<stem>.*`` where files are named by the case."""
    name = parse_name(image)
    if name is not None:
        beside = [path for path in scans_in(image.parent) if (other := parse_name(path)) is not None and other.case == name.case]
        found = [path for path in beside if bids.kind_of(path) == stem]
        return found[0] if len(found) == 1 else None
    named_by_case = strip_scan_suffix(image.name) not in STEMS
    return find_scan(image.parent, f"{case}_{stem}" if named_by_case else stem)


def companion_of_prediction(pair: Pair, stem: str) -> Path | None:
    """Find what belongs to a synthetic image: ``sct_<stem>.*`` beside ``sct.nii.gz``, by BIDS its name with another description.

    Where none is called so, it is what `companion` finds, unless the true image lies in the same folder and would own that.
    """
    folder, name = pair.prediction.parent, parse_name(pair.prediction)
    described = Name({**name.entities, "desc": stem}, name.suffix) if name else f"{strip_scan_suffix(pair.prediction.name)}_{stem}"
    found = find_scan(folder, str(described))
    if found is not None or folder.resolve() == pair.reference.parent.resolve():
        return found
    return companion(pair.prediction, pair.case, stem)


def _by_bids(folder: Path, stem: str) -> Iterator[tuple[str, Path]]:
    """Synthetic images by their names, and true ones as they are read for `prepare`."""
    if bids.recognize(folder) is None:
        return
    if stem == "bone":
        yield from ((scan.name.case, scan.path) for scan in bids.scans_of(folder) if scan.name.is_bone)
        return
    if stem in ("sct", "smr"):
        synthetic = (scan for scan in bids.scans_of(folder) if scan.name.is_synthetic)
        yield from ((scan.name.case, scan.path) for scan in synthetic if (scan.name.suffix == CT_SUFFIX) == (stem == "sct"))
        return
    for draft in bids.read(folder, Options()):
        yield from ((draft.name, scan.path) for scan in draft.files.get(stem, []))


def _reference_name(case: str, wanted: Collection[str]) -> str:
    """Find what the references call a case: as it is, without the session (where MR and CT are of two), or not yet safe as a folder."""
    if case in wanted:
        return case
    person = person_of(case)
    originals = {safe: name for name, safe in zip(wanted, safe_names(list(wanted)), strict=True)}
    return person if person in wanted else originals.get(case, case)


def _by_folder(folder: Path, stem: str) -> Iterator[tuple[str, Path]]:
    for directory in folders_below(folder):
        scan = find_scan(directory, stem)
        if scan is not None:
            yield directory.name, scan


def _by_file(folder: Path, stem: str) -> Iterator[tuple[str, Path]]:
    others = tuple(f"_{other}" for other in STEMS)
    yield from list(_by_mark(folder, stem)) or [
        (name, path) for name, path in _scans(folder) if name not in STEMS and not name.endswith(others)
    ]


def _by_mark(folder: Path, stem: str) -> Iterator[tuple[str, Path]]:
    """Scans called ``<case>_<stem>``."""
    yield from ((name.removesuffix(f"_{stem}"), path) for name, path in _scans(folder) if name.endswith(f"_{stem}"))


def _scans(folder: Path) -> Iterator[tuple[str, Path]]:
    """All scans below a folder, with their names."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    yield from ((name, path) for path in paths if (name := strip_scan_suffix(path.name)) != path.name)


def _some(images: dict[str, Path]) -> str:
    names = sorted(images)
    return ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
