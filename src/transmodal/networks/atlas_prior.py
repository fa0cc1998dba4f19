"""The bone-weighted sum of a network's CT and that of atlases: section 2.4 of the multi-atlas/U-Net/cGAN paper, eqs. (5) to (7).

Where the atlases have bone, and around it, the network makes the CT; elsewhere mostly the atlases do.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

Image = Float[Tensor, "b 1 *s"]


@dataclass(frozen=True)
class Weighting:
    """How the network and the atlases are weighted, from some step of the training on.

    Parameters
    ----------
    channel : int
        Which of the smoothed bone masks is taken.
    threshold : float
        t of eq. (6), in (0, 1].
    alpha, beta : float
        Of eq. (7), for the network: W1 = alpha W_bone + beta.
    atlas_alpha, atlas_beta : float
        The same for the atlases, W2; -alpha and 1 - beta make it the complement of W1.
    """

    channel: int
    threshold: float
    alpha: float
    beta: float
    atlas_alpha: float
    atlas_beta: float


class BoneWeighted(nn.Module):
    """The weighted sum of a network's CT and that of the atlases: S = W1 S_DNN + W2 S_atlas, eq. (5).

    Parameters
    ----------
    network : Module
        From MR channels, or from these, the atlas CT and W1, to one CT channel.
    channels : int
        MR channels.
    schedule : dict
        The weighting by the step of the training from which it holds, from 0 on.
    zero : float
        What is added up counts from here: the network unit of the lowest HU, which is 0 in the paper's images.
    informed : bool
        Whether the network sees the atlas CT and W1 as well, without which it cannot know where the borders of the weights are.
    """

    def __init__(
        self, network: nn.Module, channels: int, schedule: dict[int, Weighting], zero: float = -1.0, informed: bool = False
    ) -> None:
        super().__init__()
        self.network, self.channels, self.zero, self.informed = network, channels, zero, informed
        self.schedule = dict(sorted(schedule.items()))
        self.stride = getattr(network, "stride", 1)
        # It travels with the weights, so that prediction weighs as training did when they were kept.
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.step: Tensor

    @property
    def weighting(self) -> Weighting:
        """The one that holds now."""
        return [weighting for start, weighting in self.schedule.items() if start <= int(self.step)][-1]

    def forward(self, inputs: Float[Tensor, "b c *s"]) -> Image:
        """The CT for MR channels, the atlas CT, and the smoothed bone masks, in this order."""
        now = self.weighting
        image, atlas, bones = inputs[:, : self.channels], inputs[:, self.channels, None], inputs[:, self.channels + 1 :]
        bone = saturate(bones[:, now.channel, None], now.threshold)
        ours, theirs = now.alpha * bone + now.beta, now.atlas_alpha * bone + now.atlas_beta
        made = self.network(torch.cat([image, atlas, ours], dim=1) if self.informed else image)
        if self.training:
            self.step += 1
        return ours * (made.float() - self.zero) + theirs * (atlas - self.zero) + self.zero


def saturate(bone: Image, threshold: float) -> Image:
    """W_bone of eq. (6): a smoothed bone mask, as a share of a threshold below it and 1 above."""
    return (bone / threshold).clamp(max=1)
