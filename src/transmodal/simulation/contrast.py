"""The images that a scanner makes of a label volume: MR by the signal equations, CT in HU."""

from typing import Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from transmodal.core.config import Config
from transmodal.core.errors import ConfigError, DataError
from transmodal.core.volume import Volume
from transmodal.simulation.tissues import FieldStrength, Tissue, TissueProperties, tissue_table

Image = Float[np.ndarray, "x y z"]

HU_RANGE = (-1024, 3071)
# The signal of white matter in a simulated MR, before bias field and noise.
WHITE_MATTER_SIGNAL = 1000.0


class MRConfig(Config):
    """An MR sequence and what is imperfect about its images.

    Parameters
    ----------
    sequence : {"spin_echo", "gradient_echo"}
    tr_ms, te_ms : float
        Repetition and echo time.
    flip_angle_deg : float
        Of the gradient echo; a spin echo is 90-180.
    field : {"1.5T", "3T"}
    noise : float
        Standard deviation of each of the two noise channels, relative to the signal of white matter.
    bias : float
        Standard deviation of the logarithm of the bias field over the grid.
    texture : float
        Standard deviation of the signal within a tissue, relative to its mean.
    tissue_spread : float
        Standard deviation of a tissue's mean between subjects, relative to it.
    blur_mm : float
        Full width at half maximum of the point spread. To it comes the width of the voxels themselves: a voxel holds the mean over its
        extent, so that boundaries are partial volumes on every grid.
    slice_mm : float
        Slice thickness; at or below the voxel size it has no effect.
    slice_axis : {0, 1, 2}
        The array axis across the slices.
    """

    sequence: Literal["spin_echo", "gradient_echo"]
    tr_ms: float = Field(gt=0)
    te_ms: float = Field(ge=0)
    flip_angle_deg: float = Field(default=90.0, gt=0, le=180)
    field: FieldStrength = "1.5T"
    noise: float = Field(default=0.02, ge=0)
    bias: float = Field(default=0.10, ge=0, le=1)
    texture: float = Field(default=0.03, ge=0, le=0.5)
    tissue_spread: float = Field(default=0.04, ge=0, le=0.2)
    blur_mm: float = Field(default=1.2, ge=0)
    slice_mm: float = Field(default=0.0, ge=0)
    slice_axis: Literal[0, 1, 2] = 2


MR_PRESETS: dict[str, MRConfig] = {
    "t1w": MRConfig(sequence="gradient_echo", tr_ms=20, te_ms=4.6, flip_angle_deg=25),
    "t2w": MRConfig(sequence="spin_echo", tr_ms=4000, te_ms=95),
    "pd": MRConfig(sequence="spin_echo", tr_ms=3500, te_ms=15),
    # Short enough an echo for bone to give signal.
    "bone": MRConfig(sequence="gradient_echo", tr_ms=8, te_ms=0.07, flip_angle_deg=8),
}


class CTConfig(Config):
    """What is imperfect about a CT.

    Parameters
    ----------
    noise_hu : float
        Standard deviation of the noise.
    noise_mm : float
        Full width at half maximum of its correlation.
    psf_mm : float
        Full width at half maximum of the point spread, to which comes the width of the voxels.
    texture : float
        Factor on the texture of every tissue in the table; 0 gives uniform tissues.
    texture_mm : float
        Size of the grains of that texture.
    """

    noise_hu: float = Field(default=12.0, ge=0)
    noise_mm: float = Field(default=0.9, ge=0)
    psf_mm: float = Field(default=1.1, ge=0)
    texture: float = Field(default=1.0, ge=0)
    texture_mm: float = Field(default=3.0, ge=0)


def draw_mr(name: str, rng: np.random.Generator) -> MRConfig:
    """Draw a sequence around a preset, as scanners and sites differ.

    Raises
    ------
    ConfigError
        If there is no preset of that name.
    """
    if name not in MR_PRESETS:
        raise ConfigError(f"--contrast {name}: choose one of {', '.join(MR_PRESETS)}")
    preset = MR_PRESETS[name]
    # Scanners differ most in the echo time of their gradient echoes, which decides how bright the diploe is.
    shortest, longest = (0.6, 2.0) if preset.sequence == "gradient_echo" else (0.85, 1.15)
    return preset.model_copy(
        update={
            "tr_ms": preset.tr_ms * float(rng.uniform(0.85, 1.2)),
            "te_ms": preset.te_ms * float(rng.uniform(shortest, longest)),
            "flip_angle_deg": preset.flip_angle_deg * float(rng.uniform(0.9, 1.1)) if preset.sequence == "gradient_echo" else 90.0,
            "noise": float(rng.uniform(0.008, 0.04)),
            "bias": float(rng.uniform(0.03, 0.18)),
            "texture": float(rng.uniform(0.01, 0.04)),
            "blur_mm": float(rng.uniform(0.8, 1.6)),
        }
    )


def draw_ct(rng: np.random.Generator) -> CTConfig:
    """Draw noise and sharpness of a CT, as scanners and kernels differ."""
    return CTConfig(
        noise_hu=float(rng.uniform(5, 20)),
        noise_mm=float(rng.uniform(0.7, 1.2)),
        psf_mm=float(rng.uniform(0.8, 1.3)),
        texture=float(rng.uniform(0.7, 1.2)),
        texture_mm=float(rng.uniform(2.2, 3.6)),
    )


def mr_signal(tissue: TissueProperties, config: MRConfig) -> float:
    """Return the noiseless signal of a tissue.

    Spin echo: PD (1 - exp(-TR/T1)) exp(-TE/T2). Spoiled gradient echo: PD sin a (1 - E1) / (1 - E1 cos a) exp(-TE/T2*), with
    E1 = exp(-TR/T1) (Bernstein, King & Zhou, Handbook of MRI Pulse Sequences, 2004, chapter 14).
    """
    recovery = np.exp(-config.tr_ms / tissue.t1_ms[config.field])
    if config.sequence == "spin_echo":
        return float(tissue.proton_density * (1 - recovery) * np.exp(-config.te_ms / tissue.t2_ms[config.field]))
    angle = np.deg2rad(config.flip_angle_deg)
    steady = np.sin(angle) * (1 - recovery) / (1 - recovery * np.cos(angle))
    return float(tissue.proton_density * steady * np.exp(-config.te_ms / tissue.t2_star_ms[config.field]))


def simulate_mr(labels: Volume, config: MRConfig, rng: np.random.Generator) -> Volume:
    """Simulate the MR of a label volume.

    Parameters
    ----------
    labels : Volume
        `Tissue` numbers.
    config : MRConfig
        One of `MR_PRESETS`, or another.
    rng : numpy.random.Generator

    Returns
    -------
    Volume
        float32, white matter at about `WHITE_MATTER_SIGNAL`; the noise is Rician.

    Raises
    ------
    DataError
        If the labels hold a number that is no tissue.
    """
    table = tissue_table()
    reference = mr_signal(table[Tissue.WHITE_MATTER], config)
    means = np.array([mr_signal(table[tissue], config) / reference for tissue in Tissue])
    means *= np.maximum(rng.normal(1, config.tissue_spread, len(means)), 0)
    image = _look_up(labels, means)
    image *= 1 + np.float32(config.texture) * _grains(labels, 2.5, rng)
    voxel = np.array(labels.spacing)
    voxel[config.slice_axis] = max(voxel[config.slice_axis], config.slice_mm)
    image = _blur(image, labels.spacing, np.hypot(config.blur_mm, voxel))
    image *= _bias_field(labels.shape, config.bias, rng)
    return labels.with_array(_rician(image, config.noise, rng) * np.float32(WHITE_MATTER_SIGNAL), "mr")


def simulate_ct(labels: Volume, config: CTConfig, rng: np.random.Generator) -> Volume:
    """Simulate the CT of a label volume.

    Parameters
    ----------
    labels : Volume
        `Tissue` numbers.
    config : CTConfig
    rng : numpy.random.Generator

    Returns
    -------
    Volume
        int16, HU in `HU_RANGE`.

    Raises
    ------
    DataError
        If the labels hold a number that is no tissue.
    """
    table = tissue_table()
    image = _look_up(labels, np.array([table[tissue].hu for tissue in Tissue]))
    if config.texture > 0:
        spread = _look_up(labels, np.array([table[tissue].hu_texture for tissue in Tissue]))
        image += spread * _grains(labels, config.texture_mm, rng) * np.float32(config.texture)
    image = _blur(image, labels.spacing, np.hypot(config.psf_mm, labels.spacing))
    if config.noise_hu > 0:
        image += np.float32(config.noise_hu) * _grains(labels, config.noise_mm, rng)
    return labels.with_array(np.rint(np.clip(image, *HU_RANGE)).astype(np.int16), "ct")


def _look_up(labels: Volume, values: np.ndarray) -> Image:
    """Value of each voxel's tissue."""
    numbers = np.asarray(labels.array)
    if numbers.min() < 0 or numbers.max() >= len(values):
        raise DataError(
            f"the labels run from {numbers.min()} to {numbers.max()}; tissues are 0 to {len(values) - 1}: map the classes of another "
            "label convention first (--mapping)"
        )
    return values.astype(np.float32)[numbers]


def _grains(labels: Volume, size_mm: float, rng: np.random.Generator) -> Image:
    """Noise of zero mean and unit variance, correlated over a full width at half maximum of `size_mm`."""
    noise = rng.standard_normal(labels.shape, dtype=np.float32)
    noise = _blur(noise, labels.spacing, np.full(3, size_mm))
    return noise / noise.std()


def _blur(image: Image, spacing: tuple[float, float, float], widths_mm: np.ndarray) -> Image:
    """Gaussian of a full width at half maximum along each axis."""
    from scipy import ndimage

    sigma = widths_mm / np.sqrt(8 * np.log(2)) / spacing
    return ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0)


def _bias_field(shape: tuple[int, int, int], amplitude: float, rng: np.random.Generator) -> Image:
    """A smooth positive field: the exponential of random products of Legendre polynomials of total order up to 4."""
    order = 4
    degrees = np.indices((order + 1,) * 3).sum(axis=0)
    coefficients = rng.standard_normal(degrees.shape) * ((degrees > 0) & (degrees <= order)) / (1 + degrees)
    bases = [np.polynomial.legendre.legvander(np.linspace(-1, 1, n), order).astype(np.float32) for n in shape]
    field = np.einsum("abc,xa,yb,zc->xyz", coefficients.astype(np.float32), *bases, optimize=True)
    return np.exp(np.float32(amplitude) * (field - field.mean()) / max(float(field.std()), 1e-6))


def _rician(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Magnitude of a signal with normal noise on its real and imaginary parts (Gudbjartsson & Patz, Magn Reson Med 1995;34:910)."""
    if sigma == 0:
        return image
    real = image + np.float32(sigma) * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = np.float32(sigma) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.hypot(real, imaginary)
