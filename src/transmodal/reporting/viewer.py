"""A case to look into, in slices and in three dimensions: its volumes, encoded for the viewer of the report.

The viewer is NiiVue (BSD-2-Clause, in ``niivue/``), steered by ``templates/viewer.js``. All volumes of a case lie on one grid around the
head, which is made as coarse as the size of the page asks for. Nothing of a file's header comes along: names, dates and free text of a
scan do not reach the page.
"""

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from transmodal.core.volume import Grid, Volume
from transmodal.evaluation.surface import BONE_HU
from transmodal.imaging.grid import canonical, isotropic_grid, resample
from transmodal.imaging.mesh import FULL_COLOR_MM
from transmodal.imaging.surface import Surface
from transmodal.reporting.views import cut_through, unit_of, window

# What a case may take of a page of 25 MB, encoded.
BUDGET_BYTES = 15_000_000
# Finer steps than a scanner's noise cost half the page.
CT_STEP_HU = 4.0
CT_RANGE_HU = (-1000.0, 3000.0)
_GREYS = 255
_PLANES = (("all", "Three planes"), ("axial", "Axial"), ("coronal", "Coronal"), ("sagittal", "Sagittal"))
_COARSEN = 1.05
_MZ3 = 23117
# A power of two, so that the numbers end in zeros, which pack well.
_POINT_STEP_MM = 1 / 16


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface, and the red, green, blue and opacity of each of its points."""

    surface: Surface
    colours: UInt8[np.ndarray, "n 4"]


@dataclass(frozen=True)
class Made:
    """What a method made of a case: the image, how sure it is of it, and its bone as a surface, where these are at hand."""

    method: str
    image: Volume
    uncertainty: Volume | None = None
    bone: Mesh | None = None


@dataclass(frozen=True)
class ViewedCase:
    """A case with what several methods made of it, at least one; all volumes on any grids."""

    case: str
    source: Volume | None
    reference: Volume | None
    mask: Volume
    made: Sequence[Made]
    bone: Mesh | None = None

    @property
    def typical(self) -> Volume:
        """The true image, or else the first synthetic one: what black and white are chosen for."""
        return self.made[0].image if self.reference is None else self.reference


@dataclass(frozen=True)
class Viewer:
    """A case as the page holds it.

    Parameters
    ----------
    title : str
    caption : str
        Grid and rounding, in words.
    shows, views : sequence of (value, label)
        What the reader may choose.
    window, range : (float, float)
        Where the sliders of black and white begin, and how far they go.
    step : float
        Of these sliders.
    error_limit : float
        The end of the colour scale.
    bone_key : str
        What the colours of the bone say.
    description : str
        JSON, safe inside a script element: what ``viewer.js`` is told.
    files : dict
        Name to a file in base64.
    """

    title: str
    caption: str
    shows: Sequence[tuple[str, str]]
    views: Sequence[tuple[str, str]]
    window: tuple[float, float]
    range: tuple[float, float]
    step: float
    error_limit: float
    bone_key: str
    description: str
    files: dict[str, str]


def make_viewer(case: ViewedCase, error_limit: float | None, budget: int = BUDGET_BYTES) -> Viewer:
    """Encode a case.

    Parameters
    ----------
    case : ViewedCase
    error_limit : float or None
        The end of the colour scale of the error, in the unit of the images; None where there is no error: then that of the uncertainty is a
        tenth of what black and white are apart.
    budget : int
        Bytes that the encoded files may take: half of it for surfaces, of which the last are left out if need be, and the rest for volumes,
        whose grid is made coarser.
    """
    bones, left_out = _encode_bones(case, budget // 2)
    grid, images = _encode_within(case, budget - _bytes(bones))
    files = {**images, **bones}
    mask = resample(case.mask, grid)
    limits = window(resample(case.typical, grid), mask)
    limit = (limits[1] - limits[0]) / 10 if error_limit is None else error_limit
    is_ct = case.typical.modality == "ct"
    spacing = " × ".join(f"{step:.3g}" for step in grid.spacing)
    rounding = f", CT values rounded to {CT_STEP_HU:g} HU" if is_ct else ""
    without = f" There is no room for the bone of {', '.join(left_out)}." if left_out else ""
    value_step = 10.0 if is_ct else _round_step((limits[1] - limits[0]) / _GREYS)
    return Viewer(
        title=case.case,
        caption=f"{case.case}: {' × '.join(str(n) for n in grid.shape)} voxels of {spacing} mm{rounding}.{without}",
        shows=[
            ("image", "Images"),
            *([("error", "Error")] if "reference" in files else []),
            *([("uncertainty", "Uncertainty")] if "uncertainty0" in files else []),
        ],
        views=[*_PLANES, *([("bone", "Bone in 3D")] if any(name.startswith("bone") for name in files) else [])],
        window=limits,
        range=CT_RANGE_HU if is_ct else limits,
        step=value_step,
        error_limit=limit,
        bone_key=_bone_key(case),
        description=_as_json({**_describe(case, grid, mask, limits, files), "errorLimit": limit, "valueStep": value_step}),
        files=files,
    )


def _around(mask: Volume) -> Grid:
    """The voxels around the head, in the order of RAS+."""
    upright = canonical(mask)
    box = cut_through(upright).box
    affine = upright.affine.copy()
    affine[:3, 3] = upright.grid.to_world(np.array([float(span.start) for span in box]))
    x, y, z = (span.stop - span.start for span in box)
    return Grid((x, y, z), affine)


def _encode_bones(case: ViewedCase, budget: int) -> tuple[dict[str, str], list[str]]:
    """The surfaces that there is room for, and the methods whose surfaces there is none for."""
    bones = [("bone", "the true CT", case.bone), *((f"bone{k}", made.method, made.bone) for k, made in enumerate(case.made))]
    files, left_out = {}, []
    for name, method, bone in bones:
        if bone is None:
            continue
        packed = _mz3(bone)
        if _bytes(files) + len(packed) > budget:
            left_out.append(method)
        else:
            files[name] = packed
    return files, left_out


def _encode_within(case: ViewedCase, budget: int) -> tuple[Grid, dict[str, str]]:
    """The volumes on the finest grid whose files are no larger than that."""
    grid = _around(case.mask)
    files = _encode_images(case, grid)
    while _bytes(files) > budget and max(grid.shape) > 1:
        wider = _COARSEN * float(np.cbrt(_bytes(files) / max(budget, 1)))
        grid = isotropic_grid(grid, wider * float(np.cbrt(np.prod(grid.spacing))))
        files = _encode_images(case, grid)
    return grid, files


def _bytes(files: dict[str, str]) -> int:
    return sum(map(len, files.values()))


def _round_step(value: float) -> float:
    """A positive number of one digit."""
    return float(f"{value:.0e}") if value > 0 else 1.0


def _bone_key(case: ViewedCase) -> str:
    if case.reference is None:
        return f"Bone above {BONE_HU:g} HU."
    return (
        f"Bone above {BONE_HU:g} HU and its distance from the true bone: red where bone is missing, blue where there is too much, full "
        f"colours at {FULL_COLOR_MM:g} mm; grey where mask or scan end."
    )


def _encode_images(case: ViewedCase, grid: Grid) -> dict[str, str]:
    files = {"mask": _nifti(resample(case.mask, grid).array.astype(np.uint8), grid)}
    if case.reference is not None:
        files["reference"] = _image(case.reference, grid)
    if case.source is not None:
        files["source"] = _image(case.source, grid)
    for number, made in enumerate(case.made):
        files[f"made{number}"] = _image(made.image, grid)
        if made.uncertainty is not None:
            files[f"uncertainty{number}"] = _greys(resample(made.uncertainty, grid).array, grid)
    return files


def _describe(case: ViewedCase, grid: Grid, mask: Volume, limits: tuple[float, float], files: dict[str, str]) -> dict[str, Any]:
    unit, panels = unit_of(case.typical.modality), []
    if case.source is not None:
        shown = window(resample(case.source, grid), mask)
        panels.append({"title": case.source.modality.upper(), "image": "source", "unit": unit_of(case.source.modality), "window": shown})
    if case.reference is not None:
        name = f"True {case.reference.modality.upper()}"
        panels.append({"title": name, "image": "reference", "unit": unit, "window": limits, "bone": _there("bone", files)})
    for number, made in enumerate(case.made):
        panels.append(
            {
                "title": made.method,
                "image": f"made{number}",
                "unit": unit,
                "window": limits,
                "made": True,
                "uncertainty": _there(f"uncertainty{number}", files),
                "bone": _there(f"bone{number}", files),
            }
        )
    corners = grid.corners()
    inside = np.argwhere(mask.array)
    start = grid.to_world(inside.mean(axis=0)) if inside.size else grid.center
    return {
        "panels": panels,
        "unit": unit,
        "low": corners.min(axis=0).tolist(),
        "high": corners.max(axis=0).tolist(),
        "start": start.tolist(),
        "step": float(min(grid.spacing)),
    }


def _there(name: str, files: dict[str, str]) -> str | None:
    return name if name in files else None


def _image(volume: Volume, grid: Grid) -> str:
    """A CT in steps of some HU, an MR in 255 greys."""
    array = resample(volume, grid).array
    if volume.modality == "ct":
        return _nifti(np.rint(np.clip(array, -1024, 3071) / CT_STEP_HU).astype(np.int16), grid, CT_STEP_HU)
    return _greys(array, grid)


def _greys(array: Float[np.ndarray, "x y z"], grid: Grid) -> str:
    low, high = (float(end) for end in np.percentile(array, (0, 99.95)))
    slope = (high - low) / _GREYS or 1.0
    return _nifti(np.rint(np.clip((array - low) / slope, 0, _GREYS)).astype(np.uint8), grid, slope, low)


def _nifti(array: Any, grid: Grid, slope: float = 1.0, intercept: float = 0.0) -> str:
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, code=1)
    header.set_qform(grid.affine, code=1)
    header.set_slope_inter(slope, intercept)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return _packed(header.binaryblock + bytes(4) + array.tobytes(order="F"))


def _mz3(mesh: Mesh) -> str:
    """The mesh format of Surf Ice: little-endian, with faces, vertices and the colours of the vertices."""
    points, faces = np.round(mesh.surface.points / _POINT_STEP_MM) * _POINT_STEP_MM, mesh.surface.faces
    head = np.array([_MZ3, 1 | 2 | 4], dtype="<u2").tobytes() + np.array([len(faces), len(points), 0], dtype="<u4").tobytes()
    return _packed(head + faces.astype("<u4").tobytes() + points.astype("<f4").tobytes() + mesh.colours.tobytes())


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, compresslevel=9, mtime=0)).decode("ascii")


def _as_json(value: dict[str, Any]) -> str:
    """JSON in which nothing can end the script element that it stands in."""
    return json.dumps(value).replace("<", "\\u003c").replace("&", "\\u0026").replace(">", "\\u003e")
