"""What `speed.py` times: a step of training and the synthesis of a head, by the recipes and by MONAI's BasicUNet.

The training step is what the engine does with a batch once it is there: the method's own `training_step` with networks that Fabric has
wrapped, the recipe's optimiser and its clipping. Averages of weights, learning rates and logs, which cost next to nothing, are left out.
MONAI's network is trained by a plain loop of PyTorch with the same loss and optimiser, and applied by MONAI's inferers in the same
slices or patches. It is not compiled: channels-last, that fails on its padding with an assertion in torch 2.13.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.networks.nets import BasicUNet
from scipy.ndimage import uniform_filter
from torch import Tensor, nn

from transmodal.contracts import LearnedMethod
from transmodal.data.sampling import Batch
from transmodal.engine.hardware import optimize_layout, use_bf16
from transmodal.engine.predict import SLICES_AT_ONCE, Setting, predict
from transmodal.engine.train import make_fabric
from transmodal.imaging.intensity import PERCENTILES, IntensityStatistics
from transmodal.imaging.preparation import Preparation
from transmodal.losses.voxel import gradient_difference, l2
from transmodal.methods.recipe import Recipe, build_method, load_recipe

# The batch of each recipe's training step: its own, or as much of it as two cores get through in some seconds.
BATCHES = {
    "unet2d-quick": 8,
    "unet2d-planes": 8,
    "unet25d": 8,
    "unet2d": 4,
    "unet3d": 2,
    "resenc3d-quick": 2,
    "resenc3d": 1,
    "light-unet": 16,
    "vgg-unet": 2,
    "bone-unet2d": 4,
}
# Feature maps of a BasicUNet with about as many parameters as the recipe's network: 0.3 % fewer, 7 % more and 6 % more. They are
# multiples of 16, which its kernels like; its normalisation and activation are the recipe's.
PEER_FEATURES = {
    "unet2d-quick": (16, 16, 48, 80, 144, 16),
    "unet2d": (80, 80, 160, 320, 640, 80),
    "unet3d": (80, 80, 160, 320, 640, 80),
}
PEER_NORMS = {"none": None, "batch": "batch"}
# Those of intensities spread evenly over 0 to 100.
STATISTICS = IntensityStatistics(mean=50, sd=29, percentiles=tuple(PERCENTILES))


@dataclass(frozen=True)
class Variant:
    """How a network computes."""

    precision: Literal["fp32", "bf16"]
    channels_last: bool
    compiled: bool = False


# What the product does on this machine, and what PyTorch does when it is told nothing.
DEFAULT = Variant("bf16" if use_bf16("auto", torch.device("cpu")) else "fp32", channels_last=True)
PLAIN = Variant("fp32", channels_last=False)


@dataclass(frozen=True)
class Contender:
    """One of those that are timed beside each other."""

    recipe: str
    maker: Literal["transmodal", "MONAI"]
    variant: Variant


class Work(NamedTuple):
    """A network, and what is timed of it."""

    network: nn.Module
    run: Callable[[], object]


def training_step(contender: Contender) -> Work:
    """One step of training on a random batch."""
    settings = [f"train.batch_size={BATCHES[contender.recipe]}", f"train.precision={contender.variant.precision}"]
    recipe = load_recipe(contender.recipe, settings)
    step = _our_step if contender.maker == "transmodal" else _peer_step
    return step(recipe, contender.variant, _random_batch(recipe))


def synthesis(shape: tuple[int, int, int], contender: Contender) -> Work:
    """The prediction of a whole head of `shape` voxels from its prepared scan."""
    synthesize = _our_synthesis if contender.maker == "transmodal" else _peer_synthesis
    return synthesize(load_recipe(contender.recipe), contender.variant, shape)


def _our_step(recipe: Recipe, variant: Variant, batch: Batch) -> Work:
    method = build_method(recipe, setting_of(recipe))
    assert isinstance(method, LearnedMethod)
    (bare,) = method.networks.values()
    fabric = make_fabric(recipe.train, accelerator="cpu")
    fabric.launch()
    for name, network in method.networks.items():
        method.networks[name] = fabric.setup_module(_adapted(network, variant))
    optimizations = method.optimizers()

    def update(name: str, loss: Tensor) -> None:
        optimizer, parameters = optimizations[name].optimizer, list(bare.parameters())
        fabric.backward(loss, inputs=parameters)
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if recipe.train.clip_norm:
            nn.utils.clip_grads_with_norm_(parameters, recipe.train.clip_norm, norm)
        optimizer.step()
        optimizer.zero_grad()  # after the step, so that who waits for its turn holds no gradients

    return Work(bare, lambda: method.training_step(batch, update))


def _peer_step(recipe: Recipe, variant: Variant, batch: Batch) -> Work:
    network, weights = _adapted(_peer(recipe), variant), recipe.method.loss
    optimizer = recipe.method.optimizer.build(network.parameters())

    def step() -> None:
        with _autocast(variant):
            prediction = network(batch.source)
        prediction, target = prediction.float(), batch.target
        difference = gradient_difference(prediction, target, weights.gradient_reading)
        loss = weights.l2 * l2(prediction, target) + weights.gradient_difference * difference
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Work(network, step)


def _our_synthesis(recipe: Recipe, variant: Variant, shape: tuple[int, int, int]) -> Work:
    """By the product's own loop, whose choice of number format and layout is replaced by the variant's."""
    method, setting = build_method(recipe, setting_of(recipe)), setting_of(recipe)
    assert isinstance(method, LearnedMethod)
    (network,) = method.networks.values()
    image, mask = _head(shape)
    source = setting.intensity[setting.source].fit(STATISTICS)
    adapted, chosen = _adapted(network, variant), {"use_bf16": lambda *_: variant.precision == "bf16", "optimize_layout": lambda n: n}

    def synthesize() -> np.ndarray:
        with patch.multiple("transmodal.engine.predict", **chosen):
            return predict(adapted, image, setting, source, mask).mean

    return Work(network, synthesize)


def _peer_synthesis(recipe: Recipe, variant: Variant, shape: tuple[int, int, int]) -> Work:
    network, inferer = _adapted(_peer(recipe), variant).eval(), _inferer(recipe, shape)
    image, _ = _head(shape)
    source = recipe.intensity["mr"].fit(STATISTICS)

    def synthesize() -> np.ndarray:
        inputs = torch.from_numpy(source.forward(image))[None, None]
        with torch.inference_mode(), _autocast(variant):
            return inferer(inputs, lambda patches: network(patches).float())[0, 0].numpy()

    return Work(network, synthesize)


def _inferer(recipe: Recipe, shape: tuple[int, int, int]) -> SlidingWindowInferer:
    """MONAI's way to the slices or patches that the recipe predicts; as many of them at once."""
    shared = {"sw_batch_size": SLICES_AT_ONCE, "overlap": recipe.predict.overlap}
    if recipe.predict.patch is None:
        return SliceInferer(spatial_dim=2, roi_size=shape[:2], **shared)
    if recipe.view.dims == 2:
        return SliceInferer(spatial_dim=2, roi_size=recipe.predict.patch, mode="gaussian", **shared)
    return SlidingWindowInferer(roi_size=recipe.predict.patch, mode="gaussian", **shared)


def _peer(recipe: Recipe) -> BasicUNet:
    norm = PEER_NORMS[recipe.method.network.norm]
    return BasicUNet(recipe.view.dims, 1, 1, PEER_FEATURES[recipe.name], act=("relu", {"inplace": True}), norm=norm)


def _adapted(network: nn.Module, variant: Variant) -> nn.Module:
    """The network itself, in the variant's layout, and to be compiled when it is first called."""
    if variant.channels_last:
        network = optimize_layout(network)
    if variant.compiled:
        network.compile(dynamic=False)  # the sizes of a training never change
    return network


def _autocast(variant: Variant) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=variant.precision == "bf16")


def setting_of(recipe: Recipe) -> Setting:
    """What prediction needs of a run of the recipe."""
    return Setting(
        direction=recipe.direction,
        preparation=recipe.preparation or Preparation(),
        intensity=recipe.intensity,
        statistics={"mr": STATISTICS, "ct": STATISTICS},
        view=recipe.view,
        prediction=recipe.predict,
    )


def _random_batch(recipe: Recipe) -> Batch:
    """A batch of the recipe's view; its target lies in [0, 1], which every loss takes."""
    torch.manual_seed(0)
    count, size = recipe.train.batch_size, recipe.view.size
    inside = torch.ones(count, 1, *size, dtype=torch.bool)
    return Batch(torch.randn(count, recipe.view.channels, *size), torch.rand(count, 1, *size), inside, inside, paired=True)


def _head(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid of blurred noise in intensities of 0 to 100, about as large in its volume as a head, and its mask."""
    x, y, z = np.ogrid[tuple(slice(-1.15, 1.15, 1j * count) for count in shape)]
    mask = x**2 + y**2 + z**2 < 1
    noise = np.random.default_rng(0).uniform(0, 100, shape)
    return np.where(mask, uniform_filter(noise, 3), 0).astype(np.float32), mask
