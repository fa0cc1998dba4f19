"""Train MR-GAN with each discriminator and loss of its paper, scaled down, and print the results beside the paper's.

Run as ``python benchmarks/mrgan_ablation.py OUT [--only ROW ...] [--steps N] [--size N] [--channels N]``. The rows are those of tables
III and IV of the paper, and the two that table III leaves out: D1 to D5, each with the negative log-likelihood and with least squares of
pairs. Everything goes through the command line, on simulated CTs and T2-weighted MRs of 2 mm; of the heads to train on, a third are
pairs, a third only CTs and a third only MRs. What an earlier call has finished in OUT is kept, so give another OUT with other options.
"""

import argparse
from pathlib import Path

from cli import cell, summary, train_once, transmodal

# Mean and standard deviation of MAE and PSNR in the paper's tables III (least squares) and IV (negative log-likelihood).
PAPER = {
    "D1-cross_entropy": ("19.36 (2.73)", "65.35 (0.86)"),
    "D2-cross_entropy": ("49.70 (3.10)", "60.34 (0.60)"),
    "D3-cross_entropy": ("59.06 (3.27)", "59.23 (0.46)"),
    "D4-cross_entropy": ("19.35 (2.56)", "65.24 (0.77)"),
    "D5-cross_entropy": ("20.57 (2.82)", "65.16 (0.85)"),
    "D1-least_squares": ("21.07 (2.98)", "65.25 (0.81)"),
    "D2-least_squares": ("42.95 (3.03)", "61.31 (0.64)"),
    "D3-least_squares": ("37.25 (2.58)", "62.73 (0.77)"),
    "D4-least_squares": ("–", "–"),
    "D5-least_squares": ("–", "–"),
}
SIMULATED = ("--shape", "96", "112", "96", "--spacing-mm", "2", "--contrast", "t2w")
BATCHES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=PAPER, default=list(PAPER), metavar="ROW")
    parser.add_argument("--steps", type=int, default=2000, help="unpaired and paired steps together")
    parser.add_argument("--size", type=int, default=96, help="pixels a side of a slice; D3 needs 82")
    parser.add_argument("--channels", type=int, default=8, help="of generators and discriminators; the paper's have 64")
    arguments = parser.parse_args()
    make_data(arguments.out)
    settings = scaled(arguments.steps, arguments.size, arguments.channels)
    lines = [table_row(name, settings, arguments.out) for name in arguments.only]
    print("| discriminator | loss of pairs | CPU minutes | MAE, grey levels | PSNR, dB | psnr_mrgan, dB | paper's MAE | paper's PSNR |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))


def make_data(out: Path) -> None:
    """18 heads to train on and 4 others to test on."""
    transmodal("simulate", out / "heads", "--subjects", "18", "--seed", "1", "--prefix", "head", *SIMULATED)
    transmodal("simulate", out / "test", "--subjects", "4", "--seed", "2", "--prefix", "test", *SIMULATED)
    # They lie on one another already, and the brain masks that registration without the skull needs are not simulated.
    settings = ("preparation.spacing_mm=2", "preparation.registration.kind=none")
    transmodal("prepare", out / "heads", out / "dataset", *(word for setting in settings for word in ("--set", setting)))


def scaled(steps: int, size: int, channels: int) -> list[str]:
    """What is changed of the recipe for every row."""
    return [
        f"train.steps={steps}",
        f"train.decay_from={steps // 3}",
        f"train.validate_every={max(1, steps // 4)}",
        f"train.validation_batches={BATCHES}",
        "train.validation_fraction=0.17",
        f"view.size=[{size},{size}]",
        "augment.translation=6",
        "sampling.paired_fraction=0.34",
        f"method.generator.channels={channels}",
        f"method.discriminator.channels={channels}",
    ]


def table_row(name: str, settings: list[str], out: Path) -> str:
    """Train, apply and score one row."""
    variant, loss = name.split("-")
    run, predictions, scores = (out / folder / name for folder in ("runs", "predictions", "scores"))
    row = [f"method.discriminator.variant={variant}", f"method.adversarial_paired={loss}"]
    cost = train_once("mrgan", [*settings, *row], out / "dataset", run)
    transmodal("synthesize", out / "test", predictions, "--model", run)
    transmodal("evaluate", predictions, out / "test", scores, "--direction", "ct2mr", "--protocol", "mr-gan")
    found, (mae, psnr) = summary(scores)["mr-gan"], PAPER[name]
    minutes, measured = f"{cost['cpu_s'] / 60:.1f}", [cell(found[metric], 2) for metric in ("mae_grey", "psnr_db", "psnr_mrgan")]
    return f"| {' | '.join([variant, loss.replace('_', ' '), minutes, *measured, mae, psnr])} |"


if __name__ == "__main__":
    main()
