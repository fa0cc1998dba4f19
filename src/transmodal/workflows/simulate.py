"""Simulate paired MR and CT heads with label maps and masks, in SynthRAD layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from transmodal.core.config import Config, validate
from transmodal.core.errors import ConfigError, FileError
from transmodal.core.files import folder_lock, read_json, sha256, write_json
from transmodal.core.progress import track
from transmodal.core.record import RECORD_NAME, make_record, require_replaceable
from transmodal.core.volume import Volume
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.scan import read_scan, write_scan
from transmodal.simulation.contrast import draw_ct, draw_mr, simulate_ct, simulate_mr
from transmodal.simulation.head import head_grid, simulate_anatomy
from transmodal.simulation.labels import LabelMapping, brain_mask, head_mask, map_labels, read_mapping
from transmodal.simulation.misalignment import draw_transform, move
from transmodal.simulation.parameters import draw_head
from transmodal.simulation.tissues import Tissue

SUBJECT_NAME = "subject.json"
_AIR_HU = -1000.0
# How much the subjects that are made of one label map differ in size and shape.
_SCALE_SPREAD, _WARP_MM = 0.05, 3.0

Voxels = Annotated[int, Field(ge=8, le=2048)]


class SimulationConfig(Config):
    """All that the images of a subject depend on, but for its number; see `simulate` for the meanings."""

    seed: int = Field(ge=0)
    shape: tuple[Voxels, Voxels, Voxels]
    spacing_mm: float | None = Field(gt=0)
    age_years: float | None = Field(ge=0, le=100)
    contrast: str
    misalign_mm: float = Field(ge=0, le=100)
    misalign_deg: float = Field(ge=0, le=180)
    misalign_warp_mm: float = Field(ge=0, le=20)
    labels_sha256: str | None
    mapping: LabelMapping | None


def simulate(
    out: Path,
    *,
    subjects: int = 8,
    seed: int = 0,
    shape: tuple[int, int, int] = (192, 224, 192),
    spacing_mm: float | None = None,
    age_years: float | None = None,
    contrast: str = "t1w",
    misalign_mm: float = 0.0,
    misalign_deg: float = 0.0,
    misalign_warp_mm: float = 0.0,
    labels: Path | None = None,
    mapping: str | Path | None = None,
    prefix: str = "sim",
) -> list[str]:
    """Write ``OUT/Task1/brain/<id>/{mr,ct,mask,brain,labels}.nii.gz`` and ``subject.json`` for each subject, and a record at OUT.

    A subject depends on the settings and its own number only, not on how many there are. Those that are finished with the same
    settings are kept.

    Parameters
    ----------
    out : Path
    subjects : int
        How many.
    seed : int
    shape : tuple of int
        Voxels to the right, the front and the top; of procedural heads only.
    spacing_mm : float, optional
        Voxel size; by default the one with which the shape just holds the head, or that of the label map.
    age_years : float, optional
        Age of every procedural head; by default adults of 18 to 85.
    contrast : str
        A name in `transmodal.simulation.contrast.MR_PRESETS`.
    misalign_mm, misalign_deg, misalign_warp_mm : float
        Shift, rotation, and standard deviation of the smooth deformation of the CT against the MR; masks and labels are the MR's.
    labels : Path, optional
        A label map to make the subjects of instead: the first as it is, every other one deformed.
    mapping : str or Path, optional
        What its classes are: see `transmodal.simulation.labels.read_mapping`.
    prefix : str
        What the ids of the subjects begin with.

    Returns
    -------
    list of str
        The ids of the subjects.

    Raises
    ------
    ConfigError
        If a setting has an impossible value, or only one of `labels` and `mapping` is given.
    DataError
        If the label map holds a class that the mapping does not list.
    """
    if subjects < 1:
        raise ConfigError(f"--subjects {subjects}: at least one")
    if (labels is None) != (mapping is None):
        raise ConfigError("--labels and --mapping belong together: the label map, and what its classes are")
    draw_mr(contrast, np.random.default_rng(0))  # an unknown name fails here, before any work
    out = Path(out)
    values = {
        "seed": seed,
        "shape": shape,
        "spacing_mm": spacing_mm,
        "age_years": age_years,
        "contrast": contrast,
        "misalign_mm": misalign_mm,
        "misalign_deg": misalign_deg,
        "misalign_warp_mm": misalign_warp_mm,
        "labels_sha256": None,
        "mapping": None,
    }
    template = None
    if labels is not None and mapping is not None:
        template = read_scan(labels, "labels")
        values |= {"labels_sha256": sha256(labels), "mapping": read_mapping(mapping)}
    config = validate(SimulationConfig, values, "simulate")
    if template is not None and config.mapping is not None:
        template = _prepare_template(template, config.mapping, config.spacing_mm)
    if not prefix.isidentifier():
        raise ConfigError(f"--prefix {prefix}: letters, digits and underscores, the first no digit")
    folders = {name: out / "Task1" / "brain" / name for name in (f"{prefix}{number:04d}" for number in range(1, subjects + 1))}
    _require_own(out, folders)
    with folder_lock(out):
        inputs = {Path(labels).name: config.labels_sha256} if labels and config.labels_sha256 else {}
        settings = {"subjects": subjects} | config.model_dump(mode="json")
        # First, so that what is there after an interruption is known to be ours.
        write_json(out / RECORD_NAME, make_record("simulate", seed, inputs, settings).model_dump(mode="json"))
        for number, folder in enumerate(track(folders.values(), "simulating", total=len(folders))):
            _simulate_subject(folder, number, config, template)
    return list(folders)


def _require_own(out: Path, folders: Mapping[str, Path]) -> None:
    """Refuse to write heads over those of others."""
    require_replaceable(out / RECORD_NAME, "simulate")
    strangers = [name for name, folder in folders.items() if folder.exists() and not (out / RECORD_NAME).exists()]
    if strangers:
        raise FileError(f"{out}: holds {', '.join(strangers)}, which simulate did not write; give a new folder, or another --prefix")


def _prepare_template(labels: Volume, mapping: LabelMapping, spacing_mm: float | None) -> Volume:
    if spacing_mm is not None:
        labels = resample(labels, isotropic_grid(labels.grid, spacing_mm), order=0)
    return map_labels(labels, mapping)


def _simulate_subject(folder: Path, number: int, config: SimulationConfig, template: Volume | None) -> None:
    """Make one subject, unless it is there; its ``subject.json`` is written last and so vouches for the images."""
    settings = config.model_dump(mode="json")
    there = (folder / SUBJECT_NAME).is_file() and (folder / "brain.nii.gz").is_file()  # which earlier versions did not write
    if there and read_json(folder / SUBJECT_NAME).get("settings") == settings:
        return
    (folder / SUBJECT_NAME).unlink(missing_ok=True)
    anatomy_rng, mr_rng, ct_rng, pose_rng = (np.random.default_rng(s) for s in np.random.SeedSequence([config.seed, number]).spawn(4))
    labels, attributes, anatomy = _procedural(config, anatomy_rng) if template is None else _deformed(template, number, anatomy_rng)
    mr_config, ct_config = draw_mr(config.contrast, mr_rng), draw_ct(ct_rng)
    transform = draw_transform(
        pose_rng,
        labels.grid,
        translation_mm=config.misalign_mm,
        rotation_deg=config.misalign_deg,
        warp_mm=config.misalign_warp_mm,
    )
    ct = simulate_ct(labels, ct_config, ct_rng)
    if config.misalign_mm or config.misalign_deg or config.misalign_warp_mm:
        ct = move(ct, transform, fill=_AIR_HU)
    write_scan(labels, folder / "labels.nii.gz")
    write_scan(head_mask(labels), folder / "mask.nii.gz")
    write_scan(brain_mask(labels), folder / "brain.nii.gz")
    write_scan(simulate_mr(labels, mr_config, mr_rng), folder / "mr.nii.gz")
    write_scan(ct, folder / "ct.nii.gz")
    description = {
        "attributes": attributes,
        "anatomy": anatomy,
        "mr": mr_config.model_dump(mode="json"),
        "ct": ct_config.model_dump(mode="json"),
        "mr_to_ct": transform.model_dump(mode="json"),
        "settings": settings,
    }
    write_json(folder / SUBJECT_NAME, description)


def _procedural(config: SimulationConfig, rng: np.random.Generator) -> tuple[Volume, dict[str, Any], dict[str, Any]]:
    """Draw and compute a head; also its attributes, and what would compute it again."""
    head = draw_head(rng, config.age_years)
    seed = int(rng.integers(2**31))
    labels = simulate_anatomy(head, head_grid(config.shape, head, config.spacing_mm), seed)
    return labels, {"age_years": head.age_years}, {"head": head.model_dump(mode="json"), "seed": seed}


def _deformed(template: Volume, number: int, rng: np.random.Generator) -> tuple[Volume, dict[str, Any], dict[str, Any]]:
    """Deform a label map at random, except for the first subject."""
    if number == 0:
        return template, {}, {"deformation": None}
    deformation = draw_transform(rng, template.grid, rotation_deg=5.0, scale_spread=_SCALE_SPREAD, warp_mm=_WARP_MM)
    return move(template, deformation, fill=float(Tissue.BACKGROUND)), {}, {"deformation": deformation.model_dump(mode="json")}
