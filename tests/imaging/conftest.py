from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation


@pytest.fixture(scope="session")
def make_affine() -> Callable[[int], np.ndarray]:
    """An oblique, anisotropic affine from a seed: every second one left-handed, every third one half a turn away."""

    def make(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        turn = Rotation.random(random_state=seed)
        if seed % 3 == 0:
            turn = Rotation.from_rotvec(np.pi * np.array([0.6, 0.8, 0.0]))
        affine = np.eye(4)
        affine[:3, :3] = turn.as_matrix() * (1, 1, 1 - 2 * (seed % 2)) * rng.uniform(0.4, 6.0, 3)
        affine[:3, 3] = rng.uniform(-300, 300, 3)
        return affine

    return make
