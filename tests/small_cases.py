"""Cases to be scored that the tests make: a few voxels, and known."""

import numpy as np

from transmodal.core.volume import Volume
from transmodal.evaluation.protocol import Case, Protocol

SHAPE = (12, 11, 10)


def volume(array: np.ndarray, modality="ct", spacing: float = 1.0) -> Volume:
    return Volume(array, np.diag([spacing, spacing, spacing, 1.0]), modality)


def column(*values: float, modality="ct") -> Volume:
    """Voxels in a row along x."""
    return volume(np.array(values).reshape(-1, 1, 1), modality)


def case_of(reference: Volume, prediction: Volume | np.ndarray, mask: np.ndarray | None = None, **beside: Volume) -> Case:
    """A case with a mask that holds every voxel by default; ``reference_bone=...`` is the companion bone of the reference."""
    made = reference.with_array(prediction) if isinstance(prediction, np.ndarray) else prediction
    inside = np.ones(reference.shape, bool) if mask is None else mask
    companions = {tuple(name.split("_", 1)): companion for name, companion in beside.items()}
    return Case(reference, made, reference.with_array(inside, "mask"), companions)


def noisy_case(modality="ct", mask: np.ndarray | None = None, seed: int = 0, **beside: Volume) -> Case:
    """Noise over all HU as the true image, and the same with noise of 50 HU as the synthetic one."""
    rng = np.random.default_rng(seed)
    reference = rng.uniform(-1000, 1500, SHAPE)
    return case_of(volume(reference, modality), reference + rng.normal(0, 50, SHAPE), mask, **beside)


def full_case(protocol: Protocol, mask: np.ndarray | None = None, seed: int = 0) -> Case:
    """A noisy case with noise for whatever the protocol may look at."""
    rng = np.random.default_rng(seed + 1)
    noise = {
        "mask": lambda: rng.uniform(size=SHAPE) < 0.3,
        "labels": lambda: rng.integers(0, 4, SHAPE, dtype=np.uint8),
        "uncertainty": lambda: rng.uniform(10, 90, SHAPE),
        "dose": lambda: rng.uniform(0, 2.5, SHAPE),
    }
    beside = {
        f"{side}_{stem}": volume(noise[companion.modality](), companion.modality)
        for companion in protocol.companions
        for side, stem in companion.keys
    }
    return noisy_case(protocol.note.modality, mask, seed, **beside)
