"""The header of a NIfTI-1 file as bytes, for the tests that damage it."""

import struct

# Where the fields of a NIfTI-1 header begin, and their types.
FIELDS = {
    "sizeof_hdr": (0, "i"),
    "dim0": (40, "h"),
    "dim1": (42, "h"),
    "dim2": (44, "h"),
    "dim3": (46, "h"),
    "dim4": (48, "h"),
    "datatype": (70, "h"),
    "qfac": (76, "f"),
    "pixdim1": (80, "f"),
    "pixdim2": (84, "f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern_b": (256, "f"),
    "quatern_c": (260, "f"),
    "qoffset_x": (268, "f"),
    "srow_x0": (280, "f"),
    "srow_x1": (284, "f"),
    "srow_x3": (292, "f"),
}


def set_fields(content: bytearray, **values: float) -> None:
    """Replace fields of a little-endian header in place."""
    for name, value in values.items():
        offset, kind = FIELDS[name]
        struct.pack_into(f"<{kind}", content, offset, value)
