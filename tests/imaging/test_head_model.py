import numpy as np
import pytest
import trimesh

from transmodal.core.errors import DataError, GeometryError
from transmodal.core.volume import Volume
from transmodal.imaging.head_model import HeadLabel, HeadModelSettings, cut_layers, head_model, solid_layers
from transmodal.imaging.mesh import write_mesh
from transmodal.imaging.surface import closed_surface

SETTINGS = HeadModelSettings()
RADII_MM = {"scalp": 80.0, "bone": 72.0, "cavity": 62.0}
SPACING = (2.0, -2.5, 2.0)


def places(shape, spacing):
    return np.stack(np.meshgrid(*[abs(s) * (np.arange(n) - (n - 1) / 2) for n, s in zip(shape, spacing, strict=True)], indexing="ij"))


def shells(spacing=SPACING, *, hole_mm=0.0):
    """A ball of a head: scalp, two tables and a diploe of 300 HU between, brain; a hole below, a suture of 4 mm above."""
    shape = tuple(round(176 / abs(s)) for s in spacing)
    x, y, z = places(shape, spacing)
    radius = np.sqrt(x**2 + y**2 + z**2)
    hu = np.select([radius < 62, radius < 65, radius < 69, radius < 72, radius < 80], [35, 1400, 300, 1400, 20], -1000)
    gap = (np.hypot(x, y) < hole_mm) & (z < 0) | (abs(x) < 2) & (z > 0)
    hu[gap & (radius >= 62) & (radius < 72)] = 20
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    return Volume(hu.astype(np.int16), affine, "ct"), radius


def faces_between(first, second):
    """How many voxels of one mask share a face with one of another."""
    count = 0
    for axis in range(3):
        low, high = np.arange(first.shape[axis] - 1), np.arange(1, first.shape[axis])
        count += np.count_nonzero(first.take(low, axis) & second.take(high, axis))
        count += np.count_nonzero(first.take(high, axis) & second.take(low, axis))
    return count


def is_nested(labels):
    array = labels.array
    bone = np.isin(array, (HeadLabel.COMPACT_BONE, HeadLabel.SPONGY_BONE))
    cavity = np.isin(array, (HeadLabel.INTRACRANIAL, HeadLabel.BRAIN))
    outside, soft = array == HeadLabel.OUTSIDE, array == HeadLabel.SOFT_TISSUE
    return not faces_between(cavity, ~cavity & ~bone) and not faces_between(outside, ~outside & ~soft)


@pytest.fixture(scope="module")
def holed():
    ct, radius = shells(hole_mm=14.0)
    return (ct, radius, *head_model(ct, SETTINGS))


def test_the_layers_are_where_the_shells_are(holed):
    ct, radius, labels, enclosed = holed
    assert labels.grid.matches(ct.grid) and labels.modality == "labels"
    for name, solid in solid_layers(labels).items():
        true = radius < RADII_MM[name]
        assert 2 * np.count_nonzero(solid.array & true) / (solid.array.sum() + true.sum()) > 0.97
    # Of half of the cavity's surface the hole takes 1 - sqrt(1 - (14/62)²); the suture is closed.
    assert enclosed == pytest.approx(1 - (1 - np.sqrt(1 - (14 / 62) ** 2)) / 2, abs=0.003)
    assert cut_layers(labels) == []


def test_a_skull_without_a_hole_but_a_suture_encloses_all():
    assert head_model(shells()[0], SETTINGS)[1] == 1


def test_no_layer_touches_the_one_after_the_next_though_the_skull_has_a_hole_and_a_suture(holed):
    assert is_nested(holed[2])


def test_the_surfaces_are_watertight_and_of_the_volume_of_their_layer(holed, tmp_path):
    voxel = abs(np.linalg.det(holed[0].affine[:3, :3]))
    for name, solid in solid_layers(holed[2]).items():
        write_mesh(closed_surface(solid, 0.5), tmp_path / f"{name}.stl")
        mesh = trimesh.load_mesh(tmp_path / f"{name}.stl")
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(solid.array.sum() * voxel, rel=0.02)


def test_the_diploe_is_spongy_and_the_surfaces_of_bone_are_compact(holed):
    _, radius, labels, _ = holed
    spongy, compact = labels.array == HeadLabel.SPONGY_BONE, labels.array == HeadLabel.COMPACT_BONE
    diploe = (radius > 66) & (radius < 68) & (np.abs(places(labels.shape, SPACING)[2]) < 30) & (spongy | compact)
    assert spongy[diploe].mean() > 0.8
    assert not faces_between(spongy, ~(spongy | compact))


def test_a_mask_of_the_brain_becomes_a_layer_within_the_cavity(holed):
    ct, radius, plain, _ = holed
    labels, _ = head_model(ct, SETTINGS, ct.with_array(radius < 58, "mask"))
    brain = labels.array == HeadLabel.BRAIN
    np.testing.assert_array_equal(brain, (radius < 58) & (plain.array == HeadLabel.INTRACRANIAL))
    assert list(solid_layers(labels)) == ["scalp", "bone", "cavity", "brain"]


def test_thick_slices_are_separated_too():
    labels, _ = head_model(shells((1.6, 1.6, 5.0), hole_mm=14.0)[0], SETTINGS)
    assert is_nested(labels)


def test_a_simulated_head_has_its_cavity_and_its_air(simulated_head):
    labels, enclosed = head_model(simulated_head["ct"], SETTINGS)
    cavity, brain = labels.array == HeadLabel.INTRACRANIAL, simulated_head["brain"].array
    assert 2 * np.count_nonzero(cavity & brain) / (cavity.sum() + brain.sum()) > 0.9
    assert enclosed > 0.95 and is_nested(labels)
    air = labels.array == HeadLabel.INTERNAL_AIR
    assert air.any() and simulated_head["ct"].array[air].max() < -300
    assert cut_layers(labels) == ["scalp", "bone"]  # through the neck


def test_a_head_without_a_skull_around_it_is_refused():
    ct, radius = shells()
    with pytest.raises(DataError, match=r"no skull that encloses a brain was found: 0% .* above 3000 HU"):
        head_model(ct, HeadModelSettings(bone_hu=3000))
    half = ct.with_array(np.where((places(ct.shape, SPACING)[2] < 0) & (radius < 80), 30, ct.array).astype(np.int16))
    with pytest.raises(DataError, match="no skull that encloses a brain"):
        head_model(half, SETTINGS)
    with pytest.raises(DataError, match="most of the mask of the brain is not in the cavity"):
        head_model(ct, SETTINGS, ct.with_array(radius > 62, "mask"))
    with pytest.raises(GeometryError, match="the mask of the brain"):
        head_model(ct, SETTINGS, Volume(radius[1:] < 50, ct.affine, "mask"))
