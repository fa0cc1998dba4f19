"""Heads that the tests make: small, quick, and known."""

from pathlib import Path

import numpy as np

from transmodal.core.volume import Volume
from transmodal.imaging.scan import write_scan
from transmodal.simulation.tissues import Tissue


def phantom(seed: int, shape: tuple[int, int, int] = (40, 48, 44), spacing_mm: float = 4.5) -> dict[str, Volume]:
    """A head of ellipsoidal shells whose CT is known: scalp (40 HU), skull (1000 HU, dark in the MR), brain (30 HU), air around.

    The label map calls them muscle, cortical bone and grey matter.
    """
    rng = np.random.default_rng(seed)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = -spacing_mm * (np.array(shape) - 1) / 2
    points = [spacing_mm * (np.arange(n) - (n - 1) / 2) for n in shape]
    radii = np.array([72.0, 90.0, 82.0]) * rng.uniform(0.9, 1.05, 3)
    x, y, z = np.meshgrid(*points, indexing="ij")
    radius = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2)
    mr = np.select([radius < 0.75, radius < 0.88, radius < 1], [100.0, 12.0, 140.0], 0.0) + np.abs(rng.normal(0, 2, shape))
    ct = np.select([radius < 0.75, radius < 0.88, radius < 1], [30, 1000, 40], -1000)
    labels = np.select(
        [radius < 0.75, radius < 0.88, radius < 1], [Tissue.GREY_MATTER, Tissue.CORTICAL_BONE, Tissue.MUSCLE], Tissue.BACKGROUND
    )
    return {
        "mr": Volume(mr.astype(np.float32), affine, "mr"),
        "ct": Volume(ct.astype(np.int16), affine, "ct"),
        "mask": Volume(radius < 1, affine, "mask"),
        "brain": Volume(radius < 0.75, affine, "mask"),
        "labels": Volume(labels.astype(np.uint8), affine, "labels"),
    }


def write_subject(folder: Path, volumes: dict[str, Volume]) -> None:
    """Write scans as a subject folder in SynthRAD layout."""
    for name, volume in volumes.items():
        write_scan(volume, folder / f"{name}.nii.gz")
