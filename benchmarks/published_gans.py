"""CycleGAN and MR-GAN written plainly in PyTorch from their papers, beside which `gan_steps.py` times the package's.

The networks have the sizes of the papers, and their parameters come in the order of the package's, so that weights can be copied across.
The algorithms are read as the package reads them (see `transmodal.methods.cyclegan` and `transmodal.methods.mrgan`): no loss is halved, and
MR-GAN's discriminators descend. Everything is kept as PyTorch has it when it is told nothing; only `bf16` changes that.
"""

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Losses = dict[str, Tensor]
POOL_SIZE = 50
CYCLE_WEIGHT, VOXEL_WEIGHT = 10, 100


class ResidualBlock(nn.Module):
    """Of the generator."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Add to what goes in."""
        return features + self.layers(features)


def generator() -> nn.Module:
    """Of nine residual blocks."""
    return nn.Sequential(
        nn.ReflectionPad2d(3),
        nn.Conv2d(1, 64, 7),
        nn.InstanceNorm2d(64),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 128, 3, stride=2, padding=1),
        nn.InstanceNorm2d(128),
        nn.ReLU(inplace=True),
        nn.Conv2d(128, 256, 3, stride=2, padding=1),
        nn.InstanceNorm2d(256),
        nn.ReLU(inplace=True),
        *(ResidualBlock(256) for _ in range(9)),
        nn.ConvTranspose2d(256, 128, 3, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm2d(128),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(128, 64, 3, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm2d(64),
        nn.ReLU(inplace=True),
        nn.ReflectionPad2d(3),
        nn.Conv2d(64, 1, 7),
        nn.Tanh(),
    )


def convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """Of a discriminator, between the first and the last."""
    return [nn.Conv2d(inputs, outputs, 4, stride, padding=1), nn.InstanceNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]


def patch_discriminator() -> nn.Module:
    """Of patches of 70x70 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2, inplace=True),
        *convolution(64, 128, 2),
        *convolution(128, 256, 2),
        *convolution(256, 512, 1),
        nn.Conv2d(512, 1, 4, padding=1),
    )


class DualDiscriminator(nn.Module):
    """D1 of MR-GAN."""

    def __init__(self) -> None:
        super().__init__()
        self.unpaired_head = nn.Conv2d(1, 64, 4, padding=1)
        self.paired_head = nn.Conv2d(2, 64, 4, padding=1)
        layers = [layer for sizes in ((64, 64), (64, 128), (128, 256), (256, 512)) for layer in convolution(*sizes, stride=2)]
        self.trunk = nn.Sequential(*layers)
        self.unpaired_tail = nn.Sequential(*convolution(512, 512, 1), nn.Conv2d(512, 1, 4, padding=1))
        self.paired_tail = nn.Sequential(*convolution(512, 512, 1), nn.Conv2d(512, 1, 4, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Score single images, or pairs by their two channels."""
        if image.shape[1] == 1:
            return self.unpaired_tail(self.trunk(self.unpaired_head(image)))
        return self.paired_tail(self.trunk(self.paired_head(image)))


class Pool:
    """Past synthetic images."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []

    def exchange(self, batch: Tensor) -> Tensor:
        """Some of these, and some of the past."""
        shown = []
        for image in batch.detach():
            if len(self.images) < POOL_SIZE:
                self.images.append(image.clone())
                shown.append(image)
            elif random.random() < 0.5:
                place = random.randrange(POOL_SIZE)
                shown.append(self.images[place])
                self.images[place] = image.clone()
            else:
                shown.append(image)
        return torch.stack(shown)


class Published:
    """Two generators and two discriminators, by the names that the package gives them."""

    def __init__(self, discriminators: tuple[nn.Module, nn.Module], bf16: bool) -> None:
        self.bf16 = bf16
        self.networks = nn.ModuleDict(
            {
                "generator_mr2ct": generator(),
                "generator_ct2mr": generator(),
                "discriminator_mr": discriminators[0],
                "discriminator_ct": discriminators[1],
            }
        )

    def call(self, name: str, image: Tensor) -> Tensor:
        """The result of a network, in the precision of the image."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.networks[name](image).to(image.dtype)

    def adam(self, *names: str) -> torch.optim.Adam:
        """The optimiser of some networks."""
        return torch.optim.Adam([p for name in names for p in self.networks[name].parameters()], lr=2e-4, betas=(0.5, 0.999))


class CycleGAN(Published):
    """The step of Zhu et al., with the losses of the paper on unpaired MR and CT."""

    def __init__(self, bf16: bool) -> None:
        super().__init__((patch_discriminator(), patch_discriminator()), bf16)
        self.generators = self.adam("generator_mr2ct", "generator_ct2mr")
        self.discriminators = self.adam("discriminator_mr", "discriminator_ct")
        self.pools = {"mr": Pool(), "ct": Pool()}

    def step(self, mr: Tensor, ct: Tensor, paired: bool) -> Losses:
        """Generators first, and then both discriminators."""
        assert not paired, "this is for scans of different people"
        self.judge(False)
        synthetic_ct, synthetic_mr = self.call("generator_mr2ct", mr), self.call("generator_ct2mr", ct)
        cycled_mr, cycled_ct = self.call("generator_ct2mr", synthetic_ct), self.call("generator_mr2ct", synthetic_mr)
        loss_ct = (self.call("discriminator_ct", synthetic_ct) - 1).square().mean()
        loss_mr = (self.call("discriminator_mr", synthetic_mr) - 1).square().mean()
        loss = loss_ct + loss_mr + CYCLE_WEIGHT * (F.l1_loss(cycled_mr, mr) + F.l1_loss(cycled_ct, ct))
        self.generators.zero_grad()
        loss.backward()
        self.generators.step()
        losses = {"generators": loss.detach()}

        self.judge(True)
        self.discriminators.zero_grad()
        for modality, real, synthetic in (("mr", mr, synthetic_mr), ("ct", ct, synthetic_ct)):
            name, shown = f"discriminator_{modality}", self.pools[modality].exchange(synthetic)
            loss = (self.call(name, real) - 1).square().mean() + self.call(name, shown).square().mean()
            loss.backward()
            losses[name] = loss.detach()
        self.discriminators.step()
        return losses

    def judge(self, learning: bool) -> None:
        """Switch the gradients of the discriminators on or off."""
        for name in ("discriminator_mr", "discriminator_ct"):
            self.networks[name].requires_grad_(learning)


class MRGAN(Published):
    """The steps of Algorithm 1."""

    def __init__(self, bf16: bool) -> None:
        super().__init__((DualDiscriminator(), DualDiscriminator()), bf16)
        self.optimizers = {name: self.adam(name) for name in self.networks}

    def step(self, mr: Tensor, ct: Tensor, paired: bool) -> Losses:
        """Discriminator and generator of each direction, of unpaired images or of pairs."""
        return {**self.direct("ct2mr", ct, mr, paired), **self.direct("mr2ct", mr, ct, paired)}

    def direct(self, direction: str, source: Tensor, target: Tensor, paired: bool) -> Losses:
        """The step of one direction."""
        forward, backward = f"generator_{direction}", f"generator_{'mr2ct' if direction == 'ct2mr' else 'ct2mr'}"
        discriminator = f"discriminator_{direction[-2:]}"

        def score(image: Tensor) -> Tensor:
            return self.call(discriminator, torch.cat([source, image], dim=1) if paired else image)

        synthetic = self.call(forward, source)
        real_scores, synthetic_scores = score(target), score(synthetic.detach())
        one, zero = torch.ones_like(real_scores), torch.zeros_like(real_scores)
        adversarial = F.binary_cross_entropy_with_logits if paired else F.mse_loss
        discriminator_loss = adversarial(real_scores, one) + adversarial(synthetic_scores, zero)
        self.optimizers[discriminator].zero_grad()
        discriminator_loss.backward()
        self.optimizers[discriminator].step()

        # The generator's loss goes through the discriminator and the generator back, which it does not move.
        for name in (discriminator, backward):
            self.networks[name].requires_grad_(False)
        loss = adversarial(score(synthetic), one) + CYCLE_WEIGHT * F.l1_loss(self.call(backward, synthetic), source)
        if paired:
            loss = loss + VOXEL_WEIGHT * F.l1_loss(synthetic, target)
        self.optimizers[forward].zero_grad()
        loss.backward()
        self.optimizers[forward].step()
        for name in (discriminator, backward):
            self.networks[name].requires_grad_(True)
        return {discriminator: discriminator_loss.detach(), forward: loss.detach()}
