import numpy as np
import pytest

from phantoms import phantom
from transmodal.core.errors import DataError, GeometryError
from transmodal.core.volume import Volume
from transmodal.imaging.dicom_read import read_series
from transmodal.imaging.plausibility import require_plausible
from transmodal.imaging.scan import read_scan


def noisy_ct(air: float = -1000.0, offset: float = 0.0) -> Volume:
    """The phantom with the noise of a CT, and other values in place of air."""
    ct = phantom(0)["ct"]
    values = np.where(ct.array == -1000, air, ct.array) + np.random.default_rng(0).normal(0, 15, ct.shape)
    return Volume(values + offset, ct.affine, "ct")


@pytest.mark.parametrize("ct", [noisy_ct(), noisy_ct(-200), noisy_ct(-110), noisy_ct(-1024)], ids=["air", "clipped", "fat", "padding"])
def test_a_ct_in_hu_passes_with_air_and_without(ct):
    assert require_plausible(ct, "ct.nii") is ct


@pytest.mark.parametrize("offset", [1000, 1024])
def test_an_offset_is_recognized_with_air_and_without(offset):
    for ct in (noisy_ct(offset=offset), noisy_ct(20, offset=offset)):
        with pytest.raises(DataError, match=r"ct\.nii: not a CT in HU: soft tissue lies near 1000.*subtract 1024"):
            require_plausible(ct, "ct.nii")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda values: np.clip(values, 0, 800), "hardly any is below -20 HU"),
        (lambda values: values / 1000, "its values go from -1.0.* undo any normalization"),
        (lambda values: np.zeros_like(values), "constant: every voxel is 0"),
    ],
    ids=["clipped at 0", "normalized", "constant"],
)
def test_what_is_no_ct_in_hu_is_refused_with_the_remedy(change, reason):
    ct = noisy_ct()
    with pytest.raises(DataError, match=reason):
        require_plausible(ct.with_array(change(ct.array)), "ct.nii")


def test_an_mr_is_no_ct_and_a_ct_no_mr():
    heads = phantom(0)
    for values in (heads["mr"].array, heads["mr"].array * 20, (heads["mr"].array - 50) / 40):
        with pytest.raises(DataError, match=r"not a CT in HU: .* (give an MR as an MR|an MR, give it as one)"):
            require_plausible(heads["mr"].with_array(values, "ct"), "ct.nii")
    with pytest.raises(DataError, match=r"mr\.nii: not an MR: \d\d% of its voxels lie near -1000"):
        require_plausible(noisy_ct().with_array(noisy_ct().array, "mr"), "mr.nii")


@pytest.mark.parametrize(
    "change",
    [lambda v: v, lambda v: (v - 50) / 40, lambda v: np.where(v < 5, -1, v), lambda v: v - 3],
    ids=["raw", "z-score", "-1", "ringing"],
)
def test_mrs_pass_whatever_their_units(change):
    mr = phantom(0)["mr"]
    require_plausible(mr.with_array(change(mr.array)), "mr.nii")


def test_masks_and_labels_are_not_looked_at():
    for modality in ("mask", "labels"):
        require_plausible(Volume(np.zeros((1, 1, 1), np.uint8), np.eye(4), modality), "mask.nii")


@pytest.mark.parametrize("shape", [(40, 48, 1), (40, 3, 44)])
def test_too_little_of_a_head_is_refused(shape):
    values = np.random.default_rng(0).normal(100, 10, shape)
    with pytest.raises(GeometryError, match="too little of a head"):
        require_plausible(Volume(values, np.diag([4.5, 4.5, 4.5, 1]), "mr"), "mr.nii")


REAL = {
    "heads/t1_head.nii.gz": "mr",
    "heads/t2_head.nii.gz": "mr",
    "tiny/HeadMRVolume.mhd": "mr",
    "anatomy/mni_average_t1.nii.gz": "mr",
    "anatomy/mni_average_ct.nii.gz": "ct",
}


@pytest.mark.parametrize("name", REAL)
def test_real_scans_pass_as_what_they_are_and_not_as_the_other(shared_data, name):
    right = REAL[name]
    volume = require_plausible(read_scan(shared_data / name, right), name)
    with pytest.raises(DataError, match=r"not an? (MR|CT)"):
        require_plausible(volume.with_array(volume.array, "ct" if right == "mr" else "mr"), name)


def test_a_real_ct_whole_cropped_clipped_and_with_offsets(shared_data):
    ct = read_series(shared_data / "ct_gantry_tilt_dicom", "ct", force_geometry=True).volume
    brain = Volume(ct.array[180:330, 200:380], ct.affine, "ct")
    for volume in (ct, brain, ct.with_array(np.maximum(ct.array, -200))):
        require_plausible(volume, "ct")
        for offset in (1000, 1024):
            if volume.array.min() < -900:
                with pytest.raises(DataError, match="subtract 1024"):
                    require_plausible(volume.with_array(volume.array + offset), "ct")
    with pytest.raises(DataError, match="subtract 1024"):
        require_plausible(read_scan(shared_data / "tiny" / "ct_head_coarse.nii.gz", "ct"), "ct")
