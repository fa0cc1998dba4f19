"""From a true or synthetic CT, or a folder of them, to masks of bone by k-means."""

from pathlib import Path
from typing import Any

from transmodal.core.errors import CasesFailed, TransmodalError, about
from transmodal.core.files import read_json, require_apart, require_room, write_json
from transmodal.core.progress import track
from transmodal.core.record import RECORD_NAME, make_record, require_replaceable
from transmodal.core.volume import require_same_grid
from transmodal.evaluation.bone import BINS, CLASSES, segment_bone
from transmodal.evaluation.cases import companion, find_images
from transmodal.imaging.masks import head_mask
from transmodal.imaging.plausibility import require_plausible
from transmodal.imaging.scan import read_scan, require_unsheared, require_writable, scan_hash, strip_scan_suffix, write_scan

BONE_NAME = "bone.nii.gz"
_SETTINGS: dict[str, Any] = {"method": "k-means", "classes": CLASSES, "bins": BINS}


def segment(scan: Path, output: Path, *, synthetic: bool = False) -> list[Path]:
    """Write the bone of one CT, or of every case of a folder; see `transmodal.evaluation.bone`.

    Parameters
    ----------
    scan : Path
        A CT file, or a folder of cases: ``CASE/ct.nii.gz`` at any depth, ``CASE_ct.nii.gz``, or ``CASE.nii.gz``.
    output : Path
        A file for a file; for a folder, the folder that takes ``CASE/bone.nii.gz``.
    synthetic : bool
        Of a folder, take the synthetic CTs (``sct``) instead of the true ones.

    Returns
    -------
    list of Path
        The masks that are there now. What has been made of the same files already is not made again.

    Raises
    ------
    CasesFailed
        If some of several cases could not be done.
    """
    require_room(output)
    if scan.is_file():
        require_writable(output)
        case = strip_scan_suffix(scan.name).removesuffix("_sct").removesuffix("_ct")
        _segment_case(scan, case, output, output.with_name(f"{strip_scan_suffix(output.name)}.json"))
        return [output]
    images = find_images(scan, "sct" if synthetic else "ct")
    apart = output.resolve() != scan.resolve()  # otherwise the record there says what made the CTs
    if apart:
        require_replaceable(output / RECORD_NAME, "segment")
    done, failures = [], []
    for case, path in track(images.items(), "segmenting", total=len(images)):
        target = output / case / BONE_NAME
        try:
            _segment_case(path, case, target, target.with_name("bone.json"))
            done.append(target)
        except TransmodalError as error:
            failures.append(f"{case}: {error}")
    if apart:
        write_json(output / RECORD_NAME, make_record("segment", settings=_SETTINGS).model_dump(mode="json"))
    if failures:
        raise CasesFailed(f"{len(failures)} of {len(images)} CTs could not be segmented:\n" + "\n".join(failures))
    return done


def _segment_case(path: Path, case: str, target: Path, note: Path) -> None:
    """Write a mask and its record, unless both are there already and were made of the same files."""
    mask_path = companion(path, case, "mask")
    require_apart([target, note], [path, *([mask_path] if mask_path else [])])
    require_replaceable(note, "segment", "synthesize")
    inputs = {"ct": scan_hash(path)} | ({"mask": scan_hash(mask_path)} if mask_path else {})
    if target.is_file() and note.is_file() and _made_of(read_json(note)) == (inputs, _SETTINGS):
        return
    with about(path, *([mask_path] if mask_path else [])):
        ct = require_plausible(read_scan(path, "ct"), str(path))
        require_unsheared(ct, path)
        head = read_scan(mask_path, "mask") if mask_path else head_mask(ct)
        require_same_grid(ct.grid, head.grid, str(path), str(mask_path))
        bone = segment_bone(ct, head)
    write_scan(bone, target)
    write_json(note, make_record("segment", inputs=inputs, settings=_SETTINGS).model_dump(mode="json"))


def _made_of(record: Any) -> tuple[Any, Any]:
    return (record.get("inputs"), record.get("settings")) if isinstance(record, dict) else (None, None)
