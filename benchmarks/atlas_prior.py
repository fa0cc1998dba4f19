"""Networks that build on atlases, beside one that does not: python benchmarks/atlas_prior.py OUT [--only ROW ...] [--steps N].

Through the command line, on simulated heads of 2 mm: 20 to train on, of which five are the atlases, and 6 others to test on. The U-Net is
that of the recipe unet2d for every row; what is changed of it is in `SHARED`. The table has the errors on the test heads, and what of the
atlases' borders stays visible in the weighted sum: the mean squared gradient of the error (the synthetic CT less the true one, in HU² per
mm²) where W1 changes (its gradient is among the steepest tenth inside the head), over that of the rest of the head. A picture of one
head, ``OUT/atlas_prior.png``, has a column for each row. What an earlier call has finished in OUT is kept.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from cli import cell, summary, train_once, transmodal
from matplotlib.figure import Figure

from transmodal.core.volume import Volume
from transmodal.engine.predict import prepare_source
from transmodal.imaging.grid import canonical, resample
from transmodal.imaging.scan import read_scan
from transmodal.methods.prior import Prior
from transmodal.methods.runs import load_method
from transmodal.networks.atlas_prior import BoneWeighted, saturate

SIMULATED = ("--shape", "96", "112", "96", "--spacing-mm", "2")
ATLASES = ("head0001", "head0002", "head0003", "head0004", "head0005")
# The budget of unet2d in the table of all recipes; its network has no normalisation, and so few steps need a larger learning rate.
SHARED = ["train.batch_size=4", "train.validate_every=100", "method.optimizer.learning_rate=3e-4"]
ROWS: dict[str, tuple[str, list[str]]] = {
    "atlases alone": ("atlas-affine", []),
    "unet2d": ("unet2d", []),
    "unet2d-atlas-prior": ("unet2d-atlas-prior", []),
    "unet2d-atlas-prior, informed": ("unet2d-atlas-prior", ["method.informed=true"]),
    "unet2d-atlas-channel": ("unet2d-atlas-channel", []),
}
# The row whose weights the borders are those of.
WEIGHTED = "unet2d-atlas-prior"
STEEPEST = 90
CT_WINDOW_HU, ERROR_HU = (-1000, 1500), 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    out = arguments.out
    make_data(out)
    for name in arguments.only:
        make_row(name, out, arguments.steps)
    print("| | MAE, HU | PSNR, dB | SSIM | bone Dice | gradient of the error at the borders / elsewhere, HU²/mm² | training, min |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.only:
        print(table_row(name, out), flush=True)
    draw(arguments.only, out)


def make_data(out: Path) -> None:
    transmodal("simulate", out / "heads", "--subjects", "20", "--seed", "1", "--prefix", "head", *SIMULATED)
    transmodal("simulate", out / "test", "--subjects", "6", "--seed", "4", "--prefix", "test", *SIMULATED)
    transmodal("prepare", out / "heads", out / "dataset", "--set", "preparation.spacing_mm=2")
    transmodal("atlas", "build", out / "dataset", out / "atlases", "--subjects", *ATLASES)


def make_row(name: str, out: Path, steps: int) -> None:
    """Train a row, apply it and score it."""
    recipe, own = ROWS[name]
    run = run_of(name, out)
    if recipe != "atlas-affine":
        theirs = [f"method.atlases={out / 'atlases'}"] if recipe != "unet2d" else []
        train_once(recipe, [*SHARED, f"train.steps={steps}", *theirs, *own], out / "dataset", run)
    predictions = out / "predictions" / folder(name)
    transmodal("synthesize", out / "test", predictions, "--model", run)
    protocols = ("--protocol", "synthrad2023", "--protocol", "bone")
    transmodal("evaluate", predictions, out / "test", out / "scores" / folder(name), *protocols)


def table_row(name: str, out: Path) -> str:
    found = summary(out / "scores" / folder(name))
    errors = [cell(found["synthrad2023"][metric], digits) for metric, digits in (("mae_hu", 1), ("psnr_db", 2), ("ssim", 3))]
    at, elsewhere = np.mean([border_energy(name, head, out) for head in test_heads(out)], axis=0)
    trained = "–" if name == "atlases alone" else f"{train_once('', [], out, run_of(name, out))['wall_s'] / 60:.1f}"
    return f"| {name} | {' | '.join(errors)} | {cell(found['bone']['dice_bone'], 3)} | {at:.0f} / {elsewhere:.0f} | {trained} |"


def border_energy(name: str, head: Path, out: Path) -> tuple[float, float]:
    """Mean squared gradient of the error where W1 changes, and in the rest of the head."""
    weight, inside = weight_of(head, out)
    made, true = (volume.array.astype(np.float32) for volume in (prediction_of(name, head, out), read_scan(head / "ct.nii.gz", "ct")))
    energy = squared_gradient(made - true, weight.spacing)
    steep = squared_gradient(np.asarray(weight.array), weight.spacing)
    border = inside & (steep > np.percentile(steep[inside], STEEPEST))
    return float(energy[border].mean()), float(energy[inside & ~border].mean())


def squared_gradient(image: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    return np.sum([axis**2 for axis in np.gradient(image, *spacing)], axis=0)


def weight_of(head: Path, out: Path) -> tuple[Volume, np.ndarray]:
    """W1 on the grid of a test head, and the head's mask."""
    scan, mask = read_scan(head / "mr.nii.gz", "mr"), read_scan(head / "mask.nii.gz", "mask")
    method = load_method(run_of(WEIGHTED, out), torch.device("cpu"))
    assert isinstance(method, Prior)
    network = method.networks["generator"]
    assert isinstance(network, BoneWeighted)
    prepared, brain = prepare_source(scan, method.setting), read_scan(head / "brain.nii.gz", "mask")
    smooth = torch.from_numpy(method.with_brain(brain).beside(prepared).images[1 + network.weighting.channel])
    weight = network.weighting.alpha * saturate(smooth[None, None], network.weighting.threshold)[0, 0] + network.weighting.beta
    moved = resample(prepared.volume.with_array(weight.numpy(), "uncertainty"), scan.grid)
    return moved, np.asarray(mask.array) > 0


def draw(names: Sequence[str], out: Path) -> None:
    """A slice of the first test head: W1 and the true CT, then of each row the synthetic CT and, below, its error."""
    head = test_heads(out)[0]
    true = read_scan(head / "ct.nii.gz", "ct")
    ct = middle(true)
    figure = Figure(figsize=(2.6 * (1 + len(names)), 6), layout="constrained")
    axes = figure.subplots(2, 1 + len(names))
    axes[0, 0].imshow(ct, cmap="gray", vmin=CT_WINDOW_HU[0], vmax=CT_WINDOW_HU[1])
    axes[0, 0].set_title("true CT")
    axes[1, 0].imshow(middle(weight_of(head, out)[0]), cmap="viridis", vmin=0, vmax=1)
    axes[1, 0].set_title("weight of the network, W1")
    for column, name in enumerate(names, start=1):
        made = middle(prediction_of(name, head, out))
        axes[0, column].imshow(made, cmap="gray", vmin=CT_WINDOW_HU[0], vmax=CT_WINDOW_HU[1])
        axes[0, column].set_title(name)
        axes[1, column].imshow(made - ct, cmap="RdBu", vmin=-ERROR_HU, vmax=ERROR_HU)
        axes[1, column].set_title(f"error, ±{ERROR_HU} HU")
    for one in axes.ravel():
        one.axis("off")
    figure.savefig(out / "atlas_prior.png", dpi=110)


def middle(volume: Volume) -> np.ndarray:
    """The axial slice at six tenths of the height, seen from below, the front at the top."""
    upright = canonical(volume)
    return np.asarray(upright.array, dtype=np.float32)[::-1, :, int(0.6 * upright.shape[2])].T[::-1]


def prediction_of(name: str, head: Path, out: Path) -> Volume:
    return read_scan(out / "predictions" / folder(name) / head.name / "sct.nii.gz", "ct")


def test_heads(out: Path) -> list[Path]:
    return sorted(path.parent for path in (out / "test").rglob("mr.nii.gz"))


def run_of(name: str, out: Path) -> Path:
    return out / "atlases" if name == "atlases alone" else out / "runs" / folder(name)


def folder(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


if __name__ == "__main__":
    main()
