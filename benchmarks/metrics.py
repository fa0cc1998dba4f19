"""Time the voxel metrics beside scikit-image and scipy at equal values, on a simulated head.

Run as ``python benchmarks/metrics.py [X Y Z]``; prints medians of interleaved rounds, the median of their ratios, and its range.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy.ndimage import uniform_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from transmodal.evaluation.metrics import mae, psnr_db
from transmodal.evaluation.similarity import SCALE_WEIGHTS, ms_ssim_synthrad2025, ssim_synthrad2023
from transmodal.simulation.contrast import CTConfig, simulate_ct
from transmodal.simulation.head import head_grid, simulate_anatomy
from transmodal.simulation.labels import head_mask
from transmodal.simulation.parameters import HeadConfig

ROUNDS = 7
CORE = (slice(3, -3),) * 3
Case = tuple[np.ndarray, np.ndarray, np.ndarray]


def head(shape: tuple[int, int, int]) -> Case:
    """Make a CT in whole HU as files hold it, a synthetic one of floats, and the mask of the head, over a quarter of the volume."""
    rng, config = np.random.default_rng(0), HeadConfig()
    labels = simulate_anatomy(config, head_grid(shape, config), seed=0)
    ct = simulate_ct(labels, CTConfig(), rng).array
    return ct, (ct + rng.normal(0, 60, shape)).astype(np.float32), np.asarray(head_mask(labels).array)


def plain_mae(reference: np.ndarray, prediction: np.ndarray, mask: np.ndarray) -> float:
    return float(np.sum(np.abs(reference * mask - prediction * mask), dtype=np.float64) / mask.sum())


def plain_psnr(reference: np.ndarray, prediction: np.ndarray, mask: np.ndarray) -> float:
    x, y = (np.clip(image, -1024, 3000)[mask].astype(np.float64) for image in (reference, prediction))
    return float(peak_signal_noise_ratio(x, y, data_range=4024))


def prepared(image: np.ndarray, mask: np.ndarray, high: float) -> np.ndarray:
    return np.where(mask, np.clip(image, -1024, high).astype(np.float64) + 1024, 0)


def plain_ssim(reference: np.ndarray, prediction: np.ndarray, mask: np.ndarray) -> float:
    x, y = (prepared(image, mask, 3000) for image in (reference, prediction))
    _, similarity = structural_similarity(x, y, data_range=4024, full=True)
    return float(similarity[CORE][mask[CORE]].mean())


def plain_ms_ssim(reference: np.ndarray, prediction: np.ndarray, mask: np.ndarray) -> float:
    x, y = (prepared(image, mask, 3071) for image in (reference, prediction))
    c1, c2 = (0.01 * 4095) ** 2, (0.03 * 4095) ** 2
    result = 1.0
    for weight in SCALE_WEIGHTS:
        mean_x, mean_y = uniform_filter(x, 7), uniform_filter(y, 7)
        var_x, var_y = ((uniform_filter(a * a, 7) - m * m) * 343 / 342 for a, m in ((x, mean_x), (y, mean_y)))
        covariance = (uniform_filter(x * y, 7) - mean_x * mean_y) * 343 / 342
        deviations = np.sqrt(var_x.clip(0)) * np.sqrt(var_y.clip(0))
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        contrast = (2 * deviations + c2) / (var_x + var_y + c2)
        structure = (covariance + c2 / 2) / (deviations + c2 / 2)
        terms = [np.clip(term, 0, None) ** weight for term in (luminance, contrast, structure)]
        result *= (terms[0] * terms[1] * terms[2])[CORE][mask[CORE]].mean()
        x, y = (uniform_filter(image, 2, mode="constant")[::2, ::2, ::2] for image in (x, y))
        mask = mask[::2, ::2, ::2]
    return float(result)


def our_psnr(reference: np.ndarray, prediction: np.ndarray, mask: np.ndarray) -> float:
    return psnr_db(reference, prediction, mask, (-1024.0, 3000.0))


def our_2023(*case: np.ndarray) -> float:
    return mae(*case) + our_psnr(*case) + ssim_synthrad2023(*case)


def plain_2023(*case: np.ndarray) -> float:
    return plain_mae(*case) + plain_psnr(*case) + plain_ssim(*case)


PAIRS: dict[str, tuple[Callable[..., float], Callable[..., float]]] = {
    "MAE": (mae, plain_mae),
    "PSNR 2023": (our_psnr, plain_psnr),
    "SSIM 2023": (ssim_synthrad2023, plain_ssim),
    "MS-SSIM 2025": (ms_ssim_synthrad2025, plain_ms_ssim),
    "all of 2023": (our_2023, plain_2023),
}


def seconds(function: Callable[..., float], case: Case) -> tuple[float, float]:
    start = time.perf_counter()
    value = function(*case)
    return time.perf_counter() - start, value


def main(shape: tuple[int, int, int]) -> None:
    case = head(shape)
    print(f"{shape}, mask {case[2].mean():.0%} of the volume, {ROUNDS} rounds, {os.cpu_count()} cores")
    for name, functions in PAIRS.items():
        rounds = [[seconds(function, case) for function in functions] for _ in range(ROUNDS)]
        ours, theirs = (statistics.median(pair[side][0] for pair in rounds) for side in (0, 1))
        ratios = sorted(plain[0] / own[0] for own, plain in rounds)
        difference = abs(rounds[0][0][1] - rounds[0][1][1])
        ratio = f"{statistics.median(ratios):5.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        print(f"{name:13} {ours:7.3f} s, plain {theirs:7.3f} s, ratio {ratio}, values differ by {difference:.1e}")


if __name__ == "__main__":
    sizes = [int(argument) for argument in sys.argv[1:]] or [192, 224, 192]
    main((sizes[0], sizes[1], sizes[2]))
