import json

import numpy as np
import pytest
import trimesh

from phantom_bone import ct_of, places
from transmodal import cli
from transmodal.core.errors import ConfigError, DataError, FileError, GeometryError
from transmodal.core.files import sha256
from transmodal.core.volume import Grid, Volume
from transmodal.evaluation.surface import BONE_HU
from transmodal.imaging.scan import write_scan
from transmodal.workflows.surface import surface


@pytest.fixture(scope="module")
def skulls(tmp_path_factory):
    """Balls of bone of 25 and 26 mm on a left-handed grid of 2 mm, in air; the mask of their voxels; and half of the grid."""
    folder = tmp_path_factory.mktemp("skulls")
    affine = np.diag([-2.0, 2, 2, 1])
    affine[:3, 3] = (40, -50, 10)
    grid = Grid((34, 34, 34), affine)
    radius = np.linalg.norm(places(grid) - grid.center, axis=-1)
    for name, size in (("ct", 25), ("sct", 26)):
        write_scan(ct_of(radius - size, grid), folder / f"{name}.nii.gz")
    write_scan(Volume(radius < 25, affine, "mask"), folder / "bone.nii.gz")
    write_scan(Volume(np.indices(grid.shape)[2] < 17, affine, "mask"), folder / "mask.nii.gz")
    return folder


def test_the_mesh_of_a_ct_is_in_its_place_and_its_record_beside_it(skulls, tmp_path):
    summary = surface(skulls / "ct.nii.gz", tmp_path / "skull.stl")
    mesh = trimesh.load_mesh(tmp_path / "skull.stl")
    assert mesh.is_watertight
    np.testing.assert_allclose(mesh.bounds, [(7 - 25, -17 - 25, 43 - 25), (7 + 25, -17 + 25, 43 + 25)], atol=0.1)
    assert mesh.volume == pytest.approx(summary.volume_mm3, rel=1e-5) == pytest.approx(4 / 3 * np.pi * 25**3, rel=0.01)
    assert mesh.area == pytest.approx(summary.area_mm2, rel=1e-5)
    assert summary.triangles == len(mesh.faces)
    stored = json.loads((tmp_path / "skull.stl.json").read_text())
    assert stored["record"]["inputs"] == {"ct": sha256(skulls / "ct.nii.gz")}
    assert stored["record"]["settings"] == {"threshold_hu": 250, "specks_mm3": 0}
    assert stored["deviation"] is None


def test_the_deviation_is_that_of_the_measured_vertices(skulls, tmp_path):
    summary = surface(
        skulls / "sct.nii.gz", tmp_path / "skull.ply", reference=skulls / "ct.nii.gz", mask=skulls / "mask.nii.gz", threshold_hu=300
    )
    assert summary.deviation["sct_to_ct_mean_mm"] == pytest.approx(1, abs=0.05)
    assert summary.deviation["hd95_mm"] == pytest.approx(1, abs=0.05)
    mesh = trimesh.load_mesh(tmp_path / "skull.ply", process=False)
    stored = np.ravel(mesh.metadata["_ply_raw"]["vertex"]["data"]["deviation_mm"])
    cut = mesh.vertices[:, 2] > 10 + 2 * 16 + 1e-3
    np.testing.assert_array_equal(np.isnan(stored), cut)
    np.testing.assert_allclose(stored[~cut], 1, atol=0.05)
    assert mesh.is_watertight


def test_a_mask_is_recognized(skulls, tmp_path):
    summary = surface(skulls / "bone.nii.gz", tmp_path / "skull.ply", reference=skulls / "ct.nii.gz")
    assert summary.volume_mm3 == pytest.approx(4 / 3 * np.pi * 25**3, rel=0.02)
    assert abs(summary.deviation["sct_to_ct_mean_mm"]) < 0.2
    assert summary.deviation["within_2mm"] == 1


def test_the_command_prints_a_table_or_json(skulls, tmp_path, capsys):
    words = ["surface", str(skulls / "sct.nii.gz"), str(tmp_path / "skull.stl"), "--reference", str(skulls / "ct.nii.gz")]
    for flags in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            cli.main([*words, *flags])
        assert not end.value.code
        printed = capsys.readouterr().out
        if flags:
            assert json.loads(printed)["record"]["settings"]["threshold_hu"] == BONE_HU
            assert json.loads(printed) == json.loads((tmp_path / "skull.stl.json").read_text())
        else:
            assert "100.0%" in printed and "HD95 1.0" in printed and "cm³ of bone" in printed


def test_the_skull_of_a_real_average_is_closed(shared_data, tmp_path):
    summary = surface(shared_data / "anatomy" / "mni_average_ct.nii.gz", tmp_path / "skull.stl", specks_mm3=100)
    mesh = trimesh.load_mesh(tmp_path / "skull.stl")
    assert mesh.is_watertight and len(mesh.faces) == summary.triangles
    assert 250 < mesh.volume / 1000 < 500  # smeared by 8 mm
    np.testing.assert_allclose(mesh.extents, (150, 194, 160), atol=3)


def test_refusals(skulls, tmp_path):
    ct, out = skulls / "ct.nii.gz", tmp_path / "skull.ply"
    with pytest.raises(FileError, match=r"skull\.obj: a surface is written as one of"):
        surface(ct, tmp_path / "skull.obj")
    with pytest.raises(ConfigError, match="--specks-mm3 -1"):
        surface(ct, out, specks_mm3=-1)
    with pytest.raises(DataError, match=r"ct\.nii\.gz: no bone, which is what is above 3000 HU"):
        surface(ct, out, threshold_hu=3000)
    values = np.full((12, 12, 12), 1000, np.int16)
    values[0] = -1000
    write_scan(Volume(values, np.diag([3.0, 3, 3, 1]), "ct"), tmp_path / "other.nii.gz")
    with pytest.raises(GeometryError, match="different grids"):
        surface(ct, out, reference=tmp_path / "other.nii.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.nii.gz"]
