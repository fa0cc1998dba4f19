"""The page on which a person checks what preparation made of each subject."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from transmodal.core.volume import Volume
from transmodal.data.manifest import Manifest, RegistrationNote, Subject
from transmodal.imaging.grid import canonical, resample
from transmodal.imaging.preparation import Preparation, read_template
from transmodal.imaging.subject import PreparedSubject, bring
from transmodal.reporting.figures import to_jpeg
from transmodal.reporting.html import Page, Picture, Section, Tile, data_uri
from transmodal.reporting.tables import Cell, Table, number
from transmodal.reporting.views import CT_WINDOW_HU, DPI, Cut, Inside, Plane, cut_through, make_sheet, outline, show_plane, window

# Told apart with any colour vision, and against grey.
MASK_COLOUR, BONE_COLOUR = "#5cb8e0", "#f0a35e"
_BONE_HU = 300.0
_SQUARE_MM = 25.0
# A head with its neck, from a child's to a large adult's.
_HEAD_LITRES = (1.5, 8.0)
# Two registrations of one pair that differ by more than this do not both fit.
_DOUBT_MM = 1.5
_FIELD_LIMITS = (0.5, 1.5)
_LABELS = {"mae_hu": ("MAE", "HU"), "psnr_db": ("PSNR", "dB"), "ssim": ("SSIM", "")}


@dataclass(frozen=True)
class _Column:
    title: str
    planes: tuple[Plane, ...]
    limits: tuple[float, float]
    outlines: tuple[tuple[str, tuple[Inside, ...]], ...] = ()


def quality_figure(made: PreparedSubject, settings: Preparation) -> bytes:
    """Draw what a person needs to see to trust a subject: masks, the CT's bone on the MR before and after registration, checkerboards.

    Parameters
    ----------
    made : PreparedSubject
    settings : Preparation
        With the files of the template where they are.

    Returns
    -------
    bytes
        JPEG, in radiological convention.
    """
    cut = cut_through(next(iter(made.prepared.values())).mask)
    columns = [*_scan_columns(made, cut), *_pair_columns(made, cut), *_step_columns(made, settings, cut)]
    sheet = make_sheet(len(columns), cut.sizes_mm)
    for position, column in enumerate(columns):
        sheet.title(position, column.title)
        for row, axes in enumerate(sheet.panels(position, cut.sizes_mm)):
            show_plane(axes, column.planes[row], column.limits)
            for colour, insides in column.outlines:
                outline(axes, insides[row], colour, 0.8)
    return to_jpeg(sheet.figure, DPI)


def _scan_columns(made: PreparedSubject, cut: Cut) -> Iterator[_Column]:
    """Each scan as it is, with the outline of what is looked at."""
    for name, volume in _whole(made).items():
        mask = made.prepared[name].mask
        outlines = [(MASK_COLOUR, cut.planes(mask.array > 0))]
        brain = made.brain or made.space.brain
        if name == "mr" and brain is not None:
            outlines.append((BONE_COLOUR, cut.planes(resample(brain, made.grid).array > 0)))
        yield _Column(f"{name.upper()} and its mask", cut.planes(volume.array), window(volume, mask), tuple(outlines))


def _pair_columns(made: PreparedSubject, cut: Cut) -> Iterator[_Column]:
    """Whether MR and CT show one head in one place."""
    if len(made.prepared) < 2:
        return
    mr, ct = _whole(made).values()
    limits = window(mr, made.prepared["mr"].mask)
    planes = cut.planes(mr.array)
    if made.alignment is not None:
        before = resample(canonical(made.scans["ct"]), made.grid)
        yield _Column("Before registration", planes, limits, ((BONE_COLOUR, cut.planes(before.array > _BONE_HU)),))
    yield _Column("MR and the CT's bone", planes, limits, ((BONE_COLOUR, cut.planes(ct.array > _BONE_HU)),))
    yield _Column("MR and CT in turn", _checkerboard(mr, limits, ct, CT_WINDOW_HU, cut), (0, 1))


def _step_columns(made: PreparedSubject, settings: Preparation, cut: Cut) -> Iterator[_Column]:
    """What else was done to the MR."""
    if made.corrected is not None:
        raw, corrected = (resample(canonical(volume), made.grid).array for volume in (made.scans["mr"], made.corrected))
        field = np.divide(raw, corrected, out=np.ones_like(raw), where=corrected > 0)
        yield _Column("Bias field taken out", cut.planes(np.where(made.prepared["mr"].mask.array, field, 1)), _FIELD_LIMITS)
    if settings.template is not None and made.space.to_scan is not None:
        name, scan = next(iter(_whole(made).items()))
        image = read_template(settings.template.mr, "mr")
        template = resample(Volume(image.array, made.space.to_scan @ image.affine, "mr"), made.grid)
        limits = (0.0, float(np.percentile(image.array, 99.5)))
        own = window(scan, made.prepared[name].mask)
        yield _Column(f"{name.upper()} and template in turn", _checkerboard(scan, own, template, limits, cut), (0, 1))


def _whole(made: PreparedSubject) -> dict[str, Volume]:
    """The scans on the working grid, with what lies outside the mask."""
    reference = made.corrected or next(iter(made.scans.values()))
    first = next(iter(made.scans))
    whole = {first: resample(canonical(reference), made.grid)}
    return whole if len(made.scans) < 2 else {**whole, "ct": bring(made.scans["ct"], made.alignment, made.grid)}


def _checkerboard(
    one: Volume, one_limits: tuple[float, float], other: Volume, other_limits: tuple[float, float], cut: Cut
) -> tuple[Plane, ...]:
    """Squares of the one and the other image in turn, both from 0 to 1."""
    cells = np.indices(one.shape) * np.reshape(one.spacing, (3, 1, 1, 1)) // _SQUARE_MM
    first = cells.sum(axis=0) % 2 == 0
    return cut.planes(np.where(first, _unit_range(one, one_limits), _unit_range(other, other_limits)))


def _unit_range(volume: Volume, limits: tuple[float, float]) -> Float[np.ndarray, "x y z"]:
    low, high = limits
    return np.clip((volume.array.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)


def describe_registration(notes: Sequence[RegistrationNote]) -> str:
    """Say in words how pairs were registered."""
    kinds = sorted({note.kind + (" and free-form" if note.free_form else "") for note in notes})
    return f"{' or '.join(kinds)} registration" + ("" if kinds == ["landmarks"] else " by mutual information (elastix)")


def mean_floor(notes: Sequence[RegistrationNote]) -> dict[str, float]:
    """The mean over the pairs of each score of the registration floor."""
    floors = [note.floor for note in notes if note.floor]
    return {name: float(np.mean([floor[name] for floor in floors])) for name in (floors[0] if floors else {})}


def compose_quality(title: str, manifest: Manifest, pictures: Mapping[str, bytes], failures: Sequence[str]) -> Page:
    """Lay out the page: what was done, what to look at first, a table, and a picture of each subject.

    Parameters
    ----------
    title : str
        Name of the dataset.
    manifest : Manifest
    pictures : dict
        JPEG of each subject by id.
    failures : sequence of str
        One message for each subject that could not be prepared.
    """
    registered = [s.steps.registration for s in manifest.subjects if s.steps.registration is not None]
    shown = [
        Picture(data_uri(pictures[subject.id], "image/jpeg"), _alternative(subject), caption=_caption(subject))
        for subject in manifest.subjects
    ]
    return Page(
        title=f"{title}: quality of the preparation",
        lead=(_lead(manifest, registered),),
        tiles=_tiles(manifest, registered, failures),
        cautions_title="To be looked at first",
        cautions=[*failures, *(line for subject in manifest.subjects for line in doubts(subject))],
        sections=(
            Section("All subjects", tables=[_table(manifest)]),
            Section("Pictures", paragraphs=(_HOW_TO_READ,), pictures=shown),
            Section(
                "Settings", facts=[("What was asked for", [(k, str(v)) for k, v in _flat(manifest.preparation.model_dump(mode="json"))])]
            ),
        ),
        footer="Made by transmodal prepare. Research software; not for diagnosis.",
    )


_HOW_TO_READ = (
    "Axial, coronal and sagittal planes through the middle of the mask, in radiological convention: the patient's right is on the left. "
    "The blue line is the mask: it should follow the skin. The orange line is bone of the CT (above 300 HU): after registration it should "
    "lie on the dark band that the skull is in the MR. In the checkerboard, edges should run on from square to square."
)


def doubts(subject: Subject) -> list[str]:
    """What a person should look at first of a subject, if anything."""
    lines = []
    for name in ("mr", "ct"):
        litres = subject.images[name].litres if name in subject.images else None
        if litres is not None and not _HEAD_LITRES[0] <= litres <= _HEAD_LITRES[1]:
            lines.append(f"{subject.id}: the mask of the {name.upper()} holds {litres:.1f} litres: is the head cut, or the mask not right?")
    note = subject.steps.registration
    if note is not None and note.kind != "landmarks" and (note.doubt_mm or 0) > _DOUBT_MM:
        lines.append(
            f"{subject.id}: two registrations from different starts place the head {note.doubt_mm:.1f} mm apart; one of them is wrong."
        )
    if note is not None and note.kind == "landmarks" and (note.doubt_mm or 0) > 2 * _DOUBT_MM:
        lines.append(f"{subject.id}: the landmarks are {note.doubt_mm:.1f} mm apart after registration; look for one that is misplaced.")
    return lines


def _lead(manifest: Manifest, registered: Sequence[RegistrationNote]) -> str:
    settings = manifest.preparation
    spacing = "their own voxels" if settings.spacing_mm == "native" else f"voxels of {settings.spacing_mm:g} mm"
    text = f"{len(manifest.subjects)} subjects, {sum(subject.paired for subject in manifest.subjects)} of them pairs, on {spacing}."
    if registered:
        whose = "one pair" if len(registered) == 1 else f"{len(registered)} pairs"
        text += f" The CT of {whose} was brought onto the MR by {describe_registration(registered)}."
    if settings.bias_correction:
        text += " The bias field of the MRs was corrected (N4)."
    return text + (" All were brought into the space of a template." if settings.template is not None else "")


def _tiles(manifest: Manifest, registered: Sequence[RegistrationNote], failures: Sequence[str]) -> list[Tile]:
    tiles = [Tile("Subjects", str(len(manifest.subjects)), "", f"{len(failures)} could not be prepared")]
    if registered:
        tiles.append(
            Tile("Registration moved heads", number(float(np.mean([n.moved_mm for n in registered])), "HU"), "mm", "mean over the pairs")
        )
        tiles += [
            Tile(f"Floor: {_LABELS[name][0]}", number(value, _LABELS[name][1]), _LABELS[name][1], "CT against itself registered again")
            for name, value in mean_floor(registered).items()
            if name in _LABELS
        ]
    return tiles


def _table(manifest: Manifest) -> Table:
    heads = [
        ("Subject", ""),
        ("Scans", ""),
        ("MR mask", "litres"),
        ("CT mask", "litres"),
        ("Moved", "mm"),
        ("In doubt", "mm"),
        ("Floor MAE", "HU"),
        ("Bias", ""),
        ("Time", "s"),
    ]
    return Table("What preparation measured", heads, [(subject.id, _cells(subject)) for subject in manifest.subjects], _NOTES)


_NOTES = (
    "Moved: how far the registration moved the points of the head, on average. In doubt: how far apart two registrations from different "
    "starts, or the landmarks, are. Floor: the CT scored against itself as the second registration places it, within the mask.",
    "Bias: the 1st and 99th percentile of the factor by which the field had brightened the MR.",
)


def _cells(subject: Subject) -> list[Cell]:
    note, bias = subject.steps.registration, subject.steps.bias_range
    values = [subject.images[name].litres if name in subject.images else None for name in ("mr", "ct")]
    values += [note.moved_mm, note.doubt_mm, note.floor.get("mae_hu")] if note else [None] * 3
    cells = [Cell(" + ".join(name.upper() for name in ("mr", "ct") if name in subject.images))]
    cells += [Cell(number(value, "dB"), sort=value) for value in values]
    cells.append(Cell("–" if bias is None else f"{bias[0]:.2f} to {bias[1]:.2f}", sort=None if bias is None else bias[1] - bias[0]))
    return [*cells, Cell(f"{subject.steps.seconds:.1f}", sort=subject.steps.seconds)]


def _caption(subject: Subject) -> str:
    note = subject.steps.registration
    return subject.id if note is None else f"{subject.id}: {note.kind} registration moved the head by {note.moved_mm:.1f} mm"


def _alternative(subject: Subject) -> str:
    scans = " and ".join(name.upper() for name in ("mr", "ct") if name in subject.images)
    return f"Three planes through the {scans} of {subject.id} with the outline of the mask" + (" and of the bone" if subject.paired else "")


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
