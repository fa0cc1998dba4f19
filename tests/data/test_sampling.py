from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transmodal.core.errors import ConfigError
from transmodal.core.files import sha256
from transmodal.data.augment import Augmentation, draw_matrix
from transmodal.data.manifest import Image, Manifest, Subject, read_manifest, write_manifest
from transmodal.data.sampling import Frame, Sampler, Sampling, Target, View, extract
from transmodal.data.store import Dataset, write_image
from transmodal.imaging.intensity import PercentileIntensity, WindowIntensity
from transmodal.imaging.preparation import Preparation
from transmodal.simulation.tissues import Tissue

INTENSITY = {"mr": PercentileIntensity(), "ct": WindowIntensity(lower=-1024, upper=3071)}


def sampler(dataset, view=None, sampling=None, augmentation=None, subjects=None, direction="mr2ct", seed=0, target=None):
    data = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
    names = subjects or [s.id for s in data.manifest.subjects]
    view, sampling = view or View(size=(32, 32)), sampling or Sampling()
    return Sampler(data, names, direction, view, sampling, augmentation or Augmentation(), INTENSITY, seed, target)


@pytest.mark.parametrize(
    ("view", "shape", "channels"),
    [
        (View(size=(32, 24)), (32, 24), 1),
        (View(size=(32, 24), axes=(0, 1, 2), context=2), (32, 24), 5),
        (View(size=(16, 24, 20)), (16, 24, 20), 1),
        (View(size=(64, 64)), (64, 64), 1),
    ],
    ids=["slices", "2.5D", "3D", "larger than the image"],
)
def test_batches_have_the_shape_of_the_view(dataset, view, shape, channels):
    batch = sampler(dataset, view).batch(step=3, size=2)
    assert batch.source.shape == (2, channels, *shape)
    assert batch.target.shape == batch.source_mask.shape == (2, 1, *shape)
    assert batch.source.dtype == batch.target.dtype == torch.float32
    assert batch.paired


def test_a_sample_depends_on_seed_step_and_index_alone(dataset):
    augmentation = Augmentation(flip=(0, 1), rotation_deg=10, scale=0.1, gain=0.2, shift=0.1, noise=0.1)
    one, two = (sampler(dataset, augmentation=augmentation) for _ in range(2))
    whole = one.batch(step=5, size=4)
    two.batch(step=17, size=3)
    parts = [two.batch(step=5, size=2, first=2), two.batch(step=5, size=2, first=0)]
    assert torch.equal(whole.source, torch.cat((parts[1].source, parts[0].source)))
    assert torch.equal(whole.target, torch.cat((parts[1].target, parts[0].target)))
    assert not torch.equal(whole.source, sampler(dataset, augmentation=augmentation, seed=1).batch(step=5, size=4).source)
    assert not torch.equal(whole.source, one.batch(step=6, size=4).source)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_unchanged_frame_reads_the_voxels_themselves(dataset, axis):
    data = Dataset(dataset)
    subject = data.manifest.subjects[0]
    image = data.read_all(subject.id, "ct")
    order = [k for k in range(3) if k != axis] + [axis]
    start = np.array([3, 5, 7])
    size = (10, 12, 3)
    lengths = np.array(size)[np.argsort(order)]
    frame = Frame(size, start + (lengths - 1) / 2, np.eye(3)[:, order])
    box = image[tuple(slice(a, a + n) for a, n in zip(start, lengths, strict=True))]
    np.testing.assert_array_equal(extract(data, subject, "ct", frame, -1000.0), box.transpose(order))


def test_flips_mirror_the_patch_exactly_and_pairs_alike(dataset):
    plain = sampler(dataset, View(size=(16, 16, 16)))
    flipped = sampler(dataset, View(size=(16, 16, 16)), augmentation=Augmentation(flip=(0, 1, 2)))
    seen = set()
    for step in range(12):
        a, b = plain.sample(step, 0), flipped.sample(step, 0)
        axes = next(
            axes for axes in [(), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)] if np.array_equal(np.flip(a.source, axes), b.source)
        )
        np.testing.assert_array_equal(np.flip(a.target, axes), b.target)
        np.testing.assert_array_equal(np.flip(a.source_mask, axes), b.source_mask)
        seen.add(axes)
    assert len(seen) > 3


@given(angle=st.floats(-180, 180), scale=st.floats(0.8, 1.25), axis=st.sampled_from([0, 1, 2, None]), seed=st.integers(0, 99))
@example(angle=8.7e-17, scale=0.8, axis=0, seed=0)
@settings(max_examples=25, deadline=None)
def test_a_turned_and_scaled_frame_reads_a_ramp_where_its_points_lie(ramp, angle, scale, axis, seed):
    data, slope = ramp
    matrix = draw_matrix(Augmentation(rotation_deg=abs(angle), scale=scale - 0.8, flip=(0, 1, 2)), axis, np.random.default_rng(seed))
    frame = Frame((5, 6, 4), np.array([15.25, 16.5, 14.75]), matrix)
    offsets = np.moveaxis(np.indices(frame.size), 0, -1) - (np.array(frame.size) - 1) / 2
    expected = (frame.center + offsets @ matrix.T) @ slope
    np.testing.assert_allclose(extract(data, data.manifest.subjects[0], "mr", frame, 0.0), expected, rtol=1e-4, atol=1e-3)


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    folder, slope = tmp_path_factory.mktemp("ramp"), np.array([1.0, -2.0, 0.5])
    write_image(folder, "a", "mr", (np.moveaxis(np.indices((32, 32, 32)), 0, -1) @ slope).astype(np.float32))
    image = Image(shape=(32, 32, 32), affine=tuple(tuple(row) for row in np.eye(4).tolist()))
    write_manifest(folder, Manifest(preparation=Preparation(), subjects=(Subject(id="a", images={"mr": image}),)))
    return Dataset(folder), slope


def test_masks_stay_masks_under_rotation(dataset):
    batch = sampler(dataset, augmentation=Augmentation(rotation_deg=20, scale=0.2)).batch(0, 4)
    assert batch.source_mask.dtype == torch.bool
    assert torch.equal(batch.source_mask, batch.target_mask)


def test_only_the_mr_changes_its_intensities(dataset):
    plain, changed = sampler(dataset), sampler(dataset, augmentation=Augmentation(gain=0.3, shift=0.2, noise=0.2))
    a, b = plain.batch(1, 3), changed.batch(1, 3)
    assert torch.equal(a.target, b.target)
    assert not torch.allclose(a.source, b.source, atol=0.02)
    back = sampler(dataset, augmentation=Augmentation(gain=0.3), direction="ct2mr").batch(1, 3)
    assert torch.equal(back.source, sampler(dataset, direction="ct2mr").batch(1, 3).source)


class Watching(Sampler):
    """Notes whose images are read, at the last."""

    def _load(self, source, source_frame, target, target_frame, rng):
        self.__dict__["last"] = (source.id, target.id)
        return super()._load(source, source_frame, target, target_frame, rng)


def watch(dataset, sampling, steps=60):
    data = Dataset(dataset)
    names = [s.id for s in data.manifest.subjects]
    watching = Watching(data, names, "mr2ct", View(size=(32, 32)), sampling, Augmentation(), INTENSITY, 0)
    seen = []
    for step in range(steps):
        watching.sample(step, 0)
        seen.append(watching.__dict__["last"])
    return seen


def test_unpaired_samples_never_show_a_pair(dataset):
    seen = watch(dataset, Sampling(pairing="unpaired"))
    assert all(source != target for source, target in seen)
    assert len(set(seen)) == 4 * 3


def test_disjoint_samples_never_take_both_from_one_subject(dataset):
    seen = watch(dataset, Sampling(pairing="unpaired", disjoint=True))
    assert not {source for source, _ in seen} & {target for _, target in seen}
    assert len({source for source, _ in seen}) == len({target for _, target in seen}) == 2


def test_mixed_sampling_alternates(dataset):
    sampling = Sampling(pairing="mixed", unpaired_steps=2, paired_steps=1)
    assert [sampling.is_paired(step) for step in range(6)] == [False, False, True, False, False, True]
    seen = watch(dataset, sampling, steps=30)
    assert all((source == target) == sampling.is_paired(step) for step, (source, target) in enumerate(seen))


@pytest.mark.parametrize(
    ("subjects", "fraction", "paired"),
    [(["head0", "head1"], 1.0, {True, False}), (["head0", "head1"], 0.0, {False}), (["head0"], 1.0, {True})],
    ids=["both", "no pairs", "nobody else"],
)
def test_mixed_sampling_takes_what_there_is(dataset, subjects, fraction, paired):
    draws = sampler(dataset, sampling=Sampling(pairing="mixed", paired_fraction=fraction), subjects=subjects)
    assert {draws.batch(step, 1).paired for step in range(4)} == paired


@pytest.mark.parametrize(("size", "first"), [((32, 24), (16, 8)), ((16, 24, 20), (8, 8, 12))])
def test_the_first_patches_may_be_smaller(dataset, size, first):
    begun, plain = (sampler(dataset, view) for view in (View(size=size, first_size=first, first_steps=3), View(size=size)))
    assert [begun.batch(step, 2).source.shape[2:] for step in range(5)] == [first] * 3 + [size] * 2
    assert torch.equal(begun.batch(3, 2).source, plain.batch(3, 2).source)
    assert torch.equal(begun.batch(2, 2).source, sampler(dataset, View(size=first)).batch(2, 2).source)


@pytest.mark.parametrize("first", [None, (8, 8, 8)])
def test_first_patches_need_a_size_of_the_views_dimensions(first):
    with pytest.raises(ValueError, match="first_steps needs a first_size, of 2 numbers"):
        View(size=(16, 16), first_size=first, first_steps=1)
    with pytest.raises(ValueError, match="every size must be at least 1"):
        View(size=(16, 16), first_size=(0, 16), first_steps=1)


@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
def test_slices_without_contrast_are_drawn_again(dataset, pairing):
    """Those at the top and the bottom of a phantom hold scalp and air, all of it below 500 HU."""
    draws = sampler(dataset, sampling=Sampling(pairing=pairing))
    draws.intensity = {**INTENSITY, "ct": WindowIntensity(lower=500, upper=600)}
    first = [draws._draw(np.random.default_rng((0, step, 0)), draws.is_paired(step), draws.view.size) for step in range(30)]
    kept = [draws.sample(step, 0) for step in range(30)]
    assert any(np.ptp(found.target) == 0 for found in first)
    assert all(np.ptp(found.target) > 0 for found in kept)
    for one, other in zip(first, kept, strict=True):
        assert np.ptp(one.target) == 0 or np.array_equal(one.target, other.target)


def test_paired_samples_lie_in_the_head(dataset):
    seen = watch(dataset, Sampling())
    assert all(source == target for source, target in seen)
    batch = sampler(dataset, View(size=(16, 16))).batch(0, 16)
    assert batch.source_mask.flatten(1).any(dim=1).all()


@pytest.mark.parametrize("view", [View(size=(48, 40)), View(size=(16, 16), fit="square"), View(size=(16, 24, 20))])
def test_label_maps_are_learned_as_they_are_with_the_mask_of_the_source(dataset, view):
    """The labels of the phantoms are known by the HU of the CT: a label is not interpolated, and so must be that of a voxel nearby."""
    target = Target("labels", lambda _, labels: labels.astype(np.float32))
    augmentation = Augmentation(flip=(0, 1), rotation_deg=10)
    still, turned = (sampler(dataset, view, augmentation=a, direction="ct2mr", target=target).batch(0, 4) for a in (None, augmentation))
    hu = still.source * (3071 + 1024) / 2 + (3071 - 1024) / 2
    if view.fit == "none":
        for value, label in {-1000: 0, 30: Tissue.GREY_MATTER, 40: Tissue.MUSCLE, 1000: Tissue.CORTICAL_BONE}.items():
            assert torch.equal((hu - value).abs() < 1, still.target == label)
    for batch in (still, turned):
        assert set(batch.target.unique().tolist()) <= {0, Tissue.GREY_MATTER, Tissue.MUSCLE, Tissue.CORTICAL_BONE}
        assert torch.equal(batch.target_mask, batch.source_mask)


@pytest.mark.parametrize("view", [View(size=(48, 40), axes=(0, 1, 2)), View(size=(48, 40), context=1), View(size=(16, 24, 20))])
def test_labels_alone_are_those_that_are_read_with_the_source(dataset, view, monkeypatch):
    plain = Target("labels", lambda _, labels: labels.astype(np.float32))
    augmentation = Augmentation(flip=(0, 1), rotation_deg=10)
    both = sampler(dataset, view, augmentation=augmentation, target=plain).batch(0, 4)
    read, names = Dataset.read, set()
    monkeypatch.setattr(Dataset, "read", lambda self, subject, name, *box: names.add(name) or read(self, subject, name, *box))
    alone = sampler(dataset, view, augmentation=augmentation, target=replace(plain, alone=True)).batch(0, 4)
    assert names == {"labels"}
    assert torch.equal(alone.target, both.target) and torch.equal(alone.source[:, view.context : view.context + 1], alone.target)
    assert alone.source.shape[1] == view.channels
    assert torch.equal(alone.target_mask, alone.target > 0)


def test_what_the_subjects_do_not_allow_is_refused(dataset, tmp_path):
    with pytest.raises(ConfigError, match="different persons"):
        sampler(dataset, sampling=Sampling(pairing="unpaired"), subjects=["head0"])
    manifest = read_manifest(dataset)
    lonely = [s.model_copy(update={"images": {k: v for k, v in s.images.items() if k.startswith("mr")}}) for s in manifest.subjects]
    write_manifest(tmp_path, Manifest(preparation=manifest.preparation, subjects=tuple(lonely)))
    with pytest.raises(ConfigError, match="none of the 4 subjects has both mr and ct"):
        sampler(tmp_path)
    with pytest.raises(ConfigError, match="none of the 4 subjects has both ct and labels"):
        sampler(tmp_path, direction="ct2mr", target=Target("labels", lambda _, labels: labels))


def test_the_manifest_knows_where_each_image_came_from(heads, dataset):
    subject = read_manifest(dataset).subject("head1")
    assert subject.paired
    assert subject.images["ct"].sha256 == sha256(heads / "Task1" / "brain" / "head1" / "ct.nii.gz")


@pytest.mark.parametrize(
    "values", [{"size": (0, 4)}, {"size": (4, 4, 4), "context": 1}, {"size": (4, 4), "axes": ()}, {"size": (4, 8), "fit": "square"}]
)
def test_impossible_views_are_refused(values):
    with pytest.raises(ValueError, match="validation error"):
        View(**values)


def test_a_fitted_slice_fills_its_square_with_the_mask(dataset):
    view = View(size=(40, 40), axes=(0, 1, 2), fit="square")
    for step in range(12):
        mask = sampler(dataset, view).sample(step, 0).source_mask[0]
        rows, columns = (np.flatnonzero(mask.any(axis=k)) for k in (1, 0))
        assert 40 in (len(rows), len(columns))
        for filled in (rows, columns):  # in the middle, to a voxel of the volume at either end
            assert abs(filled[0] - (39 - filled[-1])) <= 2


def test_a_crop_takes_a_part_of_the_square(dataset):
    whole = sampler(dataset, View(size=(40, 40), fit="square"))
    part = sampler(dataset, View(size=(40, 40), fit="square"), augmentation=Augmentation(crop=0.1))
    subject = whole.subjects["head0"]
    for seed in range(20):
        frames = [s._draw_frame(subject, "mr", s.view.size, 2, np.random.default_rng(seed)) for s in (whole, part)]
        zooms = [frame.matrix[0, 0] for frame in frames]
        assert 0.9 <= zooms[1] / zooms[0] <= 1
        room = 40 * (zooms[0] - zooms[1]) / 2
        assert np.abs(frames[1].center - frames[0].center).max() <= room + 1e-9
