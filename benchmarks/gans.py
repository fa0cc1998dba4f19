"""Paired, unpaired and mixed adversarial training under one budget: python benchmarks/gans.py OUT [--only ROW ...] [--steps N].

The comparisons of the papers on CycleGAN from unpaired slices and on MR-GAN, where the truth is known: the same generator, the same number
of steps and the same simulated heads of 2 mm, of which each row sees what its name says as pairs. Pairs are exactly aligned, or rigidly
apart and left so; all rows are tested on the same aligned heads, in both directions. Three tables: means over the heads, the error of every
head, and a paired t-test over the heads between every two rows; and a slice of the first head, ``OUT/gans.png``. Everything goes through
the command line; what an earlier call has finished in OUT is kept, so give another OUT with other options.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cli import cell, summary, train_once, transmodal
from matplotlib.figure import Figure
from scipy.stats import ttest_rel

from transmodal.core.volume import Direction, Modality
from transmodal.evaluation.results import read_scores
from transmodal.imaging.grid import canonical
from transmodal.imaging.scan import read_scan

SIMULATED = ("--shape", "96", "112", "96", "--spacing-mm", "2")
APART = ("--misalign-mm", "4", "--misalign-deg", "3")
PERCENTILES = ["intensity.mr.kind=percentile", "intensity.mr.lower=0", "intensity.mr.upper=99.5"]
WINDOW = ["intensity.ct.lower=-1024", "intensity.ct.upper=2000"]
# The recipe of each row, whether its pairs are apart, and what is changed of it beside `scaled`.
ROWS: dict[str, tuple[str, bool, list[str]]] = {
    "pix2pix": ("pix2pix", False, PERCENTILES),
    "pix2pix, pairs apart": ("pix2pix", True, PERCENTILES),
    "CycleGAN": ("cyclegan", False, PERCENTILES),
    "MR-GAN, 10 % paired": ("mrgan", False, ["sampling.paired_fraction=0.1"]),
    "MR-GAN, 50 % paired": ("mrgan", False, ["sampling.paired_fraction=0.5"]),
    "MR-GAN, 50 % paired, apart": ("mrgan", True, ["sampling.paired_fraction=0.5"]),
}
DIRECTIONS: tuple[Direction, Direction] = ("mr2ct", "ct2mr")
PROTOCOLS = {"mr2ct": "cyclegan", "ct2mr": "mr-gan"}
# Metrics with the digits to print, the error first.
METRICS: dict[Direction, dict[str, int]] = {"mr2ct": {"mae_hu": 1, "psnr_db": 2}, "ct2mr": {"mae_grey": 2, "psnr_db": 2, "psnr_mrgan": 2}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    out = arguments.out
    make_data(out)
    for name in arguments.only:
        make_row(name, out, arguments.steps)
    print_means(arguments.only, out)
    for direction in DIRECTIONS:
        print_heads(arguments.only, direction, out)
        print_tests(arguments.only, direction, out)
    draw(arguments.only, out)


def make_data(out: Path) -> None:
    """20 heads to train on, aligned and apart, and 6 others to test on."""
    transmodal("simulate", out / "test", "--subjects", "6", "--seed", "4", "--prefix", "test", *SIMULATED)
    for pairs, misalignment in (("aligned", ()), ("apart", APART)):
        heads = out / pairs / "heads"
        transmodal("simulate", heads, "--subjects", "20", "--seed", "1", "--prefix", "head", *SIMULATED, *misalignment)
        transmodal("prepare", heads, out / pairs / "dataset", "--set", "preparation.spacing_mm=2")


def scaled(steps: int) -> list[str]:
    """What is changed of every row: the same small generator and discriminators, and the same training."""
    return [
        "direction=mr2ct",
        "method.generator.channels=16",
        "method.generator.blocks=4",
        "method.discriminator.channels=16",
        "view.size=[96,112]",
        "view.axes=[2]",
        "augment.translation=6",
        *WINDOW,
        f"train.steps={steps}",
        f"train.decay_from={steps // 2}",
        f"train.validate_every={steps // 5}",
        "train.batch_size=4",
        "train.validation_batches=4",
        "train.validation_fraction=0.1",
    ]


def make_row(name: str, out: Path, steps: int) -> None:
    """Train a row, and apply and score it in both directions."""
    recipe, apart, own = ROWS[name]
    dataset, run = out / ("apart" if apart else "aligned") / "dataset", out / "runs" / folder(name)
    train_once(recipe, [*scaled(steps), *own], dataset, run)
    for direction in DIRECTIONS:
        predictions = predictions_of(name, direction, out)
        transmodal("synthesize", out / "test", predictions, "--direction", direction, "--model", run)
        where = ("--direction", direction, "--protocol", PROTOCOLS[direction])
        transmodal("evaluate", predictions, out / "test", scores_of(name, direction, out), *where)


def print_means(names: Sequence[str], out: Path) -> None:
    """Mean and standard deviation over the heads."""
    print_table_head("training", ["MAE, HU", "PSNR, dB", "MR: MAE, grey levels", "MR: PSNR, dB", "psnr_mrgan, dB"])
    for name in names:
        cells = []
        for direction, metrics in METRICS.items():
            found = summary(scores_of(name, direction, out))[PROTOCOLS[direction]]
            cells += [cell(found[metric], digits) for metric, digits in metrics.items()]
        print(f"| {name} | {' | '.join(cells)} |")


def print_heads(names: Sequence[str], direction: Direction, out: Path) -> None:
    """The error of every head."""
    columns = [errors(name, direction, out) for name in names]
    print_table_head(f"{direction}, {error_of(direction)}", names)
    for head in columns[0]:
        print(f"| {head} | {' | '.join(f'{column[head]:.1f}' for column in columns)} |")


def print_tests(names: Sequence[str], direction: Direction, out: Path) -> None:
    """By how much the row's error is above the column's in the mean, and the p-value of a paired t-test."""
    values = {name: np.array(list(errors(name, direction, out).values())) for name in names}
    print_table_head(f"{direction}, {error_of(direction)}: row − column (p)", names)
    for row in names:
        cells = [
            "" if row == column else f"{(values[row] - values[column]).mean():+.1f} ({ttest_rel(values[row], values[column]).pvalue:.2g})"
            for column in names
        ]
        print(f"| {row} | {' | '.join(cells)} |")


def print_table_head(corner: str, columns: Sequence[str]) -> None:
    print(f"\n| {corner} | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|")


def draw(names: Sequence[str], out: Path) -> None:
    """A slice of the first head: MR, CT and each row's synthetic CT; below, the errors of these; below those, the synthetic MRs."""
    (head,) = (path.parent for path in (out / "test").rglob("*0001/mr.nii.gz"))
    mr, ct = middle(head / "mr.nii.gz", "mr"), middle(head / "ct.nii.gz", "ct")
    grey = {"mr": {"cmap": "gray", "vmin": 0, "vmax": np.percentile(mr, 99.5)}, "ct": {"cmap": "gray", "vmin": -1000, "vmax": 1500}}
    figure = Figure(figsize=(1.75 * (2 + len(names)), 6.1), facecolor="black", layout="constrained")
    panels = figure.subplots(3, 2 + len(names))
    for panel in panels.flat:
        panel.axis("off")
    panels[0, 0].imshow(mr, **grey["mr"])
    panels[0, 1].imshow(ct, **grey["ct"])
    for column, name in enumerate(names, start=2):
        sct = middle(predictions_of(name, "mr2ct", out) / head.name / "sct.nii.gz", "ct")
        smr = middle(predictions_of(name, "ct2mr", out) / head.name / "smr.nii.gz", "mr")
        panels[0, column].imshow(sct, **grey["ct"])
        panels[1, column].imshow(sct - ct, cmap="RdBu_r", vmin=-1000, vmax=1000)
        panels[2, column].imshow(smr, **grey["mr"])
    for column, title in enumerate(["MR", "CT", *names]):
        panels[0, column].set_title(title.replace(", ", ",\n"), color="white", fontsize=8)
    figure.savefig(out / "gans.png", dpi=80, facecolor="black")


def middle(path: Path, modality: Modality) -> np.ndarray:
    """The axial slice in the middle, the nose upwards."""
    array = canonical(read_scan(path, modality)).array
    return array[:, :, array.shape[2] // 2].T[::-1].astype(np.float32)


def errors(name: str, direction: Direction, out: Path) -> dict[str, float]:
    """The mean absolute error of every test head, by their names."""
    protocol, metric = PROTOCOLS[direction], error_of(direction)
    cases = read_scores(scores_of(name, direction, out)).cases
    found = {}
    for case in sorted(cases, key=lambda case: case.case):
        value = case.scores[protocol].values[metric]
        assert value is not None, f"{name}: {metric} of {case.case} is not defined"
        found[case.case] = value
    return found


def error_of(direction: Direction) -> str:
    return next(iter(METRICS[direction]))


def predictions_of(name: str, direction: Direction, out: Path) -> Path:
    return out / "predictions" / folder(name) / direction


def scores_of(name: str, direction: Direction, out: Path) -> Path:
    return out / "scores" / folder(name) / direction


def folder(name: str) -> str:
    return name.replace(" %", "").replace(",", "").replace(" ", "-")


if __name__ == "__main__":
    main()
