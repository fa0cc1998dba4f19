import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transmodal.core.errors import ConfigError
from transmodal.core.volume import Volume
from transmodal.imaging.scan import read_scan, write_scan
from transmodal.workflows.show import blocks, show


@pytest.fixture
def folder(heads, tmp_path):
    """The scans of a head: its MR, its CT, and a synthetic CT that is 300 HU too low on the left and too high on the right."""
    subject = heads / "Task1" / "brain" / "head0"
    mr, ct = read_scan(subject / "mr.nii.gz", "mr"), read_scan(subject / "ct.nii.gz", "ct")
    write_scan(mr, tmp_path / "mr.nii.gz")
    write_scan(ct, tmp_path / "ct.nii.gz")
    error = np.where(np.arange(ct.shape[0]) < ct.shape[0] / 2, -300, 300).astype(np.int16)
    write_scan(ct.with_array(ct.array.astype(np.int16) + error[:, None, None]), tmp_path / "sct.nii.gz")
    return tmp_path


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_scans_and_errors_stand_beside_one_another(folder):
    show([folder / "mr.nii.gz", folder / "sct.nii.gz"], folder / "all.png", reference=folder / "ct.nii.gz")
    show([folder / "mr.nii.gz"], folder / "one.png")
    everything, one = pixels(folder / "all.png"), pixels(folder / "one.png")
    assert everything.shape[1] == pytest.approx(4 * one.shape[1], abs=8)
    error = everything[: everything.shape[0] // 3, -one.shape[1] :]
    red, blue = error[..., 0] - error[..., 2] > 40, error[..., 2] - error[..., 0] > 40
    columns = np.arange(error.shape[1])
    # Radiological: the left of the patient, where the synthetic CT is too low, is on the right.
    assert np.average(columns, weights=red.sum(axis=0)) > np.average(columns, weights=blue.sum(axis=0)) + 10


def test_a_scan_without_a_telling_name_is_known_by_its_values(folder):
    for name, stem in (("first", "mr"), ("second", "ct")):
        (folder / f"{stem}.nii.gz").rename(folder / f"{name}.nii.gz")
    show([folder / "second.nii.gz"], folder / "named.png", limits=(-100, 100))
    show([folder / "first.nii.gz"], folder / "mr.png", limits=(-100, 100))  # for CTs only
    assert pixels(folder / "named.png").std() > 20 and pixels(folder / "mr.png").std() > 20


def test_other_grids_are_shown_on_that_of_the_first(folder):
    ct = read_scan(folder / "ct.nii.gz", "ct")
    small = Volume(ct.array[::2, ::2, ::2], ct.affine @ np.diag([2.0, 2, 2, 1]), "ct")
    write_scan(small, folder / "other.nii.gz")
    show([folder / "mr.nii.gz", folder / "other.nii.gz"], folder / "out.png")
    show([folder / "mr.nii.gz", folder / "ct.nii.gz"], folder / "same.png")
    difference = np.abs(pixels(folder / "out.png") - pixels(folder / "same.png"))
    assert difference.mean() < 12


def test_what_cannot_be_shown_is_said(folder):
    with pytest.raises(ConfigError, match=r"--out head\.jpg: pictures are written as PNG"):
        show([folder / "mr.nii.gz"], Path("head.jpg"))
    with pytest.raises(ConfigError, match="the output is no terminal; give a picture to write"):
        show([folder / "mr.nii.gz"])
    with pytest.raises(ConfigError, match="--at 900 0 0: not within the first scan"):
        show([folder / "mr.nii.gz"], folder / "out.png", at=(900, 0, 0))
    with pytest.raises(ConfigError, match="--window 400 -100: black comes first"):
        show([folder / "ct.nii.gz"], folder / "out.png", limits=(400, -100))
    assert not (folder / "out.png").exists()


def test_a_terminal_is_given_blocks(folder, monkeypatch):
    image = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 8, 7]]], dtype=np.uint8))
    text = blocks(image, 2)
    assert text.plain == "▀▀\n"
    assert [str(span.style) for span in text.spans] == ["rgb(255,0,0) on rgb(0,0,255)", "rgb(0,255,0) on rgb(9,8,7)"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "textual_image", None)
    show([folder / "mr.nii.gz"])
