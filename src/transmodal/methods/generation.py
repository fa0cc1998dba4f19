"""Images made from label maps while a network is trained, so that no two steps show it the same head or the same contrast.

After Billot et al., "SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without retraining", Med Image Anal
2023;86:102789: label maps are deformed, each tissue is given a random intensity, and the image is blurred, coarsened, shaded and made
noisy at random. Here the other half of a pair is the CT of the same tissues, and a share of the MRs has the contrast of a drawn pulse
sequence. All of it runs on the device that the labels are on.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from transmodal.core.config import Config
from transmodal.simulation.contrast import MR_PRESETS, MRConfig, mr_signal
from transmodal.simulation.tissues import BONE, Tissue, tissue_table

_AIR = (Tissue.BACKGROUND, Tissue.SINUS_AIR)
# What hardly gives signal at ordinary echo times, whatever the sequence.
_DARK = (Tissue.CORTICAL_BONE, Tissue.TOOTH)
# Percentiles inside the head that an MR is scaled by, as `PercentileIntensity` does.
_LOW, _HIGH = 0.005, 0.995


class Generation(Config):
    """What is drawn for each image.

    Parameters
    ----------
    deformation : float
        Standard deviation of a smooth displacement, in voxels.
    deformation_grid : int
        Distance between its nodes, in voxels.
    sequences : float
        Share of the MRs that have the contrast of a pulse sequence; in the others the intensity of each tissue is random.
    dark_bone : float
        Share of the latter in which dense bone is as dark as in most sequences.
    texture, bias, noise : float
        Largest standard deviation of the signal within a tissue, of the logarithm of the bias field, and of the noise, all relative to the
        brightest tissue.
    blur : float
        Largest standard deviation of the point spread, in voxels.
    thickness : float
        Largest thickness of slices across one of the axes of an image, in voxels.
    bone_hu, soft_hu : float
        Standard deviation of the HU of a bony and of a soft tissue from head to head.
    """

    deformation: float = Field(default=4.0, ge=0)
    deformation_grid: int = Field(default=32, ge=2)
    sequences: float = Field(default=0.5, ge=0, le=1)
    dark_bone: float = Field(default=0.8, ge=0, le=1)
    texture: float = Field(default=0.08, ge=0)
    bias: float = Field(default=0.3, ge=0)
    noise: float = Field(default=0.06, ge=0)
    blur: float = Field(default=1.0, ge=0)
    thickness: float = Field(default=5.0, ge=1)
    bone_hu: float = Field(default=200.0, ge=0)
    soft_hu: float = Field(default=12.0, ge=0)


def deform(labels: Float[Tensor, "b 1 *s"], settings: Generation) -> Float[Tensor, "b 1 *s"]:
    """Displace the labels of each sample smoothly; every voxel takes the nearest label, and background comes in from outside."""
    size, dims = labels.shape[2:], labels.ndim - 2
    if settings.deformation == 0:
        return labels
    nodes = [max(n // settings.deformation_grid, 1) + 3 for n in size]
    coarse = settings.deformation * torch.randn(len(labels), dims, *nodes, device=labels.device)
    moved = F.interpolate(coarse, size=size, mode="bicubic" if dims == 2 else "trilinear", align_corners=True)
    axes = [torch.arange(n, device=labels.device, dtype=torch.float32) for n in size]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None] + moved
    scale = torch.tensor([2 / max(n - 1, 1) for n in size], device=labels.device).view(1, dims, *[1] * dims)
    # Of grids that are sampled, the last axis comes first.
    grid = (places * scale - 1).flip(1).movedim(1, -1)
    return F.grid_sample(labels, grid, mode="nearest", padding_mode="zeros", align_corners=True)


def make_ct(labels: Float[Tensor, "b 1 *s"], settings: Generation) -> Float[Tensor, "b 1 *s"]:
    """The CT of tissues, in HU from -1024 on: means drawn for each sample, grains within a tissue, and the point spread of half a voxel."""
    table = tissue_table()
    hu = torch.tensor([table[tissue].hu for tissue in Tissue], device=labels.device)
    spread = torch.tensor([_spread_hu(tissue, settings) for tissue in Tissue], device=labels.device)
    grain = torch.tensor([table[tissue].hu_texture for tissue in Tissue], device=labels.device)
    numbers = labels.long()
    means = hu + spread * torch.randn(len(labels), len(Tissue), device=labels.device)
    noise = _smooth(torch.randn_like(labels), [1.2] * (labels.ndim - 2))
    image = _look_up(means, numbers) + grain[numbers] * noise / noise.std().clamp(min=1e-6)
    return _smooth(image, [0.5] * (labels.ndim - 2)).clamp(-1024, 3071)


def make_mr(labels: Float[Tensor, "b 1 *s"], mask: Bool[Tensor, "b 1 *s"], settings: Generation) -> Float[Tensor, "b 1 *s"]:
    """An MR of tissues, from 0 to 1 between two percentiles inside the mask, by a contrast and imperfections drawn for each sample."""
    return torch.cat([_make_one(labels[k : k + 1], mask[k : k + 1], settings) for k in range(len(labels))])


def _make_one(labels: Float[Tensor, "1 1 *s"], mask: Bool[Tensor, "1 1 *s"], settings: Generation) -> Float[Tensor, "1 1 *s"]:
    dims = labels.ndim - 2
    means = _draw_means(settings).to(labels.device)
    image = _look_up(means[None], labels.long())
    grains = _smooth(torch.randn_like(image), [float(_uniform(0.5, 3))] * dims)
    image = image * (1 + _uniform(0, settings.texture) * grains / grains.std().clamp(min=1e-6))
    sigmas = [float(_uniform(0.2, max(settings.blur, 0.2))) for _ in range(dims)]
    thick = int(torch.randint(dims, ()))
    thickness = float(_uniform(1, settings.thickness)) if torch.rand(()) < 0.5 else 1.0
    sigmas[thick] = float(np.hypot(sigmas[thick], 0.3 * (thickness - 1)))
    image = _coarsen(_smooth(image, sigmas), thick, thickness)
    image = image * torch.exp(_uniform(0, settings.bias) * _field(image))
    noise = _uniform(0, settings.noise) * image.max()
    image = torch.hypot(image + noise * torch.randn_like(image), noise * torch.randn_like(image))
    return _scaled(image, mask)


def _draw_means(settings: Generation) -> Float[Tensor, " t"]:
    """The signal of each tissue: of a pulse sequence, or at random."""
    if torch.rand(()) < settings.sequences:
        table, config = tissue_table(), _draw_sequence()
        means = torch.tensor([mr_signal(table[tissue], config) for tissue in Tissue], dtype=torch.float32)
        return means / means.max() * (1 + 0.1 * torch.randn(len(Tissue))).clamp(min=0)
    means = 0.1 + 0.9 * torch.rand(len(Tissue))
    means[list(_AIR)] = 0.05 * torch.rand(len(_AIR))
    if torch.rand(()) < settings.dark_bone:
        means[list(_DARK)] = 0.15 * torch.rand(len(_DARK))
    return means


def _draw_sequence() -> MRConfig:
    """A sequence around one of the presets, wider than `transmodal.simulation.contrast.draw_mr` draws them."""
    names = list(MR_PRESETS)
    preset = MR_PRESETS[names[int(torch.randint(len(names), ()))]]
    angle = preset.flip_angle_deg * float(_uniform(0.6, 1.4)) if preset.sequence == "gradient_echo" else 90.0
    return preset.model_copy(
        update={
            "tr_ms": preset.tr_ms * float(_uniform(0.6, 1.6)),
            "te_ms": preset.te_ms * float(_uniform(0.5, 1.5)),
            "flip_angle_deg": angle,
            "field": "3T" if torch.rand(()) < 0.5 else "1.5T",
        }
    )


def _spread_hu(tissue: Tissue, settings: Generation) -> float:
    if tissue in _AIR:
        return 0.0
    return settings.bone_hu if tissue in BONE else settings.soft_hu


def _look_up(values: Float[Tensor, "b t"], numbers: Tensor) -> Float[Tensor, "b 1 *s"]:
    return torch.stack([value[number] for value, number in zip(values, numbers, strict=True)])


def _uniform(low: float, high: float) -> Float[Tensor, ""]:
    return low + (high - low) * torch.rand(())


def _smooth(image: Float[Tensor, "b 1 *s"], sigmas: Sequence[float]) -> Float[Tensor, "b 1 *s"]:
    """A Gaussian along each axis, by voxels; beyond the border the image goes on as it is there."""
    dims = image.ndim - 2
    convolve = F.conv2d if dims == 2 else F.conv3d
    for axis, sigma in enumerate(sigmas):
        radius = max(int(3 * sigma + 0.5), 1)
        steps = torch.arange(-radius, radius + 1, device=image.device, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (steps / max(sigma, 1e-3)) ** 2)
        shape = [1, 1, *(len(steps) if k == axis else 1 for k in range(dims))]
        padding = [radius if k // 2 == dims - 1 - axis else 0 for k in range(2 * dims)]
        image = convolve(F.pad(image, padding, mode="replicate"), (kernel / kernel.sum()).view(shape))
    return image


def _coarsen(image: Float[Tensor, "1 1 *s"], axis: int, thickness: float) -> Float[Tensor, "1 1 *s"]:
    """Sample every so many voxels along an axis, and interpolate linearly between."""
    if thickness <= 1:
        return image
    size = list(image.shape[2:])
    fewer = [max(round(n / thickness), 2) if k == axis else n for k, n in enumerate(size)]
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(F.interpolate(image, size=fewer, mode=mode, align_corners=False), size=size, mode=mode, align_corners=False)


def _field(image: Float[Tensor, "1 1 *s"]) -> Float[Tensor, "1 1 *s"]:
    """A smooth random field of unit variance at its nodes."""
    dims = image.ndim - 2
    nodes = torch.randn(1, 1, *[4] * dims, device=image.device)
    return F.interpolate(nodes, size=image.shape[2:], mode="bicubic" if dims == 2 else "trilinear", align_corners=True)


def _scaled(image: Float[Tensor, "1 1 *s"], mask: Bool[Tensor, "1 1 *s"]) -> Float[Tensor, "1 1 *s"]:
    inside = image[mask] if mask.any() else image.flatten()
    low, high = torch.quantile(inside, torch.tensor([_LOW, _HIGH], device=image.device))
    return ((image - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
