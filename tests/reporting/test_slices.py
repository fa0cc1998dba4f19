import io
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from transmodal.core.volume import Volume
from transmodal.reporting.slices import CaseImages, cut_slices, error_limit, slice_figure

SHAPE, SPACING = (21, 31, 25), (3.0, 2.0, 2.5)


def head(source: bool = True) -> CaseImages:
    """RAS+ volumes with one bright voxel to the right, front and top of the centre in each central plane."""
    affine = np.diag([*SPACING, 1.0])
    mask = np.ones(SHAPE, bool)
    ct = np.zeros(SHAPE, dtype=np.float32)
    x, y, z = (n // 2 for n in SHAPE)
    ct[x + 5, y + 8, z] = ct[x + 5, y, z + 7] = ct[x, y + 8, z + 7] = 1000
    reference = Volume(ct, affine, "ct")
    return CaseImages(
        source=Volume(ct + 5, affine, "mr") if source else None,
        reference=reference,
        prediction=reference.with_array(ct - 20),
        mask=Volume(mask, affine, "mask"),
    )


def turned(volume: Volume, codes: str) -> Volume:
    """The same scan stored with other axes."""
    change = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(volume.affine), nibabel.orientations.axcodes2ornt(codes)
    )
    array = nibabel.orientations.apply_orientation(volume.array, change)
    return Volume(array, volume.affine @ nibabel.orientations.inv_ornt_aff(change, volume.shape), volume.modality)


def test_right_is_on_the_left_and_the_front_and_top_are_up():
    axial, coronal, sagittal = (np.argwhere(plane > 500)[0] for plane in cut_slices(head()).columns[1].planes)
    shapes = [plane.shape for plane in cut_slices(head()).columns[1].planes]
    assert shapes == [(31, 21), (25, 21), (25, 31)]
    for (row, column), (rows, columns) in zip((axial, coronal, sagittal), shapes, strict=True):
        assert row < rows / 2  # to the front in axial slices, to the top in the others
        assert column < columns / 2  # the patient's right; in sagittal slices the front


@settings(max_examples=20, deadline=None)
@given(st.permutations(["RL", "AP", "SI"]), st.tuples(*[st.integers(0, 1)] * 3))
def test_the_order_of_the_axes_in_the_file_does_not_matter(axes, flips):
    codes = "".join(axis[flip] for axis, flip in zip(axes, flips, strict=True))
    images = head()
    stored = CaseImages(*(turned(volume, codes) for volume in (images.source, images.reference, images.prediction, images.mask)))
    for ours, theirs in zip(cut_slices(images).columns, cut_slices(stored).columns, strict=True):
        for plane, other in zip(ours.planes, theirs.planes, strict=True):
            np.testing.assert_array_equal(plane, other)
    np.testing.assert_allclose(cut_slices(stored).sizes_mm, cut_slices(images).sizes_mm)


def test_columns_and_their_meaning():
    columns = cut_slices(head()).columns
    assert [column.title for column in columns] == ["MR", "CT", "Synthetic CT", "Error (synthetic − true CT)"]
    assert all((plane == -20).all() for plane in columns[3].planes)
    assert [column.unit for column in columns] == ["arbitrary units", "HU", "HU", "HU"]
    assert cut_slices(head(source=False)).columns[0].title == "CT"


def test_a_source_that_was_made_again_comes_with_its_error():
    images = head()
    again = replace(images, again=images.source.with_array(images.source.array + 7))
    columns = cut_slices(again).columns
    assert [column.title for column in columns[4:]] == ["MR made again", "Error of the cycle (MR)"]
    assert all((plane == 7).all() for plane in columns[5].planes)
    assert [column.error for column in columns] == [False, False, False, True, False, True]
    assert columns[4].limits == columns[0].limits
    without_source = replace(again, source=None)
    assert len(cut_slices(without_source).columns) == 3
    wider = [Image.open(io.BytesIO(slice_figure(cut_slices(case), 100))).width for case in (images, again)]
    assert wider[1] > 1.3 * wider[0]


def test_one_round_scale_for_all():
    case = cut_slices(head())
    assert case.mean_absolute_error == pytest.approx(20)
    assert error_limit([case, case]) == 70
    assert error_limit([replace(case, mean_absolute_error=0.004)]) == pytest.approx(0.015)
    assert error_limit([]) == 1


def test_an_empty_mask_shows_the_whole_image():
    images = head()
    empty = CaseImages(images.source, images.reference, images.prediction, images.mask.with_array(np.zeros(SHAPE, bool)))
    case = cut_slices(empty)
    assert case.columns[0].planes[0].shape == (31, 21)
    assert slice_figure(case, 100.0)


def test_figures_are_in_proportion_and_reproducible():
    case = cut_slices(head())
    png = slice_figure(case, 100.0)
    assert png == slice_figure(case, 100.0)
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG" and image.width > image.height
