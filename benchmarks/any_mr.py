"""The model any-mr that comes with the package: what it is trained on, how its uncertainty is calibrated, and how well it does.

    python benchmarks/any_mr.py heads LABELS OUT      the heads of its training, OUT/heads, and the dataset, OUT/dataset
    python benchmarks/any_mr.py calibrate MODEL       the factor that its standard deviations are to be multiplied by
    python benchmarks/any_mr.py measure MODEL         simulated heads held out: error, bone, coverage, and how far scans of one head agree

LABELS is a folder with nyhead_labels.nii.gz and usc19.5_fullhead_labels.nii.gz. The heads of `calibrate` and of `measure` are of other
seeds than those of the training, and than one another.
"""

import argparse
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from transmodal.core.progress import track
from transmodal.core.volume import Volume
from transmodal.evaluation.metrics import dice
from transmodal.evaluation.uncertainty import half_width
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.preparation import Preparation
from transmodal.methods.builtin import DEFAULT_MODEL, find_model
from transmodal.methods.runs import load_method
from transmodal.simulation.contrast import CTConfig, draw_mr, simulate_ct, simulate_mr
from transmodal.simulation.head import head_grid, simulate_anatomy
from transmodal.simulation.labels import head_mask
from transmodal.simulation.parameters import draw_head
from transmodal.workflows.prepare import prepare
from transmodal.workflows.simulate import simulate

CALIBRATION_SEED, MEASURED_SEED = 101, 202
CONTRASTS = ("t1w", "t2w", "pd", "bone")
CHILDREN_YEARS = (0.5, 2.0, 5.0, 8.0, 12.0)
BONE_HU = 250
SHAPE = (192, 224, 192)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("heads", "calibrate", "measure"))
    parser.add_argument("given", nargs="?", type=Path, default=Path(DEFAULT_MODEL))
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--heads", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.what == "heads":
        if arguments.out is None:
            parser.error("heads LABELS OUT: name the folder to write")
        make_heads(arguments.given, arguments.out)
    elif arguments.what == "calibrate":
        calibrate(arguments.given, arguments.heads)
    else:
        measure(arguments.given, arguments.heads)


def make_heads(labels: Path, out: Path) -> None:
    """Simulate the heads: two real anatomies, each several times so that they are drawn more often, adults, and children."""
    heads = out / "heads"
    shared = {"spacing_mm": 1.0}
    new_york, usc = labels / "nyhead_labels.nii.gz", labels / "usc19.5_fullhead_labels.nii.gz"
    simulate(heads / "new_york", subjects=8, seed=21, labels=new_york, mapping="new_york_head", prefix="ny1", **shared)
    simulate(heads / "usc", subjects=4, seed=3, labels=usc, mapping="usc_19.5", prefix="usc", **shared)
    simulate(heads / "adults", subjects=8, seed=6, prefix="adult", **shared)
    for number, age in enumerate(CHILDREN_YEARS, start=1):
        simulate(heads / f"child{number}", subjects=1, seed=40 + number, age_years=age, prefix=f"child{number}", **shared)
    prepare(heads, out / "dataset", Preparation())


def draw(seed: int, number: int) -> tuple[Volume, Volume, np.random.Generator]:
    """A head that is held out, every fourth a child: its tissues, its CT, and what to draw its MRs with."""
    rng = np.random.default_rng([seed, number])
    config = draw_head(rng, None if number % 4 < 3 else float(rng.uniform(2, 17)))
    labels = simulate_anatomy(config, head_grid(SHAPE, config, 1.0), seed + number)
    return labels, simulate_ct(labels, CTConfig(), rng), rng


def scan_of(labels: Volume, contrast: str, rng: np.random.Generator) -> Volume:
    return simulate_mr(labels, draw_mr(contrast, rng), rng)


def calibrate(model: Path, heads: int) -> None:
    """Print the factor with which 95 % of the errors inside heads lie within 1.96 standard deviations."""
    method, ratios = load_method(find_model(model), torch.device("cpu")), []
    for number in track(range(heads), "calibrating"):
        labels, ct, rng = draw(CALIBRATION_SEED, number)
        made, sd = method.synthesize_with_uncertainty(scan_of(labels, CONTRASTS[number % len(CONTRASTS)], rng))
        inside = head_mask(labels).array & (sd.array > 0)
        ratios.append((np.abs(made.array - ct.array) / np.maximum(sd.array, 1e-3))[inside][::50])
    for level in (0.68, 0.95):
        factor = float(np.quantile(np.concatenate(ratios), level)) / half_width(level)
        print(f"{level:.0%} of the errors lie within {half_width(level):.2f} standard deviations times {factor:.3f}")


def measure(model: Path, heads: int) -> None:
    """Print a table of the errors, and of the Dice between the bones of scans of one head."""
    method = load_method(find_model(model), torch.device("cpu"))
    errors: dict[str, list[list[float]]] = {contrast: [] for contrast in CONTRASTS}
    agreement: dict[str, list[float]] = {"contrasts": [], "resolutions": [], "orders of axes": []}
    for number in track(range(heads), "measuring"):
        labels, ct, rng = draw(MEASURED_SEED, number)
        inside, scans = np.asarray(head_mask(labels).array), {name: scan_of(labels, name, rng) for name in CONTRASTS}
        found = {}
        for name, scan in scans.items():
            made, sd = method.synthesize_with_uncertainty(scan)
            found[name] = made
            errors[name].append(_errors(made.array[inside], ct.array[inside], sd.array[inside]))
        agreement["contrasts"].extend(_overlaps(list(found.values())))
        agreement["resolutions"].extend(_overlaps(_in_resolutions(method.synthesize, scans["t1w"])))
        agreement["orders of axes"].extend(_overlaps(_in_orders(method.synthesize, scans["t1w"])))
    print(f"{heads} simulated heads, seed {MEASURED_SEED}")
    print("| contrast | MAE, HU | bone Dice | within 1 SD (68 %) | within 1.96 SD (95 %) |\n|---|---|---|---|---|")
    for name, rows in errors.items():
        mae, overlap, one, two = np.mean(rows, axis=0)
        print(f"| {name} | {mae:.1f} | {overlap:.3f} | {one:.1%} | {two:.1%} |")
    for name, values in agreement.items():
        print(f"Dice between the bones of one head in several {name}: mean {np.mean(values):.3f}, lowest {np.min(values):.3f}")


def _errors(made: np.ndarray, true: np.ndarray, sd: np.ndarray) -> list[float]:
    error = np.abs(made.astype(np.float32) - true)
    within = [float(np.mean(error <= half_width(level) * sd)) for level in (0.68, 0.95)]
    return [float(error.mean()), float(dice(made > BONE_HU, true > BONE_HU)), *within]


def _in_resolutions(synthesize: Callable[[Volume], Volume], scan: Volume) -> list[Volume]:
    """CTs of the scan as it is, of one of 2 mm, and of one of slices of 4 mm, on the first one's grid."""
    coarser = [resample(scan, isotropic_grid(scan.grid, spacing)) for spacing in ((2.0, 2.0, 2.0), (1.0, 1.0, 4.0))]
    return [synthesize(scan), *(resample(synthesize(coarse), scan.grid) for coarse in coarser)]


def _in_orders(synthesize: Callable[[Volume], Volume], scan: Volume) -> list[Volume]:
    """CTs of the scan with its axes in three orders, on the first one's grid."""
    return [resample(synthesize(reordered(scan, order)), scan.grid) for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0))]


def reordered(scan: Volume, order: tuple[int, int, int]) -> Volume:
    """The same scan with the axes of its array in another order, the last of them turned round, and a header that says so."""
    array, affine = np.transpose(scan.array, order)[:, :, ::-1], scan.affine.copy()
    affine[:, :3] = affine[:, list(order)]
    affine[:3, 3] += affine[:3, 2] * (array.shape[2] - 1)
    affine[:3, 2] *= -1
    return Volume(np.ascontiguousarray(array), affine, scan.modality)


def _overlaps(volumes: list[Volume]) -> list[float]:
    bones = [np.asarray(volume.array) > BONE_HU for volume in volumes]
    return [float(dice(first, second)) for first, second in combinations(bones, 2)]


if __name__ == "__main__":
    main()
