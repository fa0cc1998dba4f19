import numpy as np
import pytest
import trimesh

from transmodal.core.errors import FileError
from transmodal.core.volume import Volume
from transmodal.imaging.mesh import deviation_colors, write_mesh
from transmodal.imaging.surface import closed_surface


@pytest.fixture(scope="module")
def surface():
    """Of noise far from the origin, some of whose voxels are just at the level, as those of integer CTs are."""
    image = np.random.default_rng(0).integers(245, 256, (9, 8, 7)).astype(np.int16)
    affine = np.diag([-0.5, 0.5, 3.0, 1.0])
    affine[:3, 3] = (130, -200, -90)
    return closed_surface(Volume(image, affine, "ct"), 250.0)


@pytest.mark.parametrize("suffix", [".stl", ".ply"])
def test_a_surface_comes_back_closed_facing_outwards_and_in_its_place(surface, tmp_path, suffix):
    path = tmp_path / "new" / f"skull{suffix}"
    write_mesh(surface, path)
    mesh = trimesh.load_mesh(path)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert len(mesh.faces) == len(surface.faces)
    assert mesh.volume == pytest.approx(trimesh.Trimesh(surface.points, surface.faces, process=False).volume, rel=1e-4)
    np.testing.assert_allclose(mesh.bounds, [surface.points.min(axis=0), surface.points.max(axis=0)], atol=1e-4)
    assert b"RAS+ mm (x to the right, y to the front, z to the top of the patient)" in path.read_bytes()[:200]
    assert not path.read_bytes().startswith(b"solid")


def test_the_deviation_is_a_property_and_a_colour_of_every_vertex(surface, tmp_path):
    deviation_mm = np.linspace(-6, 6, len(surface.points))
    deviation_mm[5] = np.nan
    write_mesh(surface, tmp_path / "skull.ply", deviation_mm)
    mesh = trimesh.load_mesh(tmp_path / "skull.ply", process=False)
    stored = mesh.metadata["_ply_raw"]["vertex"]["data"]["deviation_mm"]
    np.testing.assert_array_equal(np.ravel(stored), deviation_mm.astype(np.float32))
    np.testing.assert_array_equal(mesh.visual.vertex_colors, deviation_colors(deviation_mm))
    np.testing.assert_allclose(mesh.vertices, surface.points, atol=1e-4)
    header = (tmp_path / "skull.ply").read_bytes().split(b"end_header")[0].decode()
    assert "positive outside" in header and "red -4 mm (bone is missing)" in header


def test_red_is_bone_that_is_missing_and_blue_is_too_much():
    red, blue, far, none, unknown = deviation_colors(np.array([-4.0, 4.0, 40.0, 0.0, np.nan])).astype(int)
    assert red[0] - red[2] > 50 and blue[2] - blue[0] > 50
    np.testing.assert_array_equal(far, blue)
    assert none[:3].min() > 240 and np.ptp(none[:3]) < 5
    assert unknown.tolist() == [128, 128, 128, 255]


def test_other_names_are_refused_and_a_failed_write_leaves_what_was_there(surface, tmp_path, monkeypatch):
    with pytest.raises(FileError, match=r"skull\.obj: a surface is written as one of \.stl, \.ply"):
        write_mesh(surface, tmp_path / "skull.obj")
    path = tmp_path / "skull.stl"
    path.write_bytes(b"before")
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(FileError, match="No space left"):
        write_mesh(surface, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
