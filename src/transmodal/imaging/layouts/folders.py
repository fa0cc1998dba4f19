"""Two folders, ``mr`` and ``ct``, with scans of the same names: those of one name are one subject's."""

from collections import Counter
from pathlib import Path

from transmodal.core.errors import DataError
from transmodal.core.volume import Modality
from transmodal.imaging.layouts.subjects import KINDS, Draft, Options, ScanSource, folders_in, walk
from transmodal.imaging.scan import strip_scan_suffix

_NAMES = {"mr": "mr", "mri": "mr", "ct": "ct", "mask": "mask", "masks": "mask", "labels": "labels", "brain": "brain"}

# The scans of each case by kind; a case is a path, for the same name may be in several folders.
Cases = dict[Path, dict[str, list[ScanSource]]]


def recognize(source: Path) -> str | None:
    """By scans of the same name in both folders."""
    common = sorted(_with_image(source, "mr") & _with_image(source, "ct"))
    return f"two folders, mr and ct, hold scans of the same name ({common[0]})" if common else None


def read(source: Path, options: Options) -> list[Draft]:
    """List the subjects; one whose scan is in one folder only has no pair.

    Raises
    ------
    DataError
        If there are no two such folders with scans.
    """
    if not _with_image(source, "mr") or not _with_image(source, "ct"):
        raise DataError(f"{source}: expected two folders there, mr and ct, with scans in each")
    cases: Cases = {}
    for kind in KINDS:
        folder = kind_folder(source, kind)
        for case, files in cases_in(folder, kind).items() if folder else ():
            for what, scans in files.items():
                cases.setdefault(case, {}).setdefault(what, []).extend(scans)
    return drafts_of(cases)


def kind_folder(source: Path, kind: str) -> Path | None:
    """The folder for one kind of scan, by its name in small or capital letters."""
    return next((path for path in folders_in(source) if _NAMES.get(path.name.lower()) == kind), None)


def cases_in(folder: Path, kind: str) -> Cases:
    """The scans of a folder, at any depth: ``CASE``, ``CASE_mr`` or ``CASE/mr``, and beside them ``CASE_mask`` and the like."""
    cases: Cases = {}
    for place, scans in walk(folder):
        for path in scans:
            name, what = _split(strip_scan_suffix(path.name), kind)
            cases.setdefault(place.relative_to(folder) / name, {}).setdefault(what, []).append(ScanSource(path))
    return cases


def drafts_of(cases: Cases) -> list[Draft]:
    """Call each case by its last name, or by its path where that is not its own."""
    names = Counter(case.name for case in cases)
    return [Draft(case.name if names[case.name] == 1 else case.as_posix(), files) for case, files in cases.items()]


def _with_image(source: Path, kind: Modality) -> set[Path]:
    folder = kind_folder(source, kind)
    return {case for case, files in cases_in(folder, kind).items() if kind in files} if folder else set()


def _split(stem: str, default: str) -> tuple[str, str]:
    """The case and the kind of scan that a name tells; the kind is that of the folder where it tells none."""
    for kind in KINDS:
        if stem == kind or stem.endswith(f"_{kind}"):
            return stem.removesuffix(kind).removesuffix("_"), kind
    return stem, default
