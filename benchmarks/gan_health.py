"""Break CycleGAN on purpose, and see which warnings of its health come: python benchmarks/gan_health.py OUT [--only ROW ...] [--steps N].

A sound training, and others that differ from it in one thing each, which is known to go wrong: generators that cannot follow their
discriminators, generators that run away, and CTs that lie upside down, so that no synthetic image can be both like a CT and like the
anatomy of its source. Everything goes through the command line; what an earlier call has finished in OUT is kept, so give another OUT with
other options.
"""

import argparse
import shutil
from pathlib import Path

import nibabel as nib
from cli import train_once, transmodal
from gans import PERCENTILES, SIMULATED, scaled

from transmodal.engine.health import HealthWatch
from transmodal.engine.logs import METRICS_NAME, read_metrics
from transmodal.reporting.health import health_words, numbers

# Whether CTs lie upside down, and what is changed of the sound training.
ROWS: dict[str, tuple[bool, list[str]]] = {
    "sound": (False, []),
    "generators that stand still": (False, ["method.learning_rate_generator=1e-7"]),
    "generators that run away": (False, ["method.learning_rate_generator=0.05"]),
    "CTs upside down": (True, []),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    make_data(arguments.out)
    for name in arguments.only:
        make_row(name, arguments.out, arguments.steps)
    print("| training | warnings, with the step |\n|---|---|")
    for name in arguments.only:
        print(f"| {name} | {', '.join(warnings(run_of(name, arguments.out))) or '–'} |")
    for name in arguments.only:
        words = health_words(numbers(read_metrics(run_of(name, arguments.out) / METRICS_NAME)))
        print(f"\n{name}:", *words, sep="\n- ")


def make_data(out: Path) -> None:
    """12 heads, and the same with their CTs turned over."""
    upright, turned = out / "upright" / "heads", out / "turned" / "heads"
    transmodal("simulate", upright, "--subjects", "12", "--seed", "1", "--prefix", "head", *SIMULATED)
    if not turned.is_dir():
        unfinished = turned.with_name("unfinished")
        shutil.copytree(upright, unfinished, dirs_exist_ok=True)
        for path in unfinished.rglob("ct.nii.gz"):
            turn_over(path)
        unfinished.rename(turned)
    for heads in (upright, turned):
        settings = ("preparation.spacing_mm=2", "preparation.registration.kind=none")
        transmodal("prepare", heads, heads.with_name("dataset"), *(word for setting in settings for word in ("--set", setting)))


def turn_over(path: Path) -> None:
    """Reverse the voxels of a file from bottom to top and from back to front, on the grid that it has."""
    image = nib.nifti1.load(path)
    voxels = image.dataobj[:, ::-1, ::-1]  # pyright: ignore[reportIndexIssue]
    nib.nifti1.Nifti1Image(voxels, image.affine, image.header).to_filename(path)


def make_row(name: str, out: Path, steps: int) -> None:
    turned, own = ROWS[name]
    dataset = out / ("turned" if turned else "upright") / "dataset"
    train_once("cyclegan", [*scaled(steps), *PERCENTILES, *own], dataset, run_of(name, out))


def warnings(run: Path) -> list[str]:
    """What a training was warned of, and when."""
    watch = HealthWatch()
    return [f"{finding.kind} ({step})" for step, row in numbers(read_metrics(run / METRICS_NAME)) for finding in watch.look(row)]


def run_of(name: str, out: Path) -> Path:
    return out / "runs" / name.replace(" ", "-")


if __name__ == "__main__":
    main()
