"""Where the head of the template may lie in a scan: the first guess, by the correlation of silhouettes."""

from typing import final

import numpy as np
from jaxtyping import Complex, Float

from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.head_template import Part, Template, share_of
from transmodal.imaging.working_copy import Image, WorkingCopy, field_of_view

Matrix = Float[np.ndarray, "3 3"]

_SEARCH_MM = 16.0
# A silhouette that varies less than this over the field of view tells nothing of where it lies.
_LEAST_SPREAD = 0.02


@final
class HeadSearch:
    """Where a silhouette lies in a scan: at the shift of the largest correlation within the field of view.

    The sums over the field of view are taken at all shifts at once, by Fourier transform.
    """

    def __init__(self, copy: WorkingCopy, template: Template) -> None:
        self.template = template
        self.grid = isotropic_grid(copy.volume.grid, _SEARCH_MM, upright=True)
        inside = field_of_view(copy.volume.grid, self.grid)
        values = np.where(inside, resample(copy.volume, self.grid).array, 0)
        self.total, self.count = float(values.sum()), int(inside.sum())
        largest = np.multiply(template.grid.shape, template.grid.spacing).max()
        self.side = int(np.ceil(largest / _SEARCH_MM))
        self.shape = tuple(-(-(n + self.side) // 8) * 8 for n in self.grid.shape)  # lengths that transform quickly
        self.values, self.inside = self._transform(values), self._transform(inside.astype(float))

    def shift(self, turn: Matrix, part: Part, size: float) -> Float[np.ndarray, "3"]:
        """The shift of a pose of that turn and size, in mm."""
        middle = self.template.grid.center
        offsets = _SEARCH_MM * (np.indices((self.side,) * 3).reshape(3, -1).T - (self.side - 1) / 2)
        silhouette = share_of(self.template.read(middle + offsets @ turn.T / size), part).reshape((self.side,) * 3)
        once, squared = np.conj(self._transform(silhouette)), np.conj(self._transform(silhouette**2))
        spectra = (self.values * once, self.inside * once, self.inside * squared)
        product, there, squares = (np.fft.irfftn(spectrum, self.shape, axes=(0, 1, 2)) for spectrum in spectra)
        spread = np.maximum(squares - there**2 / self.count, _LEAST_SPREAD * self.count)
        best = np.unravel_index(np.argmax((product - self.total * there / self.count) / np.sqrt(spread)), self.shape)
        corner = np.where(np.array(best) < self.grid.shape, best, np.subtract(best, self.shape))
        place = self.grid.to_world(corner + (self.side - 1) / 2)
        return turn @ (place - self.grid.center) - size * middle

    def _transform(self, image: Image) -> Complex[np.ndarray, "u v w"]:
        return np.fft.rfftn(image, self.shape, axes=(0, 1, 2))
