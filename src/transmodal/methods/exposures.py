"""Several exposures of one scan, and one CT of what a network makes of them.

Air, bone and fluid share the darkest part of most MRs. In a dark exposure a network tells air from bone, but loses the bone that is
darkest; in a bright one it finds that bone, and takes air for bone. Both are made, and each is believed where it is right.
"""

import numpy as np
from jaxtyping import Float
from pydantic import Field

from transmodal.core.config import Config
from transmodal.engine.predict import Setting

# Half air, half soft tissue.
AIR_HU = -500.0


class Exposure(Config):
    """How bright an MR is shown; see `transmodal.imaging.intensity.PercentileIntensity`."""

    black_point: float = Field(default=0.0, ge=0, lt=1)
    power: float = Field(gt=0)

    def of(self, setting: Setting) -> Setting:
        """The same setting, with MRs, which are scaled by percentiles, shown so."""
        mr = setting.intensity["mr"].model_copy(update=self.model_dump())
        return setting.model_copy(update={"intensity": {**setting.intensity, "mr": mr}})


def fuse(dark: Float[np.ndarray, "x y z"], *brighter: Float[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
    """One CT of several, in HU: air where the dark exposure shows it, and elsewhere the densest of what all of them show."""
    return np.where(dark < AIR_HU, dark, np.maximum.reduce([dark, *brighter]))
