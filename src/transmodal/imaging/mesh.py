"""Surfaces as files that other programs read: STL (the shape alone) and PLY (with the deviation of each point, also as a colour)."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from transmodal.core.errors import FileError
from transmodal.core.files import atomic_path
from transmodal.imaging.surface import Surface

MESH_SUFFIXES = (".stl", ".ply")
# Deviations from here on have the full colour: twice the 2 mm that are clinically acceptable.
FULL_COLOR_MM = 4.0
# From red over white to blue, which are told apart with any colour vision.
_COLORS = "RdBu"
_NOT_MEASURED = (128, 128, 128, 255)
_UNITS = "RAS+ mm (x to the right, y to the front, z to the top of the patient)"
_LEGEND = (
    "deviation_mm: signed distance to the reference, positive outside of it, nan where not measured",
    f"colours: red -{FULL_COLOR_MM:g} mm (bone is missing), white 0, blue +{FULL_COLOR_MM:g} mm (too much bone), grey not measured",
)
_STL_HEADER_BYTES = 80


def deviation_colors(deviation_mm: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 4"]:
    """Colours of signed deviations: red where bone is missing, blue where there is too much, as in the Light_U-Net paper's difference maps.

    The paper shows red where the synthetic CT is darker than the true one, and blue where it is brighter.

    Parameters
    ----------
    deviation_mm : ndarray, shape (n,)
        Full red at -4 mm and beyond, white at 0, full blue at 4 mm; NaN is grey.

    Returns
    -------
    ndarray, shape (n, 4)
        Red, green, blue and opacity, in [0, 255].
    """
    from matplotlib import colormaps

    measured = ~np.isnan(deviation_mm)
    colors = np.full((len(deviation_mm), 4), _NOT_MEASURED, dtype=np.uint8)
    colors[measured] = colormaps[_COLORS]((deviation_mm[measured] / FULL_COLOR_MM + 1) / 2, bytes=True)
    return colors


def require_mesh_name(path: Path) -> None:
    """Raise `FileError` unless the suffix names a format that surfaces are written in; for asking before long work."""
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise FileError(f"{path}: a surface is written as one of {', '.join(MESH_SUFFIXES)}; name the file so")


def write_mesh(surface: Surface, path: Path, deviation_mm: Float[np.ndarray, " n"] | None = None) -> None:
    """Write a surface as binary STL or PLY, whole or not at all; the header says that coordinates are RAS+ mm.

    Parameters
    ----------
    surface : Surface
    path : Path
        Ends in ``.stl`` or ``.ply``; the folder is made if need be.
    deviation_mm : ndarray, shape (n,), optional
        Of each point, NaN where it was not measured. PLY holds it as the property ``deviation_mm`` of the vertices and as their colours;
        STL has no place for it.

    Raises
    ------
    FileError
        If the suffix is neither, or the file cannot be written.
    """
    path = Path(path)
    require_mesh_name(path)
    encoded = _stl(surface) if path.suffix.lower() == ".stl" else _ply(surface, deviation_mm)
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)


def _stl(surface: Surface) -> bytes:
    """The header, of 80 bytes, is free but for the word that text files begin with (solid)."""
    from trimesh import Trimesh
    from trimesh.exchange.stl import export_stl

    encoded = export_stl(Trimesh(surface.points, surface.faces, process=False))
    return f"STL, {_UNITS}".encode().ljust(_STL_HEADER_BYTES) + encoded[_STL_HEADER_BYTES:]


def _ply(surface: Surface, deviation_mm: Float[np.ndarray, " n"] | None) -> bytes:
    from trimesh import Trimesh
    from trimesh.exchange.ply import export_ply

    marks = {}
    if deviation_mm is not None:
        attributes = {"deviation_mm": deviation_mm.astype(np.float32)}
        marks = {"vertex_colors": deviation_colors(deviation_mm), "vertex_attributes": attributes}
    mesh = Trimesh(surface.points, surface.faces, process=False, **marks)
    first, _, rest = export_ply(mesh, vertex_normal=False).partition(b"element vertex")
    comments = [_UNITS, *(_LEGEND if deviation_mm is not None else ())]
    return first + "".join(f"comment {line}\n" for line in comments).encode() + b"element vertex" + rest
