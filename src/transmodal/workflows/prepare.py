"""From scans as they lie in folders to a dataset that training reads: ordered, resampled, masked, measured, stored."""

from pathlib import Path

import numpy as np

from transmodal.core.config import validate
from transmodal.core.errors import CasesFailed, TransmodalError, about
from transmodal.core.files import folder_lock, read_json, sha256, write_json
from transmodal.core.progress import track
from transmodal.core.record import RECORD_NAME, make_record
from transmodal.core.volume import Volume
from transmodal.data.manifest import Image, Manifest, Subject, write_manifest
from transmodal.data.store import write_image
from transmodal.imaging.grid import resample
from transmodal.imaging.intensity import measure
from transmodal.imaging.layouts import SubjectFiles, find_subjects
from transmodal.imaging.masks import head_mask
from transmodal.imaging.plausibility import require_plausible
from transmodal.imaging.preparation import Preparation, PreparedScan, place_scan, prepare_scan
from transmodal.imaging.scan import read_scan


def prepare(source: Path, dataset: Path, settings: Preparation) -> Manifest:
    """Make a dataset of all subjects below a folder.

    Subjects that an earlier call has finished, of the same files and with the same settings, are kept. One that cannot be
    prepared does not stop the others.

    Parameters
    ----------
    source : Path
        Scans in SynthRAD layout.
    dataset : Path
        The folder to write.
    settings : Preparation

    Raises
    ------
    CasesFailed
        If some subjects could not be prepared; the dataset of the others is there.
    BusyError
        If another process works in the dataset.
    """
    found = find_subjects(source)
    subjects, failures = [], []
    with folder_lock(dataset):
        for files in track(found, "preparing"):
            try:
                with about(next(iter(files.files.values())).parent):
                    subjects.append(_prepare_subject(files, dataset, settings))
            except TransmodalError as error:
                failures.append(f"{files.id}: {error}")
        manifest = Manifest(preparation=settings, subjects=tuple(subjects))
        if subjects:
            write_manifest(dataset, manifest)
            inputs = {f"{s.id}/{name}": image.sha256 for s in subjects for name, image in s.images.items() if image.sha256}
            record = make_record("prepare", inputs=inputs, settings=settings.model_dump(mode="json"))
            write_json(dataset / RECORD_NAME, record.model_dump(mode="json"))
    if failures:
        raise CasesFailed(f"{len(failures)} of {len(found)} subjects could not be prepared:\n" + "\n".join(failures))
    return manifest


def _prepare_subject(files: SubjectFiles, dataset: Path, settings: Preparation) -> Subject:
    hashes = {name: sha256(path) for name, path in files.files.items()}
    note = dataset / "subjects" / f"{files.id}.json"
    key = {"files": hashes, "settings": settings.model_dump(mode="json"), "attributes": files.attributes}
    if note.is_file() and (done := read_json(note)).get("key") == key:
        return validate(Subject, done["subject"], str(note))
    images = {}
    for name, volume in _prepare_images(files, settings).items():
        write_image(dataset, files.id, name, volume.array)
        images[name] = volume
    subject = _describe(files, hashes, images)
    write_json(note, {"key": key, "subject": subject.model_dump(mode="json")})
    return subject


def _prepare_images(files: SubjectFiles, settings: Preparation) -> dict[str, Volume]:
    """All images of a subject on one grid, which the MR defines where there is one."""
    scans = {name: require_plausible(read_scan(path, name), str(path)) for name, path in files.files.items()}
    given = scans.get("mask")
    first, *rest = [name for name in ("mr", "ct") if name in scans]
    prepared = {first: prepare_scan(scans[first], settings, given)}
    grid = prepared[first].volume.grid
    for name in rest:
        prepared[name] = place_scan(scans[name], head_mask(scans[name]) if given is None else given, grid)
    images = {}
    for name, scan in prepared.items():
        images[name] = _stored(scan)
        images[f"{name}_mask"] = scan.mask.with_array(scan.mask.array.astype(np.uint8))
    if "labels" in scans:
        images["labels"] = resample(scans["labels"], grid)
    return images


def _stored(scan: PreparedScan) -> Volume:
    """A CT as whole HU, which is what a scanner gives; an MR as it is."""
    volume = scan.volume
    return volume.with_array(np.round(volume.array).astype(np.int16)) if volume.modality == "ct" else volume


def _describe(files: SubjectFiles, hashes: dict[str, str], images: dict[str, Volume]) -> Subject:
    entries = {}
    for name, volume in images.items():
        mask = images.get(f"{name}_mask")
        entries[name] = Image(
            shape=volume.shape,
            affine=tuple(tuple(row) for row in volume.affine.tolist()),
            statistics=None if mask is None else measure(volume, mask),
            box=None if mask is None else _box(mask),
            source=files.files[name].name if name in files.files else "",
            sha256=hashes.get(name, ""),
        )
    return Subject(id=files.id, images=entries, attributes=files.attributes)


def _box(mask: Volume) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """First and last + 1 voxel of the mask along each axis."""
    spans = [np.flatnonzero(mask.array.any(axis=tuple(k for k in range(3) if k != axis))) for axis in range(3)]
    x, y, z = ((int(span[0]), int(span[-1]) + 1) for span in spans)
    return x, y, z
