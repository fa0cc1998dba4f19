from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_series import enhanced_mr, straight, write_slices
from transmodal.core.errors import DataError, FileError, GeometryError
from transmodal.core.volume import Volume
from transmodal.imaging.dicom_read import read_series
from transmodal.imaging.dicom_write import NOT_DIAGNOSTIC, write_series

SHAPE = (7, 6, 5)
PATIENT = ["PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientPosition"]
STUDY = ["StudyInstanceUID", "StudyID", "StudyDate", "AccessionNumber", "ReferringPhysicianName"]
COPIED = PATIENT + STUDY
PLACES = ["FrameOfReferenceUID", "PositionReferenceIndicator", "BodyPartExamined", "ImagePositionPatient", "ImageOrientationPatient"]
PLACES += ["PixelSpacing", "SliceThickness"]
# What makes planning systems refuse an import when it is absent or empty.
NEVER_EMPTY = ["StudyID", "ReferringPhysicianName", "PositionReferenceIndicator", "SeriesNumber", "KVP", "PatientName", "PatientID"]
MODEL = "0123456789abcdef" * 4


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 2000, SHAPE).astype(np.int16)


def write(volume, scan, out):
    return write_series(volume, scan, out, description="Synthetic CT", software="transmodal 0", model_hash=MODEL)


def images(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


@pytest.fixture
def mr(array, tmp_path):
    return read_series(write_slices(tmp_path / "mr", array, modality="MR", EchoTime="3"), "mr")


def test_what_is_written_is_read_back(mr, array, tmp_path):
    ct = mr.volume.with_array(array * 1.0 - 1000.4, "ct")
    out = write(ct, mr, tmp_path / "out" / "sct")
    back = read_series(out, "ct")
    np.testing.assert_array_equal(back.volume.array, array - 1000)
    np.testing.assert_array_equal(back.volume.affine, mr.volume.affine)
    assert sorted(path.name for path in out.iterdir()) == [f"{k:05d}.dcm" for k in range(1, 6)]
    assert [path.name for path in out.parent.iterdir()] == ["sct"]


def test_identity_is_copied_and_the_series_is_new(mr, tmp_path):
    sources = {tuple(ds.ImagePositionPatient): ds for ds in images(tmp_path / "mr")}
    made = images(write(mr.volume.with_array(mr.volume.array, "ct"), mr, tmp_path / "sct"))
    for ds in made:
        source = sources[tuple(ds.ImagePositionPatient)]
        for keyword in COPIED + PLACES:
            assert ds[keyword].value == source[keyword].value, keyword
        (item,) = ds.SourceImageSequence
        assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (source.SOPClassUID, source.SOPInstanceUID)
        (series,) = ds.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == source.SeriesInstanceUID
        assert len(series.ReferencedInstanceSequence) == SHAPE[2]
        assert ds.preamble == bytes(128)
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert len({ds.SOPInstanceUID for ds in [*made, *sources.values()]}) == 2 * SHAPE[2]
    assert {ds.SeriesInstanceUID for ds in made}.isdisjoint(ds.SeriesInstanceUID for ds in sources.values())


def test_the_attributes_of_a_synthetic_ct(mr, tmp_path):
    ds = images(write(mr.volume.with_array(mr.volume.array, "ct"), mr, tmp_path / "sct"))[2]
    expected = {
        "Modality": "CT",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "SeriesNumber": 1003,
        "InstanceNumber": 3,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "RescaleType": "HU",
        "BitsAllocated": 16,
        "PixelRepresentation": 1,
        "AcquisitionNumber": 1,
        "BurnedInAnnotation": "NO",
        "SoftwareVersions": [MODEL, "transmodal 0"],
        "SeriesDescription": f"Synthetic CT - {NOT_DIAGNOSTIC}",
    }
    assert {keyword: ds[keyword].value for keyword in expected} == expected
    assert ds.KVP
    assert ds.ImageComments.startswith(NOT_DIAGNOSTIC)
    assert MODEL in ds.DerivationDescription


def test_what_the_source_does_not_say_is_never_empty(array, tmp_path):
    gone = [*COPIED, "PositionReferenceIndicator", "FrameOfReferenceUID", "BodyPartExamined", "SeriesNumber", "SliceThickness"]
    folder = write_slices(tmp_path / "mr", array, modality="MR", edit=lambda ds, k: [delattr(ds, word) for word in gone])
    mr = read_series(folder, "mr")
    made = images(write(mr.volume.with_array(array, "ct"), mr, tmp_path / "sct"))
    needed = [*NEVER_EMPTY, "StudyInstanceUID", "FrameOfReferenceUID", "SliceThickness"]
    assert [word for ds in made for word in needed if ds[word].value in (None, "")] == []
    assert len({(ds.FrameOfReferenceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID) for ds in made}) == 1


def test_attributes_that_cannot_be_read_are_left_out(array, tmp_path):
    folder = write_slices(tmp_path / "mr", array, modality="MR", PatientWeight="77.777", PatientAge="012Y", SeriesNumber="123456")
    for path in folder.iterdir():
        bent = path.read_bytes().replace(b"77.777", b"heavy!").replace(b"012Y", b"old?").replace(b"Doe^Jo", b"D\xffe^Jo")
        path.write_bytes(bent.replace(b"ISO_IR 100", b"ISO_IR 999"))
    mr = read_series(folder, "mr")
    made = images(write(mr.volume.with_array(array, "ct"), mr, tmp_path / "sct"))
    assert all("PatientWeight" not in ds and str(ds.PatientName).startswith("D") for ds in made)
    assert made[0].SeriesNumber == 124456


@settings(max_examples=20, deadline=None)
@given(name=st.text(st.characters(exclude_categories=["C"], exclude_characters="\\^="), max_size=20))
def test_no_name_becomes_a_path_and_every_name_comes_back(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    name = name.strip() or "../../x"
    array = np.zeros((2, 2, 2), np.int16)
    write_slices(folder / "mr", array, modality="MR", SpecificCharacterSet="ISO_IR 192", PatientName=name, PatientID="../../y")
    mr = read_series(folder / "mr", "mr")
    made = images(write(mr.volume.with_array(array, "ct"), mr, folder / "sct"))
    assert [str(ds.PatientName) for ds in made] == [name] * 2
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.dcm"))[2:] == ["sct/00001.dcm", "sct/00002.dcm"]


@settings(max_examples=20, deadline=None)
@given(position=st.tuples(*[st.floats(-1e3, 1e3)] * 3))
def test_decimal_strings_have_at_most_16_characters(position, tmp_path_factory):
    folder = tmp_path_factory.mktemp("decimals")
    array = np.zeros((2, 2, 2), np.int16)
    tilt = np.radians(17.123456789)
    cosines = [1, 0, 0, 0, float(f"{np.cos(tilt):.13f}"), float(f"{np.sin(tilt):.13f}")]
    positions = straight(2, 1.23456, cosines, position)
    write_slices(folder / "mr", array, positions, modality="MR", ImageOrientationPatient=cosines)
    mr = read_series(folder / "mr", "mr")
    for path in write(mr.volume.with_array(array, "ct"), mr, folder / "sct").iterdir():
        ds = pydicom.dcmread(path)
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            assert max(len(str(value)) for value in ds[keyword].value) <= 16
    assert read_series(folder / "sct", "ct").volume.grid.matches(mr.volume.grid)


def test_values_beyond_16_bits_are_clipped(mr, tmp_path):
    array = np.full(SHAPE, 1e6)
    array[0] = -1e6
    back = read_series(write(mr.volume.with_array(array, "ct"), mr, tmp_path / "sct"), "ct").volume.array
    assert (back.min(), back.max()) == (-32768, 32767)


def test_a_synthetic_mr_fills_the_usual_range(array, tmp_path):
    ct = read_series(write_slices(tmp_path / "ct", array), "ct")
    made = images(write(ct.volume.with_array(array / 4000, "mr"), ct, tmp_path / "smr"))
    assert made[0].SOPClassUID == "1.2.840.10008.5.1.4.1.1.4"
    back = read_series(tmp_path / "smr", "mr").volume
    np.testing.assert_allclose(back.array, array * (4095 / array.max()), atol=0.51)
    assert back.grid.matches(ct.volume.grid)


def test_frames_of_an_enhanced_source_are_referenced(array, tmp_path):
    enhanced_mr(array, straight(5), (3, 0, 4, 1, 2)).save_as(tmp_path / "e.dcm", enforce_file_format=True)
    mr = read_series(tmp_path / "e.dcm", "mr")
    made = images(write(mr.volume.with_array(array, "ct"), mr, tmp_path / "sct"))
    assert [ds.SourceImageSequence[0].ReferencedFrameNumber for ds in made] == [2, 4, 5, 1, 3]
    assert read_series(tmp_path / "sct", "ct").volume.grid.matches(mr.volume.grid)


def test_a_forced_source_gives_slices_on_the_regular_grid(array, tmp_path):
    def tilted(ds, k):
        ds.ImagePositionPatient = [-10.0, -20.0 + 0.7 * k, 5.0 + 2 * k]

    ct = read_series(write_slices(tmp_path / "ct", array, edit=tilted), "ct", force_geometry=True)
    made = images(write(ct.volume, ct, tmp_path / "out"))
    assert all(len(ds.SourceImageSequence) == SHAPE[2] for ds in made)
    back = read_series(tmp_path / "out", "ct")
    assert back.volume.grid.matches(ct.volume.grid)
    np.testing.assert_array_equal(back.volume.array, np.rint(ct.volume.array))


def test_nothing_is_replaced_or_left_half_done(mr, array, tmp_path, monkeypatch):
    ct = mr.volume.with_array(array, "ct")
    out = tmp_path / "sct"
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(FileError, match="there is something already; name a new folder"):
        write(ct, mr, out)
    monkeypatch.setattr(pydicom.Dataset, "save_as", fails_at(3))
    with pytest.raises(FileError, match="No space left"):
        write(ct, mr, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mr", "sct"]


def fails_at(number):
    save = pydicom.Dataset.save_as

    def save_as(ds, *words, **options):
        if ds.InstanceNumber == number:
            raise OSError(28, "No space left on device")
        return save(ds, *words, **options)

    return save_as


def test_what_is_refused(mr, array, tmp_path):
    other = Volume(array, np.diag([1.0, 1.0, 1.0, 1.0]), "ct")
    with pytest.raises(GeometryError, match="not on the grid of its reference"):
        write(other, mr, tmp_path / "sct")
    with pytest.raises(DataError, match="a mask volume is no DICOM image"):
        write(mr.volume.with_array(array > 0, "mask"), mr, tmp_path / "sct")
    with pytest.raises(DataError, match="NaN or infinite"):
        write(mr.volume.with_array(np.full(SHAPE, np.nan), "ct"), mr, tmp_path / "sct")
    assert not (tmp_path / "sct").exists()
