"""Images made from label maps while a network is trained, so that no two steps show it the same head or the same contrast.

After Billot et al., "SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without retraining", Med Image Anal
2023;86:102789: label maps are deformed, each tissue is given a random intensity, and the image is blurred, coarsened, shaded and made
noisy at random. Here the other half of a pair is the CT of the same tissues, a share of the MRs has the contrast of a drawn pulse
sequence, and the heads have what heads in scanners have: bone with more or less marrow in it, lesions, fillings, hair and cushions
(`transmodal.methods.generated_anatomy`). All of it runs on the device that the labels are on.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from transmodal.methods.generated_anatomy import FIBROUS, FILLING, LESION, NUMBERS, SURROUNDINGS, Anatomy, AnatomyRanges, draw_anatomy
from transmodal.methods.random_fields import chance, resize, smooth, smooth_field, uniform
from transmodal.simulation.contrast import MR_PRESETS, MRConfig, mr_signal
from transmodal.simulation.tissues import BONE, Tissue, tissue_table

_AIR = (Tissue.BACKGROUND, Tissue.SINUS_AIR)
# What hardly gives signal at ordinary echo times, whatever the sequence.
_DARK = (Tissue.CORTICAL_BONE, Tissue.TOOTH)
# The tissues of which every head has so much that one of them sets the highest percentile of its MR.
_COMMON = (Tissue.SKIN, Tissue.FAT, Tissue.MUSCLE, Tissue.CSF, Tissue.GREY_MATTER, Tissue.WHITE_MATTER)
# Percentiles inside the head that an MR is scaled by, as `PercentileIntensity` does.
PERCENTILES = (0.5, 99.5)
# Spongy bone without marrow is not as dense as the tables.
_SCLEROTIC = 0.8
_FILLING_HU = 3000.0


class Generation(AnatomyRanges):
    """What is drawn for each image, beside its anatomy.

    Parameters
    ----------
    sequences : float
        Share of the MRs that have the contrast of a pulse sequence; in the others the intensity of each tissue is random.
    inversions : float
        Share of the sequences that begin with an inversion, after which fluid (FLAIR, MP-RAGE) or fat (STIR) may be as dark as bone.
    dark_bone, dark_fluid : float
        Shares of the MRs of random intensities in which dense bone is as dark as in most sequences, and in which fluid is.
    texture, bias, noise, ghost : float
        Largest standard deviation of the signal within a tissue, of the logarithm of the bias field, and of the noise, and largest
        signal of a ghost, all relative to the brightest tissue.
    chemical_shift : int
        Largest displacement of the signal of fat, in marrow too, along one of the axes, in voxels.
    gamma : float
        Largest logarithm, either way, of the power that the scaled image is taken to.
    blur : float
        Largest standard deviation of the point spread, in voxels.
    thickness : float
        Largest thickness of slices across one of the axes of an image, in voxels.
    coarseness : float
        Largest size of the voxels along the other axes, in voxels of the working grid.
    bone_hu, soft_hu : float
        Standard deviation of the HU of a bony and of a soft tissue from head to head.
    density_hu : float
        Standard deviation of the HU of bone from place to place.
    """

    sequences: float = Field(default=0.75, ge=0, le=1)
    inversions: float = Field(default=0.4, ge=0, le=1)
    dark_bone: float = Field(default=0.9, ge=0, le=1)
    dark_fluid: float = Field(default=0.5, ge=0, le=1)
    texture: float = Field(default=0.08, ge=0)
    bias: float = Field(default=0.3, ge=0)
    noise: float = Field(default=0.06, ge=0)
    ghost: float = Field(default=0.06, ge=0)
    chemical_shift: int = Field(default=1, ge=0)
    gamma: float = Field(default=0.4, ge=0)
    blur: float = Field(default=0.8, ge=0)
    thickness: float = Field(default=6.0, ge=1)
    coarseness: float = Field(default=2.0, ge=1)
    bone_hu: float = Field(default=150.0, ge=0)
    soft_hu: float = Field(default=12.0, ge=0)
    density_hu: float = Field(default=120.0, ge=0)


@dataclass(frozen=True)
class Pair:
    """An MR, the CT of the same heads, and what is head in them.

    Parameters
    ----------
    mr : Tensor, shape (b, 1, *s)
        From 0 to 1 between two percentiles of the head.
    ct : Tensor, shape (b, 1, *s)
        In HU.
    mask : Tensor of bool, shape (b, 1, *s)
    """

    mr: Float[Tensor, "b 1 *s"]
    ct: Float[Tensor, "b 1 *s"]
    mask: Bool[Tensor, "b 1 *s"]


def draw_pairs(labels: Float[Tensor, "b 1 *s"], settings: Generation) -> Pair:
    """Heads like those of the label maps, and an MR and a CT of each.

    Parameters
    ----------
    labels : Tensor, shape (b, 1, *s)
        `Tissue` numbers, of slices or volumes.
    settings : Generation
    """
    pairs = [_draw_pair(labels[k : k + 1], settings) for k in range(len(labels))]
    return Pair(*(torch.cat([getattr(pair, name) for pair in pairs]) for name in ("mr", "ct", "mask")))


def _draw_pair(labels: Float[Tensor, "1 1 *s"], settings: Generation) -> Pair:
    anatomy = draw_anatomy(labels, settings)
    return Pair(make_mr(anatomy, settings), make_ct(anatomy, settings), anatomy.mask)


def make_ct(anatomy: Anatomy, settings: Generation) -> Float[Tensor, "1 1 *s"]:
    """The CT of one head, in HU from -1024 on: means drawn for it, bone denser here than there, grains, and a narrow point spread."""
    table, device = tissue_table(), anatomy.labels.device
    hu = torch.zeros(NUMBERS)
    for tissue in Tissue:
        hu[tissue] = table[tissue].hu + _spread_hu(tissue, settings) * torch.randn(())
    hu[LESION], hu[SURROUNDINGS] = uniform(5, 80), table[Tissue.BACKGROUND].hu
    hu[FILLING], hu[FIBROUS] = _FILLING_HU, uniform(40, 90)
    grain = torch.zeros(NUMBERS)
    grain[: len(Tissue)] = torch.tensor([table[tissue].hu_texture for tissue in Tissue])
    grain = grain.to(device)
    image = _with_marrow(hu.to(device), anatomy, _SCLEROTIC)
    noise = smooth(torch.randn_like(image), [1.2] * (image.ndim - 2))
    numbers = anatomy.labels.long()
    image = image + grain[numbers] * noise / noise.std().clamp(min=1e-6)
    image = image + torch.where(anatomy.bone, settings.density_hu * smooth_field(image, 20), 0.0)
    # At 1 mm, that of clinical scanners is narrower than half a voxel; no more, for bone is broader than it is at the foot of its edges.
    return smooth(image, [0.4] * (image.ndim - 2)).clamp(-1024, 3071)


def make_mr(anatomy: Anatomy, settings: Generation) -> Float[Tensor, "1 1 *s"]:
    """The MR of one head, from 0 to 1 between two percentiles, by a contrast and imperfections drawn for it."""
    means = _draw_means(settings).to(anatomy.labels.device)
    image = _with_marrow(means, anatomy, 1.0)
    size, dims = image.shape[2:], image.ndim - 2
    grains = smooth(torch.randn_like(image), [uniform(0.5, 3)] * dims)
    image = image * (1 + uniform(0, settings.texture) * grains / grains.std().clamp(min=1e-6))
    if chance(0.5):
        farthest = settings.chemical_shift
        image = shift_fat(image, anatomy, int(torch.randint(-farthest, farthest + 1, ())), int(torch.randint(2, image.ndim, ())))
    image = torch.where(anatomy.void, 0.02 * image, image)
    steps = _draw_voxels(dims, settings)
    # A voxel is as wide as it is far from the next; its point spread is wider still.
    sigmas = [(uniform(0.2, max(settings.blur, 0.2)) ** 2 + (0.3 * (step - 1)) ** 2) ** 0.5 for step in steps]
    image = resize(smooth(image, sigmas), [max(round(n / step), 2) for n, step in zip(size, steps, strict=True)])
    image = image * torch.exp(uniform(0, settings.bias) * smooth_field(image, max(image.shape[2:])))
    brightest = float(means[list(_COMMON)].max())
    if chance(0.3):
        axis = 2 + int(torch.randint(dims, ()))
        image = image + uniform(0, settings.ghost) * image.roll(int(image.shape[axis] * uniform(0.2, 0.8)), axis)
    noise = brightest * uniform(0, settings.noise)
    image = torch.hypot(image + noise * torch.randn_like(image), noise * torch.randn_like(image))
    return _scaled(resize(image, size), anatomy.mask, brightest) ** float(np.exp(uniform(-settings.gamma, settings.gamma)))


def shift_fat(image: Float[Tensor, "1 1 *s"], anatomy: Anatomy, steps: int, axis: int) -> Float[Tensor, "1 1 *s"]:
    """Move the signal of fat, that in marrow too, by some voxels along an axis, for its protons precess slower than those of water."""
    fat = image * ((anatomy.labels == Tissue.FAT) + (anatomy.labels == Tissue.DIPLOE) * anatomy.marrow)
    return image - fat + fat.roll(steps, axis)


def _draw_voxels(dims: int, settings: Generation) -> list[float]:
    """Sizes of a scan's voxels, relative to the working grid: slices that are thick in half of the images, and coarse ones in a third."""
    coarse = uniform(1, settings.coarseness) if chance(0.3) else 1.0
    steps = [coarse] * dims
    if chance(0.5):
        steps[int(torch.randint(dims, ()))] = max(uniform(1, settings.thickness), coarse)
    return steps


def _draw_means(settings: Generation) -> Float[Tensor, " t"]:
    """The signal of each tissue: of a pulse sequence, or at random."""
    means = torch.rand(NUMBERS)
    means[list(_AIR)] = 0.05 * torch.rand(len(_AIR))
    means[SURROUNDINGS], means[FILLING] = uniform(0, 0.5), 0.0
    if chance(settings.sequences):
        signal = _draw_signal(settings)
        means[: len(Tissue)] = signal / signal.max() * (1 + 0.1 * torch.randn(len(Tissue))).clamp(min=0)
        # Collagen relaxes within a millisecond or so; half of a voxel of it is something else.
        means[FIBROUS] = uniform(0, 0.5) * means[Tissue.MUSCLE]
        return means
    if chance(settings.dark_bone):
        means[list(_DARK)] = 0.15 * torch.rand(len(_DARK))
        means[FIBROUS] = uniform(0, 0.5)
    if chance(settings.dark_fluid):
        means[Tissue.CSF] = uniform(0, 0.25)
    return means


def _draw_signal(settings: Generation) -> Float[Tensor, " t"]:
    """The signal of each tissue in a drawn sequence, after an inversion if there is one: by magnitude, fully relaxed before it."""
    table, config = tissue_table(), _draw_sequence()
    signal = torch.tensor([mr_signal(table[tissue], config) for tissue in Tissue], dtype=torch.float32)
    if not chance(settings.inversions):
        return signal
    t1_ms = torch.tensor([table[tissue].t1_ms[config.field] for tissue in Tissue], dtype=torch.float32)
    # From that of fat, 200 ms, to beyond that of fluid, by equal ratios.
    inversion_ms = 150.0 * 20.0 ** uniform(0, 1)
    return signal * (1 - 2 * torch.exp(-inversion_ms / t1_ms.clamp(min=1))).abs()


def _draw_sequence() -> MRConfig:
    """A sequence around one of the presets, wider than `transmodal.simulation.contrast.draw_mr` draws them."""
    names = list(MR_PRESETS)
    preset = MR_PRESETS[names[int(torch.randint(len(names), ()))]]
    angle = preset.flip_angle_deg * uniform(0.6, 1.4) if preset.sequence == "gradient_echo" else 90.0
    return preset.model_copy(
        update={
            "tr_ms": preset.tr_ms * uniform(0.6, 1.6),
            "te_ms": preset.te_ms * uniform(0.5, 1.5),
            "flip_angle_deg": angle,
            "field": "3T" if chance(0.5) else "1.5T",
        }
    )


def _spread_hu(tissue: Tissue, settings: Generation) -> float:
    if tissue in _AIR:
        return 0.0
    return settings.bone_hu if tissue in BONE else settings.soft_hu


def _with_marrow(values: Float[Tensor, " t"], anatomy: Anatomy, sclerotic: float) -> Float[Tensor, "1 1 *s"]:
    """The value of each voxel's tissue; of spongy bone, as much as it has marrow, and else a share of the value of dense bone."""
    image = values[anatomy.labels.long()]
    dense = sclerotic * values[Tissue.CORTICAL_BONE]
    return torch.where(anatomy.labels == Tissue.DIPLOE, dense + anatomy.marrow * (image - dense), image)


def _scaled(image: Float[Tensor, "1 1 *s"], mask: Bool[Tensor, "1 1 *s"], brightest: float) -> Float[Tensor, "1 1 *s"]:
    """From the percentiles of a head onto 0 to 1; a patch shows some of its head, so that they lie between its own and the brightest."""
    inside = image[mask] if mask.any() else image.flatten()
    every = max(inside.numel() // 50_000, 1)
    low, high = torch.quantile(inside[::every], torch.tensor(PERCENTILES, device=image.device) / 100)
    known = uniform(0, 1)
    low, high = known * low, known * high + (1 - known) * brightest
    return ((image - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
