"""A synthetic CT as DICOM, judged and read by the programs that hospitals use. See install.sh for how to get them."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy.spatial.transform import Rotation

from dicom_series import straight, write_slices
from transmodal.core.volume import Volume
from transmodal.imaging.dicom_read import DicomScan, read_series
from transmodal.imaging.dicom_write import write_series
from transmodal.imaging.grid import canonical
from transmodal.imaging.itk import from_itk
from transmodal.imaging.scan import read_scan

pytestmark = pytest.mark.integration

SHAPE = (32, 24, 12)
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
OBLIQUE = Rotation.from_euler("xyz", [20, -15, 8], degrees=True).as_matrix()[:, :2].T.ravel().round(7)
PLANES = {"axial": (1, 0, 0, 0, 1, 0), "sagittal": (0, 1, 0, 0, 0, -1), "oblique": tuple(OBLIQUE)}


def need(*programs: str) -> None:
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)} (tests/integration/install.sh)")


def run(*words: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(params=PLANES)
def scan(request, tmp_path) -> DicomScan:
    array = np.random.default_rng(1).integers(0, 3000, SHAPE).astype(np.int16)
    cosines = PLANES[request.param]
    folder = write_slices(tmp_path / "mr", array, straight(SHAPE[2], 1.3, cosines), modality="MR", ImageOrientationPatient=list(cosines))
    return read_series(folder, "mr")


@pytest.fixture
def ct(scan) -> Volume:
    return scan.volume.with_array((scan.volume.array - 1000).astype(np.int16), "ct")


@pytest.fixture
def series(scan, ct, tmp_path) -> Path:
    return write_series(ct, scan, tmp_path / "sct", description="Synthetic CT", software="transmodal 0", model_hash="c0ffee" * 10)


def assert_same(found: Volume, expected: Volume) -> None:
    found, expected = canonical(found), canonical(expected)
    assert np.abs(found.grid.corners() - expected.grid.corners()).max() < 1e-3
    np.testing.assert_array_equal(found.array, expected.array)


def faults(text: str) -> list[str]:
    """Both programs print faults, and may end with 0 all the same."""
    return [line for line in text.splitlines() if "Error" in line]


def test_dciodvfy(series):
    need("dciodvfy")
    for path in series.iterdir():
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert "CTImage" in done.stderr
        assert faults(done.stdout + done.stderr) == []


def test_dciodvfy_would_say_what_is_missing(series):
    need("dciodvfy")
    path = series / "00001.dcm"
    ds = pydicom.dcmread(path)
    del ds.KVP
    ds.save_as(path)
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    assert any("KVP" in line for line in faults(done.stdout + done.stderr))


def test_dciodvfy_of_a_synthetic_mr(scan, tmp_path):
    need("dciodvfy")
    out = write_series(scan.volume, scan, tmp_path / "smr", description="Synthetic MR", software="transmodal 0", model_hash="0" * 64)
    done = subprocess.run(["dciodvfy", out / "00001.dcm"], capture_output=True, text=True, check=False)
    assert "MRImage" in done.stderr
    assert faults(done.stdout + done.stderr) == []


def test_dcentvfy(series, tmp_path):
    """The synthetic series and its source agree about patient, study and frame of reference."""
    need("dcentvfy")
    done = subprocess.run(["dcentvfy", *series.iterdir(), *(tmp_path / "mr").iterdir()], capture_output=True, text=True, check=False)
    assert faults(done.stdout + done.stderr) == []


def test_simpleitk(series, ct):
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    assert_same(Volume(*from_itk(reader.Execute()), "ct"), ct)


def test_dcm2niix(series, ct, tmp_path):
    need("dcm2niix")
    (tmp_path / "nii").mkdir()
    run("dcm2niix", "-o", tmp_path / "nii", "-f", "sct", series)
    assert_same(read_scan(tmp_path / "nii" / "sct.nii", "ct"), ct)


def test_plastimatch(series, ct, tmp_path):
    need("plastimatch")
    run("plastimatch", "convert", "--input", series, "--output-img", tmp_path / "sct.mha", "--output-type", "short")
    assert_same(read_scan(tmp_path / "sct.mha", "ct"), ct)


def test_storescu_to_storescp(series, ct, tmp_path):
    need("storescu", "storescp")
    received = tmp_path / "received"
    received.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(["storescp", "--output-directory", received, "--socket-timeout", "20", str(port)])
    try:
        time.sleep(1)
        run("storescu", "+sd", "127.0.0.1", port, series)
    finally:
        server.terminate()
        server.wait(10)
    assert_same(read_series(received, "ct").volume, ct)


def test_orthanc_by_c_store_and_dicomweb(series, ct, tmp_path):
    need("Orthanc", "storescu", "unshare", "ip")
    if not PLUGIN.is_file():
        pytest.skip(f"not installed: {PLUGIN} (tests/integration/install.sh)")
    if subprocess.run(["unshare", "--net", "--map-root-user", "true"], check=False).returncode:
        pytest.skip("a network of its own (unshare --net) is not allowed here")
    back, work = tmp_path / "back", tmp_path / "work"
    back.mkdir()
    work.mkdir()
    script = Path(__file__).with_name("orthanc_round_trip.py")
    run("unshare", "--net", "--map-root-user", sys.executable, script, series, back, work, PLUGIN)
    assert_same(read_series(back, "ct").volume, ct)
    sent = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, series.iterdir())}
    for ds in map(pydicom.dcmread, back.iterdir()):
        assert ds == sent.pop(ds.SOPInstanceUID)
    assert not sent
