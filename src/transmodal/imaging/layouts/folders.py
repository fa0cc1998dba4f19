"""Two folders, ``mr`` and ``ct``, with a file a subject: files of the same name are one subject's."""

from collections.abc import Sequence
from pathlib import Path

from transmodal.core.errors import DataError
from transmodal.imaging.layouts.subjects import IMAGES, KINDS, Draft, Options, ScanSource, folders_in, walk
from transmodal.imaging.scan import strip_scan_suffix

_NAMES: dict[str, str] = {"mr": "mr", "mri": "mr", "ct": "ct", "mask": "mask", "masks": "mask", "labels": "labels", "brain": "brain"}


def recognize(source: Path) -> str | None:
    """By scans of the same name in both folders."""
    common = sorted(cases_of(source, "mr").keys() & cases_of(source, "ct").keys())
    return f"two folders, mr and ct, hold scans of the same name ({common[0]})" if common else None


def read(source: Path, options: Options) -> list[Draft]:
    """List the subjects; one whose scan is in one folder only has no pair.

    Raises
    ------
    DataError
        If there are no two such folders with scans.
    """
    found = {kind: cases_of(source, kind) for kind in KINDS}
    if not found["mr"] or not found["ct"]:
        raise DataError(f"{source}: expected two folders there, mr and ct, with scans in each")
    cases = sorted({case for kind in IMAGES for case in found[kind]})
    return [Draft(case, {kind: scans for kind in KINDS if (scans := found[kind].get(case))}) for case in cases]


def kind_folder(source: Path, kind: str) -> str | None:
    """The name of the folder for one kind of scan, in small or capital letters."""
    return next((path.name for path in folders_in(source) if _NAMES.get(path.name.lower()) == kind), None)


def cases_of(source: Path, kind: str) -> dict[str, list[ScanSource]]:
    """The scans in the folder for one kind, by case."""
    name = kind_folder(source, kind)
    return {} if name is None else _by_case([path for _, scans in walk(source / name) for path in scans], kind)


def _by_case(paths: Sequence[Path], kind: str) -> dict[str, list[ScanSource]]:
    """The name of a file, without ``_mr`` in the folder of MRs and the like, is the case."""
    cases: dict[str, list[ScanSource]] = {}
    for path in paths:
        case = strip_scan_suffix(path.name).removesuffix(f"_{kind}")
        if case not in KINDS:  # files named by what they are belong to folders named by the subject
            cases.setdefault(case, []).append(ScanSource(path))
    return cases
