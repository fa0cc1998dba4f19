"""Train the paired recipes, scaled down, apply them, and print the table of ``docs/results.md``.

Run as ``python benchmarks/recipes.py OUT LABELS SCANS [--only ROW ...]``. LABELS is a folder with the public label maps, SCANS one with
``colin27_t1.nii.gz`` and ``t1_head.nii.gz``. Everything goes through the command line, on heads of 2 mm; what an earlier call has
finished in OUT is kept. So that other work during the long trainings does not matter, the time of training is measured at the end, of 20
steps of each row, and multiplied; that of a volume is from the start of the command to its end.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from cli import cell, summary, train_once, transmodal
from matplotlib.figure import Figure
from safetensors.torch import save_file

from transmodal.contracts import LearnedMethod
from transmodal.core.volume import require_same_grid
from transmodal.engine.run import read_run
from transmodal.evaluation.metrics import dice
from transmodal.imaging.grid import canonical
from transmodal.imaging.scan import read_scan
from transmodal.methods.runs import load_method
from transmodal.networks.summary import count_parameters

BONE_HU = 250
SCANS = ("colin27_t1", "t1_head")
# Axis and place, in the field of view, of the slices in the pictures.
PLACES = ((2, 0.6), (1, 0.5), (0, 0.48))
COLIN_BONE = 7
SIMULATED = ("--shape", "96", "112", "96", "--spacing-mm", "2")
FEW = ["train.batch_size=4", "train.validate_every=100"]
# Neither network has normalisation; so few steps need larger ones than the paper's.
FASTER = "method.optimizer.learning_rate=3e-4"
SLICES = ["view.size=[128,128]", "train.validate_every=100", "train.patience=20"]
# The recipe of each row, and what is changed of it so that training takes some four minutes of two cores.
ROWS: dict[str, tuple[str, list[str]]] = {
    "unet2d-quick": ("unet2d-quick", []),
    "unet2d-planes": ("unet2d-planes", ["train.steps=1000", "train.decay_from=300", "train.validate_every=100"]),
    "unet25d": ("unet25d", ["train.steps=1000", "train.decay_from=300", "train.validate_every=100"]),
    "unet2d": ("unet2d", [*FEW, "train.steps=600", FASTER]),
    "unet3d": ("unet3d", ["train.batch_size=2", "train.validate_every=90", "train.steps=270", FASTER]),
    "resenc3d-quick": ("resenc3d-quick", []),
    "resenc3d": (
        "resenc3d",
        ["train.steps=140", "train.batch_size=1", "train.validate_every=70", "view.size=[64,64,64]", "predict.patch=[64,64,64]"],
    ),
    "light-unet": ("light-unet", [*SLICES, "train.steps=2400", "train.batch_size=8"]),
    "vgg-unet": ("vgg-unet", [*SLICES, "train.steps=540", "train.batch_size=4"]),
    "vgg-unet-tl": ("vgg-unet-tl", [*SLICES, "train.steps=540", "train.batch_size=4"]),
    "tissues2d": ("tissues2d", ["train.steps=600", "train.decay_from=300", "train.validate_every=100"]),
    "unet2d-features": ("unet2d-features", []),
    "bone-unet2d": ("bone-unet2d", [*FEW, "train.steps=600", FASTER]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("scans", type=Path)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    arguments = parser.parse_args()
    make_data(arguments.out, arguments.labels)
    for name in arguments.only:
        prepare_row(name, arguments.out, arguments.scans)
    lines = [table_row(name, arguments.out, arguments.labels, arguments.scans) for name in arguments.only]
    print("| recipe | steps × batch | parameters | training, min | MAE, HU | PSNR, dB | SSIM | bone Dice | Colin27 bone Dice | volume, s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))
    for scan in SCANS:
        draw([name for name in arguments.only if takes_mr(name)], arguments.scans / f"{scan}.nii.gz", arguments.out)


def make_data(out: Path, labels: Path) -> None:
    """26 heads to train on, of three origins, and four others to test on."""
    heads, test = out / "heads", out / "test"
    transmodal("simulate", heads / "procedural", "--subjects", "16", "--seed", "1", "--prefix", "head", *SIMULATED)
    for seed, prefix, file, mapping in (
        ("2", "newyork", "nyhead_labels.nii.gz", "new_york_head"),
        ("3", "usc", "usc19.5_fullhead_labels.nii.gz", "usc_19.5"),
    ):
        source = ("--labels", labels / file, "--mapping", mapping, "--spacing-mm", "2")
        transmodal("simulate", heads / prefix, "--subjects", "5", "--seed", seed, "--prefix", prefix, *source)
    transmodal("simulate", test, "--subjects", "4", "--seed", "4", "--prefix", "test", *SIMULATED)
    transmodal("prepare", heads, out / "dataset", "--set", "preparation.spacing_mm=2")


def prepare_row(name: str, out: Path, scans: Path) -> None:
    """Train a row, apply it, and score it."""
    run, scores = out / "runs" / name, out / "scores" / name
    train_once(ROWS[name][0], settings_of(name, out), out / "dataset", run)
    transmodal("synthesize", out / "test", out / "predictions" / name, "--model", run)
    protocols = ("synthrad2023", "tissue", "bone") if makes_images(name) else ("bone",)
    transmodal("evaluate", out / "predictions" / name, out / "test", scores, *(a for p in protocols for a in ("--protocol", p)))
    real = out / "real" / name / "t1_head.nii.gz"
    if takes_mr(name) and not real.is_file():
        transmodal("synthesize", scans / "t1_head.nii.gz", real, "--model", run)


def table_row(name: str, out: Path, labels: Path, scans: Path) -> str:
    """A line of the table, with times measured now."""
    run, real = out / "runs" / name, out / "real" / name / "colin27_t1.nii.gz"
    found, training = summary(out / "scores" / name), read_run(run).recipe["train"]
    seconds = transmodal("synthesize", scans / "colin27_t1.nii.gz", real, "--model", run)[0] if takes_mr(name) else None
    three = [("mae_hu", 1), ("psnr_db", 2), ("ssim", 3)]
    cells = [
        f"`{name}`",
        f"{training['steps']} × {training['batch_size']}",
        f"{parameters(run):,}".replace(",", " "),
        f"{training['steps'] * seconds_a_step(name, out) / 60:.1f}",
        *(cell(found["synthrad2023"][metric], digits) if makes_images(name) else "–" for metric, digits in three),
        cell(found["bone"]["dice_bone"], 3),
        f"{overlap(real, labels / 'colin27_labels.nii.gz'):.3f}" if takes_mr(name) else "–",
        f"{seconds:.1f}" if seconds else "–",
    ]
    return f"| {' | '.join(cells)} |"


def makes_images(name: str) -> bool:
    """Whether a row makes CTs, or masks of bone."""
    return name not in ("bone-unet2d", "tissues2d")


def takes_mr(name: str) -> bool:
    """Whether a row can be applied to the real scans."""
    return name != "tissues2d"


def settings_of(name: str, out: Path) -> list[str]:
    """What is changed of a row's recipe."""
    files = {
        "vgg-unet-tl": lambda: [f"method.network.encoder_weights={encoder_file(out)}"],
        "unet2d-features": lambda: [f"method.loss.features.run={out / 'runs' / 'tissues2d'}"],
    }
    return [*ROWS[name][1], *(files[name]() if name in files else [])]


def seconds_a_step(name: str, out: Path) -> float:
    """The difference that 20 more steps make to a training, a twentieth of it."""
    walls = []
    for steps in (5, 25):
        with tempfile.TemporaryDirectory() as folder:
            brief = [*settings_of(name, out), "train.validation_fraction=0", f"train.steps={steps}", "train.decay_from=0"]
            walls.append(train_once(ROWS[name][0], brief, out / "dataset", Path(folder) / "run")["wall_s"])
    return (walls[1] - walls[0]) / 20


def draw(names: Sequence[str], scan: Path, out: Path) -> None:
    """A picture of a real scan and of what each row made of it: axial, coronal and sagittal slices, the patient's right on the left."""
    mr = canonical(read_scan(scan, "mr"))
    top = np.percentile(mr.array[mr.array > mr.array.mean()], 98)
    columns = [("real T1", mr, (0, top))]
    for name in names:
        made = canonical(read_scan(out / "real" / name / scan.name, "ct"))
        columns.append((name, made, (-600, 1400) if makes_images(name) else (0, 1)))
    figure = Figure(figsize=(1.75 * len(columns), 6.1), facecolor="black", layout="constrained")
    panels = figure.subplots(3, len(columns))
    for column, (title, volume, limits) in enumerate(columns):
        for row, (axis, place) in enumerate(PLACES):
            plane = np.take(volume.array, int(place * volume.shape[axis]), axis).T[::-1, :: -1 if axis else 1]
            panels[row, column].imshow(plane, cmap="gray", vmin=limits[0], vmax=limits[1])
            panels[row, column].axis("off")
        panels[0, column].set_title(title, color="white", fontsize=8)
    figure.savefig(out / f"{scan.name.removesuffix('.nii.gz')}.png", dpi=80, facecolor="black")


def overlap(result: Path, labels: Path) -> float:
    """Dice of the bone in a synthetic CT, or of a mask of bone, with the skull of a label map."""
    found, truth = read_scan(result, "ct"), read_scan(labels, "labels")
    require_same_grid(found.grid, truth.grid, str(result), str(labels))
    is_mask = np.isin(found.array, (0, 1)).all()
    return dice(found.array > (0 if is_mask else BONE_HU), truth.array == COLIN_BONE)


def parameters(run: Path) -> int:
    """Trainable values of all networks of a run."""
    method = load_method(run, torch.device("cpu"))
    assert isinstance(method, LearnedMethod)
    return sum(count_parameters(network) for network in method.networks.values())


def encoder_file(out: Path) -> Path:
    """The encoder of the row ``vgg-unet`` as a file for the row with transfer, in place of ImageNet's, which cannot be shipped."""
    path = out / "encoder.safetensors"
    if not path.is_file():
        method = load_method(out / "runs" / "vgg-unet", torch.device("cpu"))
        assert isinstance(method, LearnedMethod)
        weights = method.networks["generator"].state_dict()
        save_file({name: tensor.contiguous() for name, tensor in weights.items() if name.startswith("features.")}, path)
    return path


if __name__ == "__main__":
    main()
