"""Past synthetic images, which a discriminator is shown beside the latest ones."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

_IMAGES = "images"


class ImagePool:
    """A pool of synthetic images, so that a discriminator does not forget what the generator used to do.

    Section 2.3 of Shrivastava et al., "Learning from simulated and unsupervised images through adversarial training", CVPR 2017, in the
    way of CycleGAN, whose pool holds 50: while it fills, every image is kept and given back; from then on each image is, with a
    probability of 1/2, exchanged for a random one of the pool, whose place it takes.

    It draws from torch's generator of the CPU, so that the seed of a training step decides, on every device.

    Parameters
    ----------
    size : int
        How many images it holds; with 0 it gives back what it gets.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._images: list[Float[Tensor, "c h w"]] = []

    def exchange(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """As many images as are given, some of them from the past; without the graph of their making."""
        images = images.detach()
        return torch.stack([self._exchange(image) for image in images]) if self.size else images

    def _exchange(self, image: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        full = len(self._images) >= self.size
        if full and torch.rand(()) < 0.5:
            return image
        # A copy, for what is kept must not keep the rest of its batch; contiguous, as it is when it comes back from a file.
        kept = image.clone(memory_format=torch.contiguous_format)
        if not full:
            self._images.append(kept)
            return image
        place = int(torch.randint(self.size, ()))
        past, self._images[place] = self._images[place], kept
        return past.to(image.device)

    def state(self) -> dict[str, Tensor]:
        """The images of the pool, in their order; their number is how full it is."""
        # Those that came from a file are on the CPU, whatever the others are on.
        return {_IMAGES: torch.stack([image.cpu() for image in self._images]) if self._images else torch.empty(0)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self._images = list(state[_IMAGES].unbind())
