"""A picture of what networks make as they train."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from transmodal.core.files import atomic_path

Columns = Mapping[str, Float[Tensor, "b 1 h w"]]

_GAP = 2
_TITLE, _FONT = 16, 12
# As many samples of a batch as a picture has rows.
_ROWS = 8
# Smaller images are enlarged to about this, by whole numbers.
_SIDE = 96
_WHITE = 255


def draw(columns: Columns) -> UInt8[np.ndarray, "height width"]:
    """Images side by side, a column for each title and a row for each sample, the second axis of the images upwards.

    Parameters
    ----------
    columns : dict
        Titles, and images with values from 0 to 1; what lies outside is clipped.
    """
    strips = [_strip(images) for images in columns.values()]
    height, width = strips[0].shape[0] + _TITLE, sum(strip.shape[1] + _GAP for strip in strips)
    picture = Image.new("L", (width, height))
    pen, font, left = ImageDraw.Draw(picture), ImageFont.load_default(_FONT), 0
    for title, strip in zip(columns, strips, strict=True):
        picture.paste(Image.fromarray(strip), (left, _TITLE))
        pen.text((left + 1, 1), title, fill=_WHITE, font=font)
        left += strip.shape[1] + _GAP
    return np.asarray(picture)


def write_png(path: Path, picture: UInt8[np.ndarray, "height width"]) -> None:
    """Write a picture, whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary)


def _strip(images: Float[Tensor, "b 1 h w"]) -> UInt8[np.ndarray, "height width"]:
    """The images below one another."""
    grey = (images[:_ROWS, 0].detach().float().clamp(0, 1) * _WHITE).round().byte().cpu().numpy()
    upright = np.flip(grey.swapaxes(1, 2), axis=1)
    zoom = max(1, round(_SIDE / max(upright.shape[1:])))
    enlarged = upright.repeat(zoom, axis=1).repeat(zoom, axis=2)
    return np.pad(enlarged, ((0, 0), (0, _GAP), (0, 0))).reshape(-1, enlarged.shape[2])
