import base64
import gzip
import hashlib
import io
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from transmodal import reporting
from transmodal.core.volume import Volume
from transmodal.imaging.grid import canonical
from transmodal.imaging.surface import closed_surface
from transmodal.reporting.viewer import CT_STEP_HU, Made, Mesh, ViewedCase, make_viewer

NIIVUE = Path(reporting.__file__).parent / "niivue"


def case(affine=None, **changes) -> ViewedCase:
    rng = np.random.default_rng(0)
    affine = np.diag([2.0, 1.5, 3.0, 1.0]) if affine is None else affine
    ct = Volume(rng.integers(-1000, 2000, (30, 34, 26)).astype(np.int16), affine, "ct")
    mask = np.zeros(ct.shape, dtype=bool)
    mask[12:18, 14:21, 11:15] = True
    mr = Volume(rng.uniform(-5, 900, ct.shape).astype(np.float32), affine, "mr")
    made = [Made("<script>", ct.with_array(ct.array + np.int16(100)), ct.with_array(np.full(ct.shape, 30.0), "uncertainty"))]
    return ViewedCase(**{"case": "a", "source": mr, "reference": ct, "mask": ct.with_array(mask, "mask"), "made": made, **changes})


def unpack(data: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(base64.b64decode(data))))


@pytest.mark.parametrize(
    "affine", [np.diag([2.0, 1.5, 3.0, 1.0]), np.array([[0, -2, 0, 5], [1.5, 0, 0, -9], [0, 0, 3, 2], [0, 0, 0, 1.0]])]
)
def test_what_is_packed_is_the_scan_around_the_head(affine):
    given = case(affine)
    files = {name: unpack(data) for name, data in make_viewer(given, 300).files.items()}
    assert set(files) == {"reference", "source", "mask", "made0", "uncertainty0"}
    upright = canonical(given.reference)
    for name, scan in files.items():
        assert nibabel.aff2axcodes(scan.affine) == ("R", "A", "S"), name
        np.testing.assert_allclose(scan.affine[:3, :3], upright.affine[:3, :3], atol=1e-6)
    packed = files["reference"]
    start = np.rint(upright.grid.to_voxel(packed.affine[:3, 3])).astype(int)
    x, y, z = (slice(begin, begin + size) for begin, size in zip(start, packed.shape, strict=True))
    assert np.abs(packed.get_fdata() - upright.array[x, y, z]).max() <= CT_STEP_HU / 2
    assert np.abs(files["made0"].get_fdata() - packed.get_fdata() - 100).max() <= CT_STEP_HU
    np.testing.assert_array_equal(files["mask"].get_fdata() > 0, canonical(given.mask).array[x, y, z])
    assert np.abs(files["source"].get_fdata() - canonical(given.source).array[x, y, z]).max() < 905 / 255
    np.testing.assert_allclose(files["uncertainty0"].get_fdata(), 30)


def test_a_small_budget_makes_the_grid_coarser():
    fine, coarse = make_viewer(case(), 300), make_viewer(case(), 300, budget=8_000)
    assert sum(map(len, coarse.files.values())) <= 8_000 < sum(map(len, fine.files.values()))
    assert unpack(coarse.files["reference"]).header.get_zooms()[0] > 2
    assert "2 × 1.5 × 3 mm" in fine.caption and "rounded to 4 HU" in fine.caption


def test_surfaces_that_there_is_no_room_for_are_left_out_and_named():
    ball = closed_surface(Volume(np.linalg.norm(np.indices((20, 20, 20)) - 9.5, axis=0) < 8, np.eye(4), "mask"), 0.5)
    mesh = Mesh(ball, np.full((len(ball.points), 4), 200, dtype=np.uint8))
    made = [Made(name, case().reference, bone=mesh) for name in ("first", "second")]
    roomy = make_viewer(case(made=made, bone=mesh), 300)
    assert {"bone", "bone0", "bone1"} <= set(roomy.files) and "no room" not in roomy.caption
    one = len(roomy.files["bone"])
    tight = make_viewer(case(made=made, bone=mesh), 300, budget=2 * (2 * one + 1))
    assert "bone0" in tight.files and "bone1" not in tight.files
    assert "There is no room for the bone of second." in tight.caption
    assert not [name for name in make_viewer(case(made=made, bone=mesh), 300, budget=10).files if name.startswith("bone")]


def test_mrs_in_small_units_have_steps_and_digits():
    mr = case().source
    small = mr.with_array(mr.array / 1000)
    viewer = make_viewer(case(reference=small, made=[Made("one", small)]), 0.1)
    assert 0 < viewer.step < 0.02
    constant = mr.with_array(np.zeros(mr.shape, dtype=np.float32))
    assert make_viewer(case(reference=constant, made=[Made("one", constant)]), 1.0).step > 0


def test_a_name_cannot_end_the_script_that_it_stands_in():
    viewer = make_viewer(case(), 300)
    assert "<" not in viewer.description
    told = json.loads(viewer.description)
    assert [panel["title"] for panel in told["panels"]] == ["MR", "True CT", "<script>"]


def test_only_what_is_there_can_be_chosen():
    plain = make_viewer(case(source=None, made=[Made("one", case().reference)]), 300)
    assert [value for value, _ in plain.shows] == ["image", "error"]
    assert [value for value, _ in plain.views] == ["all", "axial", "coronal", "sagittal"]
    assert "uncertainty" in [value for value, _ in make_viewer(case(), 300).shows]


def test_an_empty_mask_shows_the_whole_image():
    nothing = case().mask.with_array(np.zeros(case().mask.shape, dtype=bool))
    viewer = make_viewer(case(mask=nothing), 300)
    assert unpack(viewer.files["reference"]).shape == case().reference.shape


def test_niivue_is_the_file_that_was_published():
    digest = hashlib.sha256((NIIVUE / "niivue.umd.js").read_bytes()).hexdigest()
    assert digest in (NIIVUE / "README.md").read_text()
    assert (NIIVUE / "LICENSES.txt").is_file()
