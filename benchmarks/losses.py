"""What each voxel loss makes of pairs that are aligned and of pairs that are not: python benchmarks/losses.py OUT.

Light_U-Net on axial slices, on simulated heads of 2 mm whose MR and CT are exactly aligned, or rigidly apart and left so. All are tested
on the same aligned heads. What an earlier call has finished in OUT is kept.

Bone is compared at every tenth of the grey levels of a window 2000 HU wide from 40 to 70 %, and averaged, as the paper on Light_U-Net
does. Sharpness is the energy of the gradient inside the head as a share of the true CT's: less than 1 is blur.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cli import train_once, transmodal

from transmodal.imaging.scan import read_scan

SIMULATED = ("--shape", "96", "112", "96", "--spacing-mm", "2")
APART = ("--misalign-mm", "4", "--misalign-deg", "3")
SETTINGS = [
    "view.size=[128,128]",
    "view.axes=[2]",
    "train.steps=600",
    "train.batch_size=8",
    "train.validate_every=100",
    "train.schedule=linear",
    "train.decay_from=300",
]
LOSSES = {
    "L1": (1.0, 0.0, 0.0, "signed"),
    "L2": (0.0, 1.0, 0.0, "signed"),
    "Lw = L1 + 4.4 L2": (1.0, 4.4, 0.0, "signed"),
    "L2 + GDL": (0.0, 1.0, 1.0, "signed"),
    "L2 + GDL of magnitudes": (0.0, 1.0, 1.0, "magnitude"),
}
WINDOW_HU = (-500, 1500)
GREY_LEVELS = (0.4, 0.5, 0.6, 0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    transmodal("simulate", out / "test", "--subjects", "4", "--seed", "4", "--prefix", "test", *SIMULATED)
    print("| pairs | loss | MAE, HU | sharpness | bone precision | bone recall | bone Dice |")
    print("|---|---|---|---|---|---|---|")
    for pairs, misalignment in (("aligned", ()), ("apart", APART)):
        heads, dataset = out / pairs / "heads", out / pairs / "dataset"
        transmodal("simulate", heads, "--subjects", "16", "--seed", "1", "--prefix", "head", *SIMULATED, *misalignment)
        transmodal("prepare", heads, dataset, "--set", "preparation.spacing_mm=2")
        for name, weights in LOSSES.items():
            run = out / pairs / "runs" / name.replace(" ", "")
            train_once("light-unet", [*SETTINGS, *assignments(*weights)], dataset, run)
            predictions = out / pairs / "predictions" / run.name
            transmodal("synthesize", out / "test", predictions, "--model", run)
            print(f"| {pairs} | {name} | {table_cells(predictions, out / 'test')} |", flush=True)


def assignments(l1: float, l2: float, gradient_difference: float, reading: str) -> list[str]:
    """The loss as settings of a recipe."""
    weights = {"l1": l1, "l2": l2, "gradient_difference": gradient_difference, "gradient_reading": reading}
    return [f"method.loss.{name}={value}" for name, value in weights.items()]


def table_cells(predictions: Path, references: Path) -> str:
    """Mean and standard deviation of every measure over the heads."""
    cases = [
        measure(prediction, next(references.rglob(f"{prediction.parent.name}/ct.nii.gz")))
        for prediction in sorted(predictions.rglob("sct.nii.gz"))
    ]
    columns = list(zip(*cases, strict=True))
    return " | ".join(f"{statistics.fmean(c):.{d}f} ({statistics.stdev(c):.{d}f})" for c, d in zip(columns, (1, 3, 3, 3, 3), strict=True))


def measure(prediction: Path, reference: Path) -> Sequence[float]:
    """MAE and sharpness inside the head; precision, recall and Dice of bone."""
    found, true = (read_scan(path, "ct").array.astype(np.float32) for path in (prediction, reference))
    mask = read_scan(reference.with_name("mask.nii.gz"), "mask").array > 0
    low, high = WINDOW_HU
    bone = [overlap(found[mask] > low + level * (high - low), true[mask] > low + level * (high - low)) for level in GREY_LEVELS]
    return np.abs(found - true)[mask].mean(), energy(found, mask) / energy(true, mask), *np.mean(bone, axis=0)


def energy(image: np.ndarray, mask: np.ndarray) -> float:
    """Mean squared gradient inside the mask, of the image clipped to the window."""
    slopes = np.gradient(np.clip(image, *WINDOW_HU))
    return float(sum(np.square(slope)[mask].mean() for slope in slopes))


def overlap(found: np.ndarray, true: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and Dice."""
    both = np.count_nonzero(found & true)
    precision, recall = both / max(np.count_nonzero(found), 1), both / max(np.count_nonzero(true), 1)
    return precision, recall, 2 * both / max(np.count_nonzero(found) + np.count_nonzero(true), 1)


if __name__ == "__main__":
    main()
