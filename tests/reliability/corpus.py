"""Bad input, one row a case: how to make it, and what must come of it.

Each row writes one subject into a folder: ``mr.nii.gz`` (and ``ct``, ``mask``, ``sct`` where it takes several), a DICOM series, or a
recipe or a run. `test_corpus.py` gives it to the real command line.
"""

import gzip
import pickle
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from dicom_series import Edit, image, only, rewritten, straight, write_slices
from nifti_fields import set_fields
from phantoms import phantom, write_subject
from transmodal.core.volume import Volume
from transmodal.imaging.scan import write_scan

Command = Literal["synthesize", "prepare", "evaluate", "train"]


@dataclass(frozen=True)
class Row:
    """One case.

    Parameters
    ----------
    make : callable
        Writes the files into a folder, and returns the file (or folder) that the message must name.
    code : int
        The exit code; 0 where the input is valid and must work.
    word : str
        A pattern in the message.
    command : str
        Which command reads it.
    """

    make: Callable[[Path], Path]
    code: int = 3
    word: str = ""
    command: Command = "synthesize"


VALID = 0
FILE, GEOMETRY, DATA, CONFIG, CHECKPOINT = 3, 4, 5, 6, 7
# Commands that go through several subjects end with this when one of them fails.
SOME_FAILED = 2


@cache
def head() -> dict[str, Volume]:
    """A phantom head; in 16-bit integers, so that the offsets of its file are simple."""
    volumes = phantom(0)
    return {**volumes, "mr": volumes["mr"].with_array(np.rint(volumes["mr"].array).astype(np.int16))}


@cache
def _scan_bytes() -> bytes:
    image = nibabel.Nifti1Image(head()["mr"].array, head()["mr"].affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(head()["mr"].affine, 1)
    image.set_sform(head()["mr"].affine, 1)
    return image.to_bytes()


def _as(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    """The bytes of a good scan, changed."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(change(_scan_bytes()))
        return path

    return make


def _header(**values: float) -> Callable[[Path], Path]:
    """A good scan, with fields of its header replaced."""

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        set_fields(changed, **values)
        return bytes(changed)

    return _as("mr.nii", change)


def _flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :]


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _huge_header(content: bytes) -> bytes:
    changed = bytearray(content)
    set_fields(changed, dim1=1000, dim2=1000, dim3=1000)
    return _packed(bytes(changed))


FILES = {
    "empty": Row(_as("mr.nii.gz", lambda _: b""), FILE, "empty"),
    "short header": Row(_as("mr.nii", lambda data: data[:100]), FILE, "truncated: the header"),
    "truncated data": Row(_as("mr.nii", lambda data: data[:-1000]), FILE, "truncated"),
    "truncated gzip": Row(_as("mr.nii.gz", lambda data: _packed(data)[:-1000]), FILE, "end too early"),
    "bit-flipped gzip": Row(_as("mr.nii.gz", lambda data: _flip(_packed(data), 5000)), FILE, "damaged|truncated"),
    "bad checksum of a gzip": Row(_as("mr.nii.gz", lambda data: _flip(_packed(data), -8)), FILE, "damaged"),
    "gzip bomb behind the voxels": Row(_as("mr.nii.gz", lambda data: _packed(data + bytes(200 << 20))), FILE, "far more data"),
    "gzip bomb in the header": Row(_as("mr.nii.gz", _huge_header), FILE, "1000x1000x1000 voxels need"),
    "uncompressed, named .gz": Row(_as("mr.nii.gz", lambda data: data), FILE, "not gzip-compressed"),
    "web page": Row(_as("mr.nii.gz", lambda _: b"<!DOCTYPE html><html>"), FILE, "web page"),
    "Git LFS pointer": Row(_as("mr.nii.gz", lambda _: b"version https://git-lfs.github.com/spec/v1\n"), FILE, "git lfs pull"),
    "bad magic": Row(_as("mr.nii", lambda data: data[:344] + b"n+9\0" + data[348:]), FILE, "magic"),
}


def _written(name: str, array: np.ndarray, affine: np.ndarray | None = None) -> Callable[[Path], Path]:
    """A scan that another program wrote, of any type."""

    def make(folder: Path) -> Path:
        path = folder / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(array, head()["mr"].affine if affine is None else affine, dtype=array.dtype), path)
        return path

    return make


def _with_voxel(value: float) -> np.ndarray:
    array = head()["mr"].array.astype(np.float32)
    array[20, 24, 22] = value
    return array


def _subject(names: str = "mr ct mask", /, bad: str = "", **changes: Volume) -> Callable[[Path], Path]:
    """A subject of several scans, some replaced; `bad` is the one that the message must name."""

    def make(folder: Path) -> Path:
        write_subject(folder, {**{name: head()[name] for name in names.split()}, **changes})
        return folder / f"{bad}.nii.gz" if bad else folder

    return make


def _shifted(volume: Volume, millimetres: float) -> Volume:
    affine = volume.affine.copy()
    affine[0, 3] += millimetres
    return Volume(volume.array, affine, volume.modality)


def _left_handed(folder: Path) -> Path:
    mr = head()["mr"]
    affine = mr.affine @ np.array([[-1, 0, 0, mr.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    write_scan(Volume(mr.array[::-1], affine, "mr"), folder / "mr.nii.gz")
    return folder / "mr.nii.gz"


def _ct(array: np.ndarray) -> Volume:
    return Volume(array, head()["ct"].affine, "ct")


def _unsigned_ct(folder: Path) -> Path:
    _subject("mr mask")(folder)
    return _written("ct", (head()["ct"].array + 1024).astype(np.uint16))(folder)


_CONSTANT = np.full((40, 48, 44), 7, np.int16)
_NO_MASK = Volume(np.zeros((40, 48, 44), np.uint8), head()["mr"].affine, "mask")

NIFTI = {
    "32767 voxels along each axis": Row(_header(dim1=32767, dim2=32767, dim3=32767), FILE, "32767x32767x32767"),
    "zero voxels along an axis": Row(_header(dim1=0), FILE, "size"),
    "negative voxels along an axis": Row(_header(dim2=-5), FILE, "size"),
    "dim[0] = 9": Row(_header(dim0=9), FILE, r"dim\[0\] = 9"),
    "unknown datatype": Row(_header(datatype=3), FILE, "no datatype 3"),
    "RGB": Row(_header(datatype=128), FILE, "RGB"),
    "complex": Row(_header(datatype=32), FILE, "complex"),
    "four dimensions": Row(_header(dim0=4, dim3=22, dim4=2), FILE, "several volumes"),
    "offset beyond the end": Row(_header(vox_offset=1e6), FILE, "truncated"),
    "offset inside the header": Row(_header(vox_offset=16), FILE, "vox_offset"),
    "offset not a number": Row(_header(vox_offset=np.nan), FILE, "vox_offset"),
    "affine not a number": Row(_header(srow_x0=np.nan), GEOMETRY, "finite"),
    "affine singular": Row(_header(srow_x0=0), GEOMETRY, "singular"),
    "affine sheared": Row(_header(qform_code=0, srow_x1=2.0), GEOMETRY, "sheared"),
    "affine absent": Row(_header(sform_code=0, qform_code=0), GEOMETRY, "no orientation"),
    "sform and qform differ": Row(_header(srow_x3=0), GEOMETRY, "disagree"),
    "metres for millimetres": Row(_header(xyzt_units=1), GEOMETRY, "unit of length"),
    "unknown unit of length": Row(_header(xyzt_units=5), FILE, "unit of length"),
    "slope not a number": Row(_header(scl_slope=np.nan), FILE, "scl_slope"),
    "slope 0, which means unscaled": Row(_header(scl_slope=0), VALID),
    "slope infinite": Row(_header(scl_slope=np.inf), FILE, "scl_slope"),
    "pixdim 0": Row(_header(pixdim1=0), GEOMETRY, "pixdim"),
    "a voxel not a number": Row(_written("mr", _with_voxel(np.nan)), DATA, "NaN or infinite"),
    "a voxel infinite": Row(_written("mr", _with_voxel(np.inf)), DATA, "NaN or infinite"),
    "constant image": Row(_written("mr", _CONSTANT), DATA, "constant"),
    "single slice": Row(_written("mr", head()["mr"].array[:, :, 22:23]), GEOMETRY, "too little of a head"),
    "tiny": Row(_written("mr", head()["mr"].array[20:23, 20:23, 20:23]), GEOMETRY, "too little of a head"),
    "CT given as MR": Row(_written("mr", head()["ct"].array), DATA, "not an MR: .* near -1000"),
    "MR given as CT": Row(_subject(bad="ct", ct=_ct(head()["mr"].array)), SOME_FAILED, "not a CT in HU: .* give an MR as", "prepare"),
    "MR given as CT, scored": Row(_subject(bad="ct", ct=_ct(head()["mr"].array)), SOME_FAILED, "not a CT in HU", "evaluate"),
    "CT on another grid than the MR": Row(_subject(ct=_shifted(head()["ct"], 2)), VALID, command="prepare"),
    "mask on another grid than the MR": Row(_subject(mask=_shifted(head()["mask"], 2)), VALID, command="prepare"),
    "prediction on another grid": Row(_subject(bad="sct", sct=_shifted(head()["ct"], 2)), SOME_FAILED, "different grids", "evaluate"),
    "mask on another grid, scored": Row(_subject(bad="mask", mask=_shifted(head()["mask"], 2)), SOME_FAILED, "different grids", "evaluate"),
    "mask beside the head": Row(_subject(mask=_shifted(head()["mask"], 900)), SOME_FAILED, "mask is empty", "prepare"),
    "empty mask": Row(_subject(mask=_NO_MASK), SOME_FAILED, "mask is empty", "prepare"),
    "CT stored unsigned": Row(_unsigned_ct, SOME_FAILED, "subtract 1024", "prepare"),
    "CT stored with an offset": Row(_subject(bad="ct", ct=_ct(head()["ct"].array + 1000)), SOME_FAILED, "subtract 1024", "prepare"),
    "CT stored with an offset, scored": Row(
        _subject(bad="ct", ct=_ct(head()["ct"].array + 1024)), SOME_FAILED, "subtract 1024", "evaluate"
    ),
    "left-handed axes": Row(_left_handed, VALID),
}


def _dicom(edit: Edit | None = None, **attributes: object) -> Callable[[Path], Path]:
    """An MR of the phantom as a series; an edit bends its slices."""

    def make(folder: Path) -> Path:
        return write_slices(
            folder / "series", head()["mr"].array, straight(44, 4.5), edit, modality="MR", PixelSpacing=["4.5", "4.5"], **attributes
        )

    return make


def _bend(keyword: str, value: object) -> Callable[[Path], Path]:
    return _dicom(only(20, lambda ds: setattr(ds, keyword, value)))


def _drop(keyword: str) -> Callable[[Path], Path]:
    return _dicom(only(20, lambda ds: delattr(ds, keyword)))


def _shrunk(ds: object) -> None:
    ds.Rows = ds.Columns = 4  # type: ignore[attr-defined]
    ds.PixelData = ds.PixelData[:32]  # type: ignore[attr-defined]


def _tilted(ds: object, k: int) -> None:
    ds.ImagePositionPatient = [-10.0, -20.0 + 1.5 * k, 5.0 + 4.5 * k]  # type: ignore[attr-defined]


def _two_series(folder: Path) -> Path:
    for number in (3, 4):
        write_slices(folder / "series" / str(number), head()["mr"].array[:, :, :3], modality="MR", series=str(number), SeriesNumber=number)
    return folder / "series"


def _bytes_of_one(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = _dicom()(folder) / "0014.dcm"
        path.write_bytes(change(path.read_bytes()))
        return path.parent

    return make


def _of_all(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        series = _dicom()(folder)
        for path in series.glob("*.dcm"):
            path.write_bytes(change(path.read_bytes()))
        return series

    return make


def _deflate_bomb(folder: Path) -> Path:
    ds = image(head()["mr"].array[:, :, 0].T, (0, 0, 0), modality="MR")
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = folder / "bomb.dcm"
    ds.save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    (length,) = struct.unpack("<I", data[140:144])
    packer = zlib.compressobj(1, wbits=-15)
    path.write_bytes(data[: 144 + length] + b"".join(packer.compress(bytes(1 << 20)) for _ in range(260)) + packer.flush())
    return path


def _nested(data: bytes) -> bytes:
    at = data.index(b"\x10\x00\x10\x00PN")
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return data[:at] + sequence * 5000 + data[at:]


def _not_dicom(folder: Path) -> Path:
    path = folder / "0001.dcm"
    path.write_text("<html>")
    return path


def _dicomdir(folder: Path) -> Path:
    """A directory of DICOM files that lists one outside of the folder, beside a good series."""
    series = _dicom()(folder)
    ds = image(np.zeros((2, 2)), (0, 0, 0), modality="MR")
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.1.3.10"
    del ds.PixelData
    ds.ReferencedFileID = ["UP", "UP", "SECRET"]
    ds.save_as(series / "DICOMDIR", enforce_file_format=False, implicit_vr=False, little_endian=True)
    (series / "DICOMDIR").write_bytes((series / "DICOMDIR").read_bytes().replace(b"UP\\UP", b"..\\.."))
    return series


def _big_endian(folder: Path) -> Path:
    return rewritten(_dicom()(folder), ExplicitVRBigEndian)


DICOM = {
    "missing slice": Row(_dicom(lambda ds, k: k != 20), GEOMETRY, "missing slice"),
    "duplicate slice": Row(_bend("ImagePositionPatient", [-10, -20, 5 + 19 * 4.5]), GEOMETRY, "lie where another one does"),
    "gantry tilt": Row(_dicom(_tilted), GEOMETRY, "gantry tilt"),
    "uneven spacing": Row(_bend("ImagePositionPatient", [-10, -20, 5 + 20 * 4.5 + 1]), GEOMETRY, "uneven gaps"),
    "two series that would do": Row(_two_series, DATA, "choose one by its number or UID"),
    "two echoes in one series": Row(_bend("EchoTime", "30"), DATA, "EchoTime"),
    "two sizes": Row(_dicom(only(20, _shrunk)), GEOMETRY, "different sizes"),
    "two pixel spacings": Row(_bend("PixelSpacing", [4.5, 4.0]), GEOMETRY, "different pixel spacings"),
    "localizer mixed in": Row(_bend("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), DATA, "a localizer"),
    "position missing": Row(_drop("ImagePositionPatient"), GEOMETRY, "ImagePositionPatient"),
    "position not a number": Row(_bytes_of_one(lambda data: data.replace(b"-10\\-20", b"nan\\-20")), GEOMETRY, "ImagePositionPatient"),
    "parallel cosines": Row(_bend("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), GEOMETRY, "unit vectors at right angles"),
    "zero spacing": Row(_bend("PixelSpacing", [0, 0]), GEOMETRY, "must be positive"),
    "truncated pixels": Row(_bytes_of_one(lambda data: data[:-500]), FILE, "truncated"),
    "Rows 65535": Row(_dicom(only(20, lambda ds: (setattr(ds, "Rows", 65535), setattr(ds, "Columns", 65535)))), FILE, "the header"),
    "NumberOfFrames 100000": Row(_bend("NumberOfFrames", "100000"), FILE, "truncated, or its header is damaged"),
    "no PixelData": Row(_drop("PixelData"), FILE, "without pixel data"),
    "no preamble": Row(_of_all(lambda data: data[132:]), VALID),
    "not DICOM": Row(_not_dicom, FILE, "not read|no DICOM"),
    "unknown syntax": Row(
        _of_all(lambda data: data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.3.4.5.6.7.8.9.1\0")), FILE, "unknown or retired"
    ),
    "lossy": Row(_bend("LossyImageCompression", "01"), DATA, "lossy"),
    "big-endian syntax": Row(_big_endian, FILE, "unknown or retired"),
    "deflate bomb": Row(_deflate_bomb, FILE, "inflates to more than"),
    "sequences 5000 deep": Row(_bytes_of_one(_nested), FILE, "nested too deep"),
    "hostile PatientName": Row(_dicom(PatientName="../../<script>"), VALID),
    "bad character set": Row(_of_all(lambda data: data.replace(b"ISO_IR 100", b"nonsense!!")), VALID),
    "DICOMDIR that points outside": Row(_dicomdir, VALID),
    "two patients": Row(_bend("PatientID", "P2"), DATA, "PatientID"),
}


class Bomb:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("the-pickle-was-run"),)


def _run_with(change: Callable[[Path], None]) -> Callable[[Path], Path]:
    """The run, which the caller has put into the folder, with its weights changed."""

    def make(folder: Path) -> Path:
        _named("mr")(folder)
        change(folder / "run" / "weights.safetensors")
        return folder / "run" / "weights.safetensors"

    return make


def _other_weights(path: Path) -> None:
    import torch

    from transmodal.engine.checkpoint import save_tree

    save_tree(path, {"generator": {"weight": torch.zeros(3)}})


def _recipe(old: str, new: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from importlib.resources import files

        text = (files("transmodal") / "recipes" / "unet2d-quick.toml").read_text()
        assert old in text
        (folder / "mine.toml").write_text(text.replace(old, new))
        return folder / "mine.toml"

    return make


def _named(stem: str, parent: str = "") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / parent / f"{stem}.nii.gz"
        write_scan(head()["mr"], path)
        return path

    return make


def _link_to_itself(folder: Path) -> Path:
    (folder / "mr.nii.gz").symlink_to("mr.nii.gz")
    return folder / "mr.nii.gz"


def _loop_beside_scans(folder: Path) -> Path:
    (folder / "again").symlink_to(folder, target_is_directory=True)
    return _subject()(folder)


OTHER = {
    "pickle for weights": Row(
        _run_with(lambda path: path.write_bytes(pickle.dumps({"medians": Bomb()})) and None), CHECKPOINT, "missing, damaged, or not a file"
    ),
    "weights of another architecture": Row(_run_with(_other_weights), CHECKPOINT, "another architecture"),
    "truncated weights": Row(_run_with(lambda path: path.write_bytes(path.read_bytes()[:-4]) and None), CHECKPOINT, "damaged"),
    "recipe with an unknown table": Row(
        _recipe("[train]", "[training]\nepochs = 3\n\n[train]"), CONFIG, "training: there is no such", "train"
    ),
    "recipe with a misspelt key": Row(_recipe("batch_size", "batchsize"), CONFIG, "batchsize: there is no such setting", "train"),
    "recipe with a wrong type": Row(_recipe("steps = 600", 'steps = "many"'), CONFIG, "train.steps = 'many'", "train"),
    "recipe with an impossible value": Row(_recipe("steps = 600", "steps = -1"), CONFIG, "train.steps = -1", "train"),
    "recipe that is no TOML": Row(_recipe("[train]", "[train"), CONFIG, "not valid TOML", "train"),
    "link to itself": Row(_link_to_itself, FILE, "no such file"),
    "loop of links beside scans": Row(_loop_beside_scans, VALID, command="prepare"),
    "name with spaces": Row(_named("my mr of  today", "a folder"), VALID),
    "name in Unicode": Row(_named("頭部 tête [é]*", "Ærø ß"), VALID),
    "name of 200 characters": Row(_named("x" * 193, "y" * 200), VALID),
    "subject in spaces and Unicode": Row(_named("mr", "頭 ß [1]*"), VALID, command="prepare"),
    "subject of 200 characters": Row(_named("mr", "s" * 200), VALID, command="prepare"),
}

KINDS = {"files": FILES, "NIfTI": NIFTI, "DICOM": DICOM, "checkpoints, recipes, names": OTHER}
CORPUS = {f"{kind}: {name}": row for kind, rows in KINDS.items() for name, row in rows.items()}
