from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from phantoms import phantom, write_subject
from transmodal.core.errors import CheckpointError, ConfigError, DataError
from transmodal.core.jobs import Workers
from transmodal.core.volume import Volume
from transmodal.data.store import Dataset
from transmodal.engine.checkpoint import load_tree
from transmodal.engine.train import WEIGHTS_NAME
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.preparation import Preparation
from transmodal.imaging.registration import Transform
from transmodal.imaging.scan import read_scan
from transmodal.methods import atlas_registration
from transmodal.methods.atlas import Atlas
from transmodal.methods.atlas_registration import AtlasHead
from transmodal.methods.recipe import load_recipe
from transmodal.methods.runs import load_method
from transmodal.workflows.atlas import build_atlases
from transmodal.workflows.prepare import prepare

CPU = torch.device("cpu")


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def _not_wanted(*_):
    raise AssertionError("not wanted here")


@pytest.fixture(scope="module")
def moved() -> np.ndarray:
    """A turn of 10 degrees, 12 mm, and up to 8 % along the axes."""
    angle = np.deg2rad(10)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]) @ np.diag(
        [1.05, 0.95, 1.08]
    )
    affine[:3, 3] = [8, -8, 4]
    return affine


@pytest.fixture(scope="module")
def one_atlas(simulated_head, moved, tmp_path_factory):
    """A set whose one atlas is the simulated head, turned, moved and stretched."""
    folder = tmp_path_factory.mktemp("one")
    subject = {name: Volume(volume.array, moved @ volume.affine, volume.modality) for name, volume in simulated_head.items()}
    write_subject(folder / "heads" / "Task1" / "brain" / "elsewhere", subject)
    prepare(folder / "heads", folder / "dataset", Preparation(spacing_mm=3.0))
    build_atlases(load_recipe("atlas-affine"), folder / "dataset", folder / "set")
    return folder / "set"


def test_an_atlas_that_was_moved_is_found_again(one_atlas, simulated_head, moved):
    method = load_method(one_atlas, CPU)
    assert isinstance(method, Atlas)
    registrar = atlas_registration.Registrar(simulated_head["mr"], simulated_head["brain"], method.settings.registration)
    found = registrar(method.heads[0])
    points = simulated_head["mr"].grid.to_world(np.argwhere(simulated_head["brain"].array)[::50].astype(float))
    assert np.linalg.norm(found.apply(points) - Transform(moved).apply(points), axis=1).mean() < 0.5
    result = method.with_brain(simulated_head["brain"]).synthesize(simulated_head["mr"])
    bone, true = (np.asarray(volume.array) > 350 for volume in (result, simulated_head["ct"]))
    assert dice(bone, true) > 0.8  # two interpolations of 3.5 mm lie between them


@pytest.mark.slow
def test_where_no_mask_is_given_the_atlases_find_the_brain(one_atlas, simulated_head):
    method = load_method(one_atlas, CPU)
    assert isinstance(method, Atlas)
    found = method.find_brain(simulated_head["mr"], method.heads)
    assert dice(np.asarray(found.array), np.asarray(simulated_head["brain"].array)) > 0.9


def test_a_registration_is_done_once(one_atlas, simulated_head, monkeypatch, tmp_path):
    method = load_method(one_atlas, CPU).with_brain(simulated_head["brain"])
    method.folder = tmp_path
    first = method.synthesize(simulated_head["mr"])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    monkeypatch.setattr(atlas_registration, "match_points", _not_wanted)
    np.testing.assert_array_equal(method.synthesize(simulated_head["mr"]).array, first.array)
    smaller = simulated_head["brain"].with_array(binary_erosion(simulated_head["brain"].array))
    with pytest.raises(AssertionError, match="not wanted"):  # another mask is another registration
        method.with_brain(smaller).synthesize(simulated_head["mr"])


def test_a_mask_that_is_no_brain_is_refused_with_the_measure(one_atlas, simulated_head):
    brain = simulated_head["brain"]
    method = load_method(one_atlas, CPU)
    with pytest.raises(DataError, match="litres"):
        method.with_brain(simulated_head["mask"]).synthesize(simulated_head["mr"])
    box = np.zeros(brain.shape, dtype=bool)
    box[26:38, 20:52, 8:56] = True  # symmetric, and as large as a brain
    with pytest.raises(DataError, match=r"overlap by 0\.\d\d \(Dice\)"):
        method.with_brain(brain.with_array(box)).synthesize(simulated_head["mr"])


def test_a_scan_is_not_made_of_itself(dataset, heads, tmp_path, capsys):
    recipe = load_recipe("atlas-affine")
    mr, brain = (
        read_scan(heads / "Task1" / "brain" / "head0" / f"{name}.nii.gz", kind) for name, kind in (("mr", "mr"), ("brain", "mask"))
    )
    build_atlases(recipe, dataset, tmp_path / "all")
    build_atlases(recipe, dataset, tmp_path / "others", subjects=["head1", "head2", "head3"])
    one, other = (load_method(tmp_path / name, CPU).with_brain(brain).synthesize(mr) for name in ("all", "others"))
    np.testing.assert_array_equal(one.array, other.array)
    assert "left out" in capsys.readouterr().err
    build_atlases(recipe, dataset, tmp_path / "itself", subjects=["head0"])
    with pytest.raises(DataError, match="the only atlas"):
        load_method(tmp_path / "itself", CPU).synthesize(mr)


def test_a_scan_is_known_again_however_it_was_prepared(simulated_head):
    mr = simulated_head["mr"]
    head = AtlasHead("it", mr, simulated_head["ct"], simulated_head["mask"], simulated_head["mask"], None)
    assert head.is_of(resample(mr, isotropic_grid(mr.grid, 5.0)))
    assert head.is_of(mr.with_array(np.where(simulated_head["mask"].array, mr.array, 0)))
    assert not head.is_of(Volume(mr.array, np.array([[1, 0, 0, 8], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ mr.affine, "mr"))
    assert not head.is_of(mr.with_array(np.zeros(mr.shape, np.float32)))
    one, other = (phantom(k) for k in range(2))
    assert not AtlasHead("one", one["mr"], one["ct"], one["mask"], one["mask"], None).is_of(other["mr"])


@pytest.mark.slow
def test_where_a_ct_stops_short_it_has_nothing_to_say(tmp_path):
    """Below the field of view of a registered CT its mask ends, and its voxels are blank."""
    subject = phantom(0)
    short = {**subject, "ct": Volume(subject["ct"].array[:, :, 16:], _shifted(subject["ct"].affine, 16), "ct")}
    write_subject(tmp_path / "heads" / "head0", short)
    prepare(tmp_path / "heads", tmp_path / "dataset", Preparation(spacing_mm="native"))
    build_atlases(load_recipe("atlas-affine"), tmp_path / "dataset", tmp_path / "set")
    method = load_method(tmp_path / "set", CPU)
    assert isinstance(method, Atlas)
    head = method.heads[0]
    placed = head.place(Transform(np.eye(4)), head.mr.grid)
    z = head.mr.grid.to_world(np.moveaxis(np.indices(head.mr.shape, dtype=float), 0, -1))[..., 2]
    start = short["ct"].affine[2, 3]
    inside = np.asarray(head.mr.array) > 20
    assert placed.covered[inside & (z > start + 10)].all()
    assert not placed.covered[inside & (z < start - 25)].any()
    assert placed.covered[~inside & (z > start + 10)].all()


def _shifted(affine: np.ndarray, slices: int) -> np.ndarray:
    moved = affine.copy()
    moved[:3, 3] += slices * affine[:3, 2]
    return moved


def test_an_atlas_that_does_not_fit_is_left_out(dataset, heads, tmp_path, capsys):
    build_atlases(load_recipe("atlas-affine"), dataset, tmp_path / "set", subjects=["head1", "head2"])
    method = load_method(tmp_path / "set", CPU)
    assert isinstance(method, Atlas)
    first, second = method.heads
    box = np.zeros(second.mr.shape, dtype=bool)
    box[6:11, 8:40, 8:36] = box[29:34, 8:40, 8:36] = True
    method.heads = (first, replace(second, brain=second.mr.with_array(box, "mask")))
    method.folder = None
    folder = heads / "Task1" / "brain" / "head0"
    mr, brain = read_scan(folder / "mr.nii.gz", "mr"), read_scan(folder / "brain.nii.gz", "mask")
    made = method.with_brain(brain).synthesize(mr)
    assert "the atlas head2 is left out" in capsys.readouterr().err
    method.heads = (first,)
    np.testing.assert_array_equal(method.with_brain(brain).synthesize(mr).array, made.array)


@pytest.mark.slow
def test_two_processes_give_what_one_does(dataset, heads, tmp_path):
    build_atlases(load_recipe("atlas-affine"), dataset, tmp_path / "set")
    mr, brain = (
        read_scan(heads / "Task1" / "brain" / "head0" / f"{name}.nii.gz", kind) for name, kind in (("mr", "mr"), ("brain", "mask"))
    )
    results = []
    for count in (1, 2):
        method = load_method(tmp_path / "set", CPU, Workers(count))
        method.folder = None  # nothing kept
        results.append(method.with_brain(brain).synthesize(mr).array)
    np.testing.assert_array_equal(*results)


@pytest.mark.slow
def test_masks_that_are_missing_are_made_from_those_that_are_there(tmp_path):
    for k in range(2):
        subject = phantom(k)
        write_subject(tmp_path / "heads" / f"head{k}", subject if k == 0 else {name: v for name, v in subject.items() if name != "brain"})
    prepare(tmp_path / "heads", tmp_path / "dataset", Preparation(spacing_mm="native"))
    given, found = build_atlases(load_recipe("atlas-affine"), tmp_path / "dataset", tmp_path / "set")
    assert (given.brain_found, found.brain_found) == (False, True)
    method = load_method(tmp_path / "set", CPU)
    assert isinstance(method, Atlas)
    true = resample(phantom(1)["brain"], method.heads[1].mr.grid)
    assert dice(np.asarray(method.heads[1].brain.array), np.asarray(true.array)) > 0.9
    with pytest.raises(DataError, match="no subject has a mask"):
        build_atlases(load_recipe("atlas-affine"), tmp_path / "dataset", tmp_path / "none", subjects=["head1"])
    build_atlases(
        load_recipe("atlas-affine", ["method.registration.by=intensity"]), tmp_path / "dataset", tmp_path / "i", subjects=["head1"]
    )


def test_other_recipes_and_subjects_are_refused(dataset, tmp_path):
    with pytest.raises(ConfigError, match="no set of atlases"):
        build_atlases(load_recipe("unet2d-quick"), dataset, tmp_path / "set")
    with pytest.raises(DataError, match="no subject 'nobody'"):
        build_atlases(load_recipe("atlas-affine"), dataset, tmp_path / "set", subjects=["nobody"])
    with pytest.raises(ConfigError, match="mr2ct"):
        build_atlases(load_recipe("atlas-affine", ["direction=ct2mr"]), dataset, tmp_path / "set")


def test_what_was_stored_is_what_was_there(dataset, tmp_path):
    build_atlases(load_recipe("atlas-affine"), dataset, tmp_path / "set")
    method = load_method(tmp_path / "set", CPU)
    assert isinstance(method, Atlas)
    data = Dataset(dataset)
    for head in method.heads:
        np.testing.assert_array_equal(head.ct.array, data.read_all(head.id, "ct"))
        np.testing.assert_array_equal(head.mr.array, data.read_all(head.id, "mr"))
        assert head.ct.grid.matches(data.manifest.subject(head.id).images["ct"].grid)
    tree = load_tree(tmp_path / "set" / WEIGHTS_NAME)
    with pytest.raises(CheckpointError, match=r"head0\.ct"):
        method.load_state({name: tensor.numpy() for name, tensor in tree.items() if name != "head0.ct"})
    with pytest.raises(CheckpointError, match="no atlas"):
        method.load_state({})
