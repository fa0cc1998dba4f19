"""From scans as they lie in folders to a dataset that training reads: aligned, resampled, masked, measured, stored, and looked at."""

import functools
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transmodal.core.config import validate
from transmodal.core.errors import CasesFailed, FileError, TransmodalError, about
from transmodal.core.files import atomic_path, folder_lock, read_json, sha256, write_json, write_text
from transmodal.core.jobs import HERE, Workers, run_jobs
from transmodal.core.progress import track
from transmodal.core.record import RECORD_NAME, make_record, require_replaceable
from transmodal.core.volume import Affine, Volume, whole_hu
from transmodal.data.manifest import MANIFEST_NAME, Image, Manifest, RegistrationNote, Row, Steps, Subject, write_manifest
from transmodal.data.store import ARRAYS_NAME, has_image, write_image
from transmodal.evaluation.protocol import Case, score
from transmodal.evaluation.protocols import find_protocol
from transmodal.imaging.alignment import Alignment
from transmodal.imaging.grid import resample
from transmodal.imaging.layouts import Layout, SubjectFiles, find_subjects
from transmodal.imaging.preparation import TEMPLATE_NAME, Preparation, PreparedScan, copy_template
from transmodal.imaging.registration import warp
from transmodal.imaging.scan import write_scan
from transmodal.imaging.subject import PreparedSubject, bring, covered, prepare_subject
from transmodal.reporting.html import render
from transmodal.reporting.quality import compose_quality, describe_registration, mean_floor, quality_figure

SUBJECTS_NAME, ALIGNED_NAME, PICTURES_NAME = "subjects", "aligned", "quality"
PAGE_NAME = "quality.html"
_WRITTEN = (MANIFEST_NAME, ARRAYS_NAME, SUBJECTS_NAME, ALIGNED_NAME, PICTURES_NAME, PAGE_NAME, TEMPLATE_NAME)
FLOOR_PROTOCOL = "synthrad2023"


def prepare(
    source: Path,
    dataset: Path,
    settings: Preparation,
    *,
    layout: Layout = "auto",
    ct_source: Path | None = None,
    mr_series: str | None = None,
    ct_series: str | None = None,
    force_geometry: bool = False,
    workers: Workers = HERE,
) -> Manifest:
    """Make a dataset of all subjects of a folder or table.

    Subjects that an earlier call has finished, of the same files and with the same settings, are kept. One that cannot be
    prepared does not stop the others.

    Parameters
    ----------
    source : Path
        Scans in any layout.
    dataset : Path
        The folder to write: ``dataset.json``, the arrays, ``quality.html`` with a picture of each subject, and of the pairs that were
        registered ``aligned/<id>/{mr,ct,mask}.nii.gz`` on the MR's own grid, for `evaluate`.
    settings : Preparation
    layout, ct_source, mr_series, ct_series, force_geometry
        Which scans are meant; see `find_subjects`.
    workers : Workers
        Who prepares subjects.

    Raises
    ------
    CasesFailed
        If some subjects could not be prepared; the dataset of the others is there.
    BusyError
        If another process works in the dataset.
    FileError
        If there is something at `dataset` that `prepare` did not write, or a scan lies where it writes.
    """
    dataset = Path(dataset)
    listing = find_subjects(source, layout, ct_source=ct_source, mr_series=mr_series, ct_series=ct_series, force_geometry=force_geometry)
    if layout == "auto":
        print(f"transmodal: {listing.explanation}", file=sys.stderr)
    found = listing.subjects
    _require_own(dataset, found)
    with folder_lock(dataset):
        _begin(dataset, settings)
        settings = copy_template(settings, Path.cwd(), dataset)
        job = functools.partial(_prepare_case, dataset=dataset.resolve(), settings=settings)
        outcomes = {files.id: outcome for files, outcome in track(run_jobs(job, found, workers), "preparing", total=len(found))}
        subjects, failures = [], []
        for files in found:
            outcome = outcomes[files.id]
            if isinstance(outcome, TransmodalError):
                failures.append(f"{files.id}: {outcome}")
            else:
                subjects.append(outcome)
        manifest = Manifest(preparation=settings, subjects=tuple(subjects))
        if subjects:
            _finish(dataset, manifest, failures)
    if failures:
        raise CasesFailed(f"{len(failures)} of {len(found)} subjects could not be prepared:\n" + "\n".join(failures))
    return manifest


def _require_own(dataset: Path, found: Sequence[SubjectFiles]) -> None:
    """Refuse to write over what others made, and to replace the scans themselves."""
    require_replaceable(dataset / RECORD_NAME, "prepare")
    there = [name for name in _WRITTEN if (dataset / name).exists()]
    if there and not (dataset / RECORD_NAME).exists():
        raise FileError(f"{dataset}: holds {', '.join(there)}, which prepare did not write; give a new folder for the dataset")
    written = [(dataset / name).resolve() for name in _WRITTEN]
    for path in (source.path for files in found for source in files.files.values()):
        if any(path.resolve().is_relative_to(place) for place in written):
            raise FileError(f"{path}: lies in what the dataset {dataset} would replace; give another folder for the dataset")


def _begin(dataset: Path, settings: Preparation) -> None:
    """Say whose folder this is before anything else is in it; and let no table of contents outlive the template that it is of."""
    if not (dataset / RECORD_NAME).exists():
        write_json(dataset / RECORD_NAME, make_record("prepare", settings=settings.model_dump(mode="json")).model_dump(mode="json"))
    if settings.template is not None:
        (dataset / MANIFEST_NAME).unlink(missing_ok=True)


def registration_settings(manifest: Manifest) -> dict[str, Any]:
    """How the pairs of a dataset were registered, as settings of a record that `evaluate` finds; none if none was.

    Returns
    -------
    dict
        ``registration``, in words, and ``floor``: the mean over the pairs of each score of the registration floor.
    """
    notes = [subject.steps.registration for subject in manifest.subjects if subject.steps.registration is not None]
    return {"registration": describe_registration(notes), "floor": mean_floor(notes)} if notes else {}


def _prepare_case(files: SubjectFiles, *, dataset: Path, settings: Preparation) -> Subject:
    """Prepare one subject unless it is there; its note is written last and so vouches for all of its files."""
    if files.problem is not None:
        raise files.problem
    hashes = {name: source.digest() for name, source in files.files.items()}
    key = {
        "files": hashes | {f"{name} landmarks": sha256(path) for name, path in files.landmarks.items()},
        "settings": settings.model_dump(mode="json"),
        "template": {path.name: sha256(path) for path in sorted((dataset / TEMPLATE_NAME).glob("*")) if settings.template is not None},
        "attributes": files.attributes,
        "stored": sorted({"brain"} & files.files.keys()),  # earlier versions did not keep it
    }
    note, picture = dataset / SUBJECTS_NAME / f"{files.id}.json", dataset / PICTURES_NAME / f"{files.id}.jpg"
    if note.is_file() and picture.is_file() and (done := read_json(note)).get("key") == key:
        subject = validate(Subject, done["subject"], str(note))
        if all(has_image(dataset, subject.id, name) for name in subject.images):
            return subject
    # Until all is done again there is no dataset: the table of contents vouches for every array.
    for vouching in (dataset / MANIFEST_NAME, note):
        vouching.unlink(missing_ok=True)
    began = time.monotonic()
    with about(next(iter(files.files.values())).path.parent):
        made = prepare_subject(files, settings.located(dataset))
    images = _images(made)
    for name, volume in images.items():
        write_image(dataset, files.id, name, volume.array)
    _write_aligned(made, dataset / ALIGNED_NAME / files.id)
    with atomic_path(picture) as path:
        path.write_bytes(quality_figure(made, settings.located(dataset)))
    subject = _describe(files, hashes, made, images, _steps(made, time.monotonic() - began))
    write_json(note, {"key": key, "subject": subject.model_dump(mode="json")})
    return subject


def _images(made: PreparedSubject) -> dict[str, Volume]:
    """What is stored of a subject, by name."""
    images = {}
    for name, scan in made.prepared.items():
        images[name] = _stored(scan)
        images[f"{name}_mask"] = scan.mask.with_array(scan.mask.array.astype(np.uint8))
    if made.labels is not None:
        images["labels"] = made.labels
    if made.brain is not None:
        images["brain"] = made.brain.with_array(made.brain.array.astype(np.uint8))
    return images


def _stored(scan: PreparedScan) -> Volume:
    """A CT as whole HU, which is what a scanner gives; an MR as it is."""
    volume = scan.volume
    return volume.with_array(whole_hu(volume.array)) if volume.modality == "ct" else volume


def _write_aligned(made: PreparedSubject, folder: Path) -> None:
    """A registered pair on the MR's own grid, in SynthRAD layout; the mask is where the MR shows the head and the CT has been."""
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier registration left
    if made.alignment is None:
        return
    mr, ct = made.scans["mr"], made.scans["ct"]
    seen = (resample(made.masks["mr"], mr.grid).array > 0) & (covered(ct, made.alignment.transform, mr.grid).array > 0)
    write_scan(mr, folder / "mr.nii.gz")
    write_scan(bring(ct, made.alignment, mr.grid), folder / "ct.nii.gz")
    write_scan(mr.with_array(seen, "mask"), folder / "mask.nii.gz")


def _steps(made: PreparedSubject, seconds: float) -> Steps:
    to_scan = made.space.to_scan
    return Steps(
        seconds=round(seconds, 1),
        bias_range=_bias_range(made),
        template=None if to_scan is None else _rows(to_scan),
        registration=None if made.alignment is None else _registration(made, made.alignment),
    )


def _bias_range(made: PreparedSubject) -> tuple[float, float] | None:
    """The 1st and 99th percentile over the head of the factor by which the field brightened the scan."""
    if made.corrected is None:
        return None
    head = (resample(made.masks["mr"], made.corrected.grid).array > 0) & (made.corrected.array > 0)
    low, high = np.percentile(made.scans["mr"].array[head] / made.corrected.array[head], (1, 99))
    return float(low), float(high)


def _registration(made: PreparedSubject, alignment: Alignment) -> RegistrationNote:
    return RegistrationNote(
        kind=alignment.kind,
        matrix=_rows(alignment.transform.affine),
        free_form=alignment.transform.displacements is not None,
        moved_mm=alignment.moved_mm,
        doubt_mm=alignment.doubt_mm,
        floor=_floor(made, alignment),
    )


def _floor(made: PreparedSubject, alignment: Alignment) -> dict[str, float]:
    """The registration floor: the CT scored against itself as the second registration places it."""
    if alignment.again is None:
        return {}
    placed = made.prepared["ct"]
    again = warp(made.scans["ct"], alignment.again, placed.volume.grid)
    scores = score(Case(placed.volume, again, placed.mask), find_protocol(FLOOR_PROTOCOL))
    return {name: value for name, value in scores.values.items() if value is not None}


def _rows(matrix: Affine) -> tuple[Row, Row, Row, Row]:
    first, second, third, last = ((float(x), float(y), float(z), float(shift)) for x, y, z, shift in matrix)
    return first, second, third, last


def _describe(files: SubjectFiles, hashes: dict[str, str], made: PreparedSubject, images: dict[str, Volume], steps: Steps) -> Subject:
    entries = {}
    for name, volume in images.items():
        scan = made.prepared.get(name)
        entries[name] = Image(
            shape=volume.shape,
            affine=_rows(volume.affine),
            statistics=None if scan is None else scan.statistics,
            box=None if scan is None else _box(scan.mask),
            litres=None if scan is None else _litres(scan.mask),
            source=files.files[name].name if name in files.files else "",
            sha256=hashes.get(name, ""),
        )
    return Subject(id=files.id, images=entries, attributes=files.attributes, steps=steps)


def _box(mask: Volume) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """First and last + 1 voxel of the mask along each axis."""
    spans = [np.flatnonzero(mask.array.any(axis=tuple(k for k in range(3) if k != axis))) for axis in range(3)]
    x, y, z = ((int(span[0]), int(span[-1]) + 1) for span in spans)
    return x, y, z


def _litres(mask: Volume) -> float:
    voxel_mm3 = abs(np.linalg.det(mask.affine[:3, :3]))
    return float(np.count_nonzero(mask.array) * voxel_mm3 * 1e-6)


def _finish(dataset: Path, manifest: Manifest, failures: Sequence[str]) -> None:
    """Write what is about all subjects: the table of contents last."""
    inputs = {f"{s.id}/{name}": image.sha256 for s in manifest.subjects for name, image in s.images.items() if image.sha256}
    record = make_record("prepare", inputs=inputs, settings=manifest.preparation.model_dump(mode="json"))
    write_json(dataset / RECORD_NAME, record.model_dump(mode="json"))
    settings = registration_settings(manifest)
    if settings:
        write_json(dataset / ALIGNED_NAME / RECORD_NAME, make_record("prepare", inputs=inputs, settings=settings).model_dump(mode="json"))
    else:
        shutil.rmtree(dataset / ALIGNED_NAME, ignore_errors=True)
    pictures = {subject.id: (dataset / PICTURES_NAME / f"{subject.id}.jpg").read_bytes() for subject in manifest.subjects}
    write_text(dataset / PAGE_NAME, render(compose_quality(dataset.resolve().name, manifest, pictures, failures)))
    write_manifest(dataset, manifest)
