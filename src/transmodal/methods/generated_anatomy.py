"""Heads that are like those of label maps, and yet others: their shape, their bone, what is in them and what lies around them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from transmodal.core.config import Config
from transmodal.methods.random_fields import chance, eroded, grown, highest_around, share_around, smooth_field, surroundings, uniform
from transmodal.simulation.tissues import BRAIN, Tissue

# What is no tissue, numbered after them.
LESION, SURROUNDINGS, FILLING, FIBROUS = range(len(Tissue), len(Tissue) + 4)
NUMBERS = len(Tissue) + 4
_SKULL = (Tissue.CORTICAL_BONE, Tissue.DIPLOE)
_BESIDE_SKULL = (Tissue.SKIN, Tissue.FAT, Tissue.MUSCLE, Tissue.MUCOSA, Tissue.CSF)

Labels = Float[Tensor, "1 1 *s"]


class AnatomyRanges(Config):
    """How far heads may differ from the label maps that they are made of.

    Parameters
    ----------
    deformation, wrinkles : float
        Standard deviation of two smooth displacements, in voxels: of what is far apart, and of what is close together, such as the two
        sides of the skull.
    deformation_grid, wrinkles_grid : int
        Largest distance between their nodes, in voxels; see `transmodal.methods.random_fields.smooth_field`.
    air_cells : float
        Share of the heads with air in what is thick of the skull: the sphenoid bone, the mastoids. Label maps that have no sinuses of
        their own would teach that what is dark there is bone.
    thickness_change, lining, soft_change : float
        Share of the heads whose skull is a voxel thicker or thinner in places, of those whose skull has a lining that is seen, dura or
        pericranium, and of those in which fat and muscle are mixed anew.
    wide_fluid, strands : float
        Share of the heads whose grooves and ventricles are wider, as in old age, and of those with vessels, folds of dura, and tendons
        that are seen in the fluid and in the muscles.
    lesions, fluid, fillings, surroundings, cuts : float
        Share of the heads with lesions in the brain, with fluid in their sinuses, with metal in their teeth (if they have any), with hair,
        cushions, headphones or electrodes around them, and with a part beyond the field of view or taken away.
    """

    deformation: float = Field(default=3.0, ge=0)
    deformation_grid: int = Field(default=40, ge=2)
    wrinkles: float = Field(default=0.7, ge=0)
    wrinkles_grid: int = Field(default=12, ge=2)
    air_cells: float = Field(default=0.7, ge=0, le=1)
    thickness_change: float = Field(default=0.6, ge=0, le=1)
    lining: float = Field(default=0.45, ge=0, le=1)
    soft_change: float = Field(default=0.5, ge=0, le=1)
    wide_fluid: float = Field(default=0.3, ge=0, le=1)
    strands: float = Field(default=0.5, ge=0, le=1)
    lesions: float = Field(default=0.3, ge=0, le=1)
    fluid: float = Field(default=0.15, ge=0, le=1)
    fillings: float = Field(default=0.3, ge=0, le=1)
    surroundings: float = Field(default=0.3, ge=0, le=1)
    cuts: float = Field(default=0.2, ge=0, le=1)


@dataclass(frozen=True)
class Anatomy:
    """One head, as both scanners see it.

    Parameters
    ----------
    labels : Tensor, shape (1, 1, *s)
        `Tissue` numbers, `LESION`, `SURROUNDINGS`, `FILLING` and `FIBROUS`.
    marrow : Tensor, shape (1, 1, *s)
        Share of marrow in spongy bone, from 0 to 1.
    void : Tensor of bool, shape (1, 1, *s)
        Where metal leaves no signal.
    """

    labels: Labels
    marrow: Float[Tensor, "1 1 *s"]
    void: Bool[Tensor, "1 1 *s"]

    @property
    def mask(self) -> Bool[Tensor, "1 1 *s"]:
        """The head, without what lies around it."""
        return (self.labels > 0) & (self.labels != SURROUNDINGS)

    @property
    def bone(self) -> Bool[Tensor, "1 1 *s"]:
        """Bone of the skull, dense or spongy."""
        return is_any(self.labels, _SKULL)


def draw_anatomy(labels: Labels, ranges: AnatomyRanges) -> Anatomy:
    """A head like that of a label map.

    Parameters
    ----------
    labels : Tensor, shape (1, 1, *s)
        `Tissue` numbers, of a slice or a volume.
    ranges : AnatomyRanges
    """
    labels = deform(labels, ranges)
    changes: list[tuple[float, Callable[[Labels], Labels]]] = [
        (ranges.air_cells, hollow_skull),
        (ranges.thickness_change, change_thickness),
        (ranges.lining, line_skull),
        (ranges.soft_change, mix_soft_tissue),
        (ranges.wide_fluid, widen_fluid),
        (ranges.strands, thread_strands),
        (ranges.fluid, lambda head: _replace(head, (Tissue.SINUS_AIR,), Tissue.MUCOSA, 30, uniform(-0.5, 1.0))),
        (ranges.lesions, lambda head: _replace(head, BRAIN, LESION, uniform(12, 30), uniform(1.0, 2.0))),
        (ranges.surroundings, surround),
        (ranges.cuts, cut),
    ]
    for probability, change in changes:
        if chance(probability):
            labels = change(labels)
    # From heads whose spongy bone is all marrow to those that have none.
    marrow = torch.sigmoid(uniform(1, 4) * (smooth_field(labels, 24) + 1.2 * torch.randn(()) + 0.5))
    void = torch.zeros_like(labels, dtype=torch.bool)
    if chance(ranges.fillings):
        labels, void = fill_teeth(labels)
    return Anatomy(labels, marrow, void)


def is_any(labels: Labels, numbers: tuple[int, ...]) -> Bool[Tensor, "1 1 *s"]:
    """Where the labels are one of some numbers."""
    chosen = torch.zeros(NUMBERS, dtype=torch.bool, device=labels.device)
    chosen[list(numbers)] = True
    return chosen[labels.long()]


def deform(labels: Labels, ranges: AnatomyRanges) -> Labels:
    """Displace labels smoothly; every voxel takes the nearest label, and background comes in from outside."""
    size, dims = labels.shape[2:], labels.ndim - 2
    if ranges.deformation == ranges.wrinkles == 0:
        return labels
    moved = ranges.deformation * smooth_field(labels, ranges.deformation_grid, dims)
    moved = moved + ranges.wrinkles * smooth_field(labels, ranges.wrinkles_grid, dims)
    axes = [torch.arange(n, device=labels.device, dtype=torch.float32) for n in size]
    places = torch.meshgrid(*axes, indexing="ij")
    # Of grids that are sampled, the last axis comes first.
    grid = torch.stack([(places[k] + moved[:, k]) * (2 / max(size[k] - 1, 1)) - 1 for k in reversed(range(dims))], dim=-1)
    return F.grid_sample(labels, grid, mode="nearest", padding_mode="zeros", align_corners=True)


def hollow_skull(labels: Labels) -> Labels:
    """Put air into what is thick of the skull and away from the brain, in one piece or in cells; between it and marrow is dense bone."""
    skull = is_any(labels, _SKULL)
    # A cube of 7 voxels fits in, and little of the one of 25 around it is brain or fluid: where the vault is as thick, more is.
    thick = grown(eroded(skull, 3), 2) & skull
    away = share_around(is_any(labels, (*BRAIN, Tissue.CSF)), 12) < uniform(0.05, 0.2)
    air = thick & away & (smooth_field(labels, 24) > uniform(-2.0, 0.5))
    if chance(0.5):
        air = air & (smooth_field(labels, uniform(5, 10)).abs() > uniform(0.1, 0.4))
    walls = grown(air) & (labels == Tissue.DIPLOE)
    labels = torch.where(walls, float(Tissue.CORTICAL_BONE), labels)
    return torch.where(air, float(Tissue.SINUS_AIR), labels)


def change_thickness(labels: Labels) -> Labels:
    """Add a voxel to the skull, or take one off, where a smooth field says so; under its surface there is dense bone again."""
    skull = is_any(labels, _SKULL)
    here = smooth_field(labels, 40) > torch.randn(())
    if chance(0.5):
        labels = torch.where(grown(skull) & here & is_any(labels, _BESIDE_SKULL), float(Tissue.CORTICAL_BONE), labels)
    else:
        beside = highest_around(torch.where(skull, 0.0, labels))
        labels = torch.where(skull & ~eroded(skull) & here & (beside > 0), beside, labels)
    skull = is_any(labels, _SKULL)
    under = skull & ~eroded(skull)
    return torch.where(under & (labels == Tissue.DIPLOE), float(Tissue.CORTICAL_BONE), labels)


def line_skull(labels: Labels) -> Labels:
    """Put fibrous tissue beside the skull, where a smooth field says so: dura inside, pericranium outside, as dark as bone in many MRs."""
    skull = is_any(labels, _SKULL)
    here = smooth_field(labels, 30) > uniform(-2.0, 0.5)
    return torch.where(grown(skull) & here & is_any(labels, _BESIDE_SKULL), float(FIBROUS), labels)


def mix_soft_tissue(labels: Labels) -> Labels:
    """Turn islands of muscle into fat and of fat into muscle."""
    islands, edge = smooth_field(labels, uniform(5, 20)), uniform(0.2, 1.5)
    mixed = torch.where((labels == Tissue.MUSCLE) & (islands > edge), float(Tissue.FAT), labels)
    return torch.where((labels == Tissue.FAT) & (islands < -edge), float(Tissue.MUSCLE), mixed)


def widen_fluid(labels: Labels) -> Labels:
    """Let the fluid in and around the brain reach a voxel or two farther, where a smooth field says so."""
    here = smooth_field(labels, 40) > uniform(-1.5, 0.5)
    for _ in range(int(torch.randint(1, 3, ()))):
        labels = torch.where(grown(labels == Tissue.CSF) & here & is_any(labels, BRAIN), float(Tissue.CSF), labels)
    return labels


def thread_strands(labels: Labels) -> Labels:
    """Put thin fibrous tissue into the fluid around the brain and between the muscles: as dark as bone in many MRs, and soft."""
    field = smooth_field(labels, uniform(4, 12))
    thin = (field - uniform(-1.0, 1.0)).abs() < uniform(0.05, 0.3)
    return torch.where(thin & is_any(labels, (Tissue.CSF, Tissue.MUSCLE, Tissue.MUCOSA)), float(FIBROUS), labels)


def surround(labels: Labels) -> Labels:
    """Put hair and cushions, or electrodes, into the air around the head."""
    head = labels > 0
    if chance(0.7):
        around = surroundings(head, uniform(3, 25)) & (smooth_field(labels, uniform(3, 30)) > uniform(-0.5, 1.0))
    else:
        shell = grown(head) & ~head
        around = shell & (torch.rand_like(labels) < 30 / max(int(shell.sum()), 1))
        for _ in range(int(torch.randint(1, 5, ()))):
            around = grown(around)
    return torch.where(around & ~head, float(SURROUNDINGS), labels)


def cut(labels: Labels) -> Labels:
    """Take away what lies beyond a plane, up to about a third of the image."""
    size, dims = labels.shape[2:], labels.ndim - 2
    normal = 0.25 * torch.randn(dims)
    normal[int(torch.randint(dims, ()))] += 1.0 if chance(0.5) else -1.0
    normal = normal / normal.norm()
    axes = [n * torch.linspace(-0.5, 0.5, size[k], device=labels.device) for k, n in enumerate(normal.tolist())]
    height = sum(torch.meshgrid(*axes, indexing="ij"))
    assert isinstance(height, Tensor)
    return torch.where(height[None, None] > uniform(0.15, 0.5), 0.0, labels)


def fill_teeth(labels: Labels) -> tuple[Labels, Bool[Tensor, "1 1 *s"]]:
    """Put metal into a few teeth, if there are any: the labels with it, and the ball around each that gives no signal."""
    void = torch.zeros_like(labels, dtype=torch.bool)
    teeth = (labels == Tissue.TOOTH)[0, 0].nonzero()
    if not len(teeth):
        return labels, void
    axes = [torch.arange(n, device=labels.device) for n in labels.shape[2:]]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    for _ in range(int(torch.randint(1, 4, ()))):
        distance = (places - teeth[int(torch.randint(len(teeth), ()))]).float().norm(dim=-1)[None, None]
        void = void | (distance < uniform(3, 12))
        labels = torch.where((distance < 2) & (labels == Tissue.TOOTH), float(FILLING), labels)
    return labels, void


def _replace(labels: Labels, old: tuple[int, ...], new: int, distance: float, edge: float) -> Labels:
    """Make some tissues another where a smooth field is above an edge."""
    return torch.where(is_any(labels, old) & (smooth_field(labels, distance) > edge), float(new), labels)
