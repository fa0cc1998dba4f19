"""Scan files that are damaged, hostile, or of something other than what they are said to be."""

import gzip
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel
import numpy as np

from nifti_fields import set_fields
from reliability.rows import DATA, FILE, GEOMETRY, SOME_FAILED, VALID, Make, Row, head, subject
from transmodal.core.volume import Volume
from transmodal.imaging.scan import write_scan


@cache
def _scan_bytes() -> bytes:
    image = nibabel.Nifti1Image(head()["mr"].array, head()["mr"].affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(head()["mr"].affine, 1)
    image.set_sform(head()["mr"].affine, 1)
    return image.to_bytes()


def _as(name: str, change: Callable[[bytes], bytes]) -> Make:
    """The bytes of a good scan, changed."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(change(_scan_bytes()))
        return path

    return make


def _header(**values: float) -> Make:
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


def _written(name: str, array: np.ndarray, affine: np.ndarray | None = None) -> Make:
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
    subject("mr mask")(folder)
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
    "MR given as CT": Row(subject(bad="ct", ct=_ct(head()["mr"].array)), SOME_FAILED, "not a CT in HU: .* give an MR as", "prepare"),
    "MR given as CT, scored": Row(subject(bad="ct", ct=_ct(head()["mr"].array)), SOME_FAILED, "not a CT in HU", "evaluate"),
    "CT on another grid than the MR": Row(subject(ct=_shifted(head()["ct"], 2)), VALID, command="prepare"),
    "mask on another grid than the MR": Row(subject(mask=_shifted(head()["mask"], 2)), VALID, command="prepare"),
    "prediction on another grid": Row(subject(bad="sct", sct=_shifted(head()["ct"], 2)), SOME_FAILED, "different grids", "evaluate"),
    "mask on another grid, scored": Row(subject(bad="mask", mask=_shifted(head()["mask"], 2)), SOME_FAILED, "different grids", "evaluate"),
    "mask beside the head": Row(subject(mask=_shifted(head()["mask"], 900)), SOME_FAILED, "mask is empty", "prepare"),
    "empty mask": Row(subject(mask=_NO_MASK), SOME_FAILED, "mask is empty", "prepare"),
    "CT stored unsigned": Row(_unsigned_ct, SOME_FAILED, "subtract 1024", "prepare"),
    "CT stored with an offset": Row(subject(bad="ct", ct=_ct(head()["ct"].array + 1000)), SOME_FAILED, "subtract 1024", "prepare"),
    "CT stored with an offset, scored": Row(subject(bad="ct", ct=_ct(head()["ct"].array + 1024)), SOME_FAILED, "subtract 1024", "evaluate"),
    "left-handed axes": Row(_left_handed, VALID),
}
