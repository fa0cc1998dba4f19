"""Losses of generators and discriminators, from the scores that a discriminator gives: one per image or a map of them.

Every loss is a mean over the scores, and no factor of 1/2 is inside. Real is labelled 1 and synthetic 0; with r and s for the scores of
real and synthetic images:

==================  ==================================  ===========================
kind                discriminator                       generator
==================  ==================================  ===========================
``least_squares``   mean (r - 1)² + mean s²             mean (s - 1)²
``cross_entropy``   -mean log σ(r) - mean log(1-σ(s))   -mean log σ(s)
``wasserstein``     mean s - mean r                     -mean s
==================  ==================================  ===========================

- Least squares (Mao et al., "Least squares generative adversarial networks", ICCV 2017): eqs. (1) and (2) of the unpaired CycleGAN paper
  and the first half of eq. (2) of the MR-GAN paper. Eqs. (3) and (4) of the multi-atlas/U-Net/cGAN paper are half of these. Algorithm 1 of
  MR-GAN prints s² for the generator to descend, by which it would learn to be found out; it is taken for (s - 1)².
- Cross-entropy is the negative log-likelihood of the MR-GAN and the FCN/CycleGAN papers; the scores are logits, and the sigmoid σ is
  applied here. The generator does not ascend the discriminator's loss, as MR-GAN prints it, but asks for the label 1, as the
  FCN/CycleGAN paper has it and as the inventors of GANs advise: its gradient does not vanish where the discriminator is sure.
- Wasserstein (Arjovsky, Chintala, Bottou, ICML 2017) is the next step that the FCN/CycleGAN paper names. It needs the gradient penalty.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

Adversarial = Literal["least_squares", "cross_entropy", "wasserstein"]
Scores = Float[Tensor, "b *s"]


def generator_loss(kind: Adversarial, synthetic: Scores) -> Float[Tensor, ""]:
    """How far the discriminator is from taking synthetic images for real, by its scores of them."""
    if kind == "least_squares":
        return (synthetic - 1).square().mean()
    if kind == "cross_entropy":
        return softplus(-synthetic).mean()
    return -synthetic.mean()


def discriminator_loss(kind: Adversarial, real: Scores, synthetic: Scores) -> Float[Tensor, ""]:
    """How far the discriminator is from telling real images from synthetic ones, by its scores of both."""
    if kind == "least_squares":
        return (real - 1).square().mean() + synthetic.square().mean()
    if kind == "cross_entropy":
        return softplus(-real).mean() + softplus(synthetic).mean()
    return synthetic.mean() - real.mean()


def gradient_penalty(
    critic: Callable[[Float[Tensor, "b c h w"]], Scores], real: Float[Tensor, "b c h w"], synthetic: Float[Tensor, "b c h w"]
) -> Float[Tensor, ""]:
    """How far the critic's slope is from 1: ``mean (|∇D(x)|₂ - 1)²`` at random points between real and synthetic images.

    The second term of eq. (3) of Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017, without its weight of 10.

    Parameters
    ----------
    critic : callable
        Gives scores; D of an image is the mean of its scores, as in the loss. It should not normalise over the batch. Of a network that
        Fabric has wrapped, give what is inside (``.module``): in mixed precision the wrapper lets no gradient through but a backward pass.
    real, synthetic : Tensor, shape (b, c, h, w)
        As many of one as of the other. No gradient goes into them.

    Notes
    -----
    The place between each two images is drawn by torch's generator of the CPU, so that it is the same on every device.
    """
    place = torch.rand(len(real), 1, 1, 1).to(real)
    between = torch.lerp(real.detach(), synthetic.detach(), place).requires_grad_()
    total = len(real) * critic(between).mean()  # the sum of D over the images, of which each depends on its own alone
    (slope,) = torch.autograd.grad(total, between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()
