"""Time and peak memory of simulating one subject, by the size of its grid: python benchmarks/simulate.py [--shapes 64,64,64 ...]."""

import argparse
import multiprocessing
import resource
import time

import numpy as np

SHAPES = ("64,64,64", "128,150,128", "192,224,192")


def measure(shape: tuple[int, int, int]) -> dict[str, float]:
    from transmodal.simulation.contrast import MR_PRESETS, CTConfig, simulate_ct, simulate_mr
    from transmodal.simulation.head import head_grid, simulate_anatomy
    from transmodal.simulation.labels import head_mask
    from transmodal.simulation.parameters import HeadConfig

    rng = np.random.default_rng(0)
    config = HeadConfig()
    clock = [time.perf_counter()]
    labels = simulate_anatomy(config, head_grid(shape, config), seed=0)
    clock.append(time.perf_counter())
    simulate_mr(labels, MR_PRESETS["t1w"], rng)
    clock.append(time.perf_counter())
    simulate_ct(labels, CTConfig(), rng)
    clock.append(time.perf_counter())
    head_mask(labels)
    clock.append(time.perf_counter())
    seconds = dict(zip(("anatomy_s", "mr_s", "ct_s", "mask_s"), np.diff(clock).tolist(), strict=True))
    return seconds | {"total_s": clock[-1] - clock[0], "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="voxels along x,y,z")
    shapes = [tuple(int(n) for n in text.split(",")) for text in parser.parse_args().shapes]
    # A fresh process for each, so that the peak memory is its own.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for shape in shapes:
            result = pool.apply(measure, (shape,))
            print("x".join(map(str, shape)), *(f"{name} {value:.2f}" for name, value in result.items()), sep="  ")


if __name__ == "__main__":
    main()
