"""The parameters of a procedural head, and their random draw."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from pydantic import Field

from transmodal.core.config import Config
from transmodal.simulation.shapes import Number

Vector: TypeAlias = tuple[float, float, float]


class HeadConfig(Config):
    """What one head looks like; the defaults are an average adult.

    Parameters
    ----------
    age_years : float
        Drives what `draw_head` derives from it; kept for the record.
    scale : tuple of float
        Size along (x, y, z) relative to the average brain template space, whose brain is larger than most.
    skull_thickness_mm, table_mm : float
        Mean thickness of the vault, and of its inner and outer table; there is diploe where the bone is thicker than the two.
    skull_variation : float
        Standard deviation of the thickness over the vault, relative to its mean.
    suture_mm : float
        Width of open sutures, 0 once they are closed; the anterior fontanelle scales with it.
    scalp_mm, skin_mm : float
        Thickness of the scalp over the vault, and of the skin in it.
    fat : float
        Fullness of the fat of face and neck; 1 is average.
    csf_mm : float
        Depth of the fluid between brain and skull.
    ribbon_mm, fold_depth_mm, fold_wavelength_mm, sulcus_mm : float
        Cortex: its thickness, mean depth of the sulci, twice the distance between them, and their width.
    ventricle_size : float
        Size of the ventricles; 1 is average.
    frontal_sinus, maxillary_sinus, mastoid_air : float
        Sizes of the air spaces; 0 is none.
    face_length, face_width, nose_length, jaw_size, neck_width : float
        Proportions, 1 being average.
    tooth_mm : float
        Height of the crowns; 0 for a toothless jaw.
    warp_mm : float
        Amplitude of the smooth deformation that makes a head asymmetric.
    rotation_deg, shift_mm : tuple of float
        Pose of the head in the scanner: rotation about the x, y and z axes, then shift.
    """

    age_years: float = Field(default=40.0, ge=0, le=100)
    scale: Vector = (0.92, 0.92, 0.92)
    skull_thickness_mm: float = Field(default=6.0, ge=1, le=15)
    table_mm: float = Field(default=1.5, ge=0.5, le=3)
    skull_variation: float = Field(default=0.12, ge=0, le=0.4)
    suture_mm: float = Field(default=0.0, ge=0, le=12)
    scalp_mm: float = Field(default=6.0, ge=2, le=20)
    skin_mm: float = Field(default=1.8, ge=0.5, le=4)
    fat: float = Field(default=1.0, ge=0.2, le=3)
    csf_mm: float = Field(default=2.5, ge=0.5, le=10)
    ribbon_mm: float = Field(default=2.8, ge=1, le=5)
    fold_depth_mm: float = Field(default=15.0, ge=0, le=25)
    fold_wavelength_mm: float = Field(default=19.0, ge=5, le=50)
    sulcus_mm: float = Field(default=1.2, ge=0, le=6)
    ventricle_size: float = Field(default=1.0, ge=0.3, le=2)
    frontal_sinus: float = Field(default=1.0, ge=0, le=1.6)
    maxillary_sinus: float = Field(default=1.0, ge=0, le=1.4)
    mastoid_air: float = Field(default=1.0, ge=0, le=1.3)
    face_length: float = Field(default=1.0, ge=0.5, le=1.3)
    face_width: float = Field(default=1.0, ge=0.8, le=1.2)
    nose_length: float = Field(default=1.0, ge=0.5, le=1.5)
    jaw_size: float = Field(default=1.0, ge=0.8, le=1.2)
    neck_width: float = Field(default=1.0, ge=0.7, le=1.4)
    tooth_mm: float = Field(default=8.5, ge=0, le=12)
    warp_mm: float = Field(default=2.0, ge=0, le=5)
    rotation_deg: Vector = (0.0, 0.0, 0.0)
    shift_mm: Vector = (0.0, 0.0, 0.0)


def draw_head(rng: np.random.Generator, age_years: float | None = None) -> HeadConfig:
    """Draw the parameters of a head.

    Parameters
    ----------
    rng : numpy.random.Generator
    age_years : float, optional
        By default drawn between 18 and 85; a younger age gives a child or an infant (thin skull, open sutures, small face and sinuses).
    """
    age = float(rng.uniform(18, 85)) if age_years is None else age_years
    size = _growth(age, newborn=0.64, half_years=0.9) * rng.normal(0.92, 0.035)
    grown = _growth(age, newborn=0.0, half_years=6.0)
    atrophy = max(0.0, age - 40) / 45
    return HeadConfig(
        age_years=round(age, 2),
        scale=_vector(size * rng.normal(1, 0.03, 3)),
        skull_thickness_mm=_around(rng, 2.0 + 4.4 * grown, 0.17, 1.2, 10),
        table_mm=_around(rng, 0.9 + 0.7 * grown, 0.1, 0.7, 2.2),
        skull_variation=float(rng.uniform(0.05, 0.14)),
        suture_mm=max(0.0, 5.0 * (1 - age / 2)),
        scalp_mm=_around(rng, 3.5 + 2.5 * grown, 0.2, 2.5, 11),
        skin_mm=_around(rng, 1.3 + 0.5 * grown, 0.1, 1, 2.6),
        fat=_around(rng, 1.0, 0.3, 0.4, 2.2),
        csf_mm=_around(rng, 2.2 + 1.8 * atrophy, 0.2, 1.4, 6),
        ribbon_mm=_around(rng, 2.9 - 0.3 * atrophy, 0.06, 2.3, 3.5),
        fold_depth_mm=_around(rng, 15.0, 0.12, 9, 20) * size,
        fold_wavelength_mm=_around(rng, 19.0, 0.08, 15, 24) * size,
        sulcus_mm=_around(rng, 1.0 + 1.2 * atrophy, 0.2, 0.5, 3.5),
        ventricle_size=_around(rng, 0.9 + 0.4 * atrophy, 0.18, 0.5, 1.7),
        frontal_sinus=_around(rng, 1.0, 0.3, 0, 1.5) if age > 7 else 0.0,
        maxillary_sinus=_around(rng, 0.3 + 0.7 * grown, 0.12, 0.2, 1.2),
        mastoid_air=_around(rng, 0.2 + 0.8 * grown, 0.25, 0, 1.25),
        face_length=_around(rng, 0.74 + 0.26 * grown, 0.05, 0.6, 1.15),
        face_width=_around(rng, 0.94 + 0.06 * grown, 0.03, 0.86, 1.1),
        nose_length=_around(rng, 0.75 + 0.25 * grown, 0.12, 0.6, 1.35),
        jaw_size=_around(rng, 0.92 + 0.08 * grown, 0.05, 0.85, 1.15),
        neck_width=_around(rng, 0.8 + 0.2 * grown, 0.09, 0.72, 1.3),
        tooth_mm=0.0 if age < 1 or (age > 60 and rng.random() < 0.2) else _around(rng, 6 + 2.5 * grown, 0.1, 5, 11),
        warp_mm=float(rng.uniform(0.5, 2.8)),
        rotation_deg=_vector(rng.normal(0, (7, 3, 4))),
        shift_mm=_vector(rng.normal(0, 3, 3)),
    )


def _growth(age: float, newborn: float, half_years: float) -> float:
    """Fraction of the adult size: `newborn` at birth, half of the rest after `half_years`, all of it in the end."""
    return 1 - (1 - newborn) * 0.5 ** (age / half_years)


def _around(rng: np.random.Generator, mean: float, spread: float, low: Number, high: Number) -> float:
    return float(np.clip(mean * rng.normal(1, spread), low, high))


def _vector(values: Float[np.ndarray, "3"]) -> Vector:
    x, y, z = values
    return float(x), float(y), float(z)
