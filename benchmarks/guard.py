"""What the guard of `synthesize` rests on, and how often it is wrong.

    python benchmarks/guard.py template           write src/transmodal/imaging/head_template.safetensors: an average of simulated heads
    python benchmarks/guard.py typical            write src/transmodal/imaging/guard.toml: what scans of simulated heads are like
    python benchmarks/guard.py measure            the table of docs/guard.md: false alarms and misses on other heads than these
    python benchmarks/guard.py scans SCAN ...     what is found in real MR scans, as they are and as they should not be

Heads are simulated at 3 mm, which is finer than what the guard looks at. What is typical are MRs that are drawn of them as any-mr draws
those that it is trained on; what is measured are other scans, of a contrast of physics or of chance. All have slices of up to 6 mm, a bias
and noise, and may end anywhere below the brain.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from transmodal.core.progress import track
from transmodal.core.volume import Grid, Volume
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.guard import FEATURES, TYPICAL_NAME, Typical, guard, measure
from transmodal.imaging.head_template import TEMPLATE_NAME, TEMPLATE_SHAPE, TISSUES, read_template, template_grid
from transmodal.imaging.pose import fit_head, right_angle_turns
from transmodal.imaging.scan import read_scan
from transmodal.methods.generated_anatomy import draw_anatomy
from transmodal.methods.generation import Generation, make_mr
from transmodal.simulation.contrast import MR_PRESETS, CTConfig, MRConfig, draw_mr, simulate_ct, simulate_mr
from transmodal.simulation.head import head_grid, simulate_anatomy
from transmodal.simulation.labels import brain_mask
from transmodal.simulation.parameters import HeadConfig, draw_head
from transmodal.simulation.tissues import Tissue

PACKAGE = Path(__file__).parents[1] / "src" / "transmodal" / "imaging"
SPACING_MM, MARGIN_MM = 3.0, 18.0
# Of each purpose its own heads.
TEMPLATE_SEED, TYPICAL_SEED, MEASURED_SEED = 5, 6, 7
TEMPLATE_HEADS = 14
MEMBERS: dict[str, tuple[Tissue, ...]] = {
    "fat": (Tissue.SKIN, Tissue.FAT),
    "muscle": (Tissue.MUSCLE, Tissue.MUCOSA, Tissue.CARTILAGE),
    "bone": (Tissue.CORTICAL_BONE, Tissue.DIPLOE, Tissue.TOOTH),
    "fluid": (Tissue.CSF, Tissue.EYE, Tissue.LENS),
    "grey": (Tissue.GREY_MATTER,),
    "white": (Tissue.WHITE_MATTER,),
}

# The top of the head to what the header calls the front.
FACE = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
# What any-mr draws, at 3 mm: what it changes by voxels of 1 mm would be changed by too much.
GENERATION = Generation(
    deformation=1.0,
    deformation_grid=13,
    wrinkles=0.25,
    wrinkles_grid=4,
    air_cells=0,
    thickness_change=0,
    lining=0,
    wide_fluid=0,
    strands=0,
    chemical_shift=0,
    cuts=0,
    blur=0.3,
    thickness=1,
    coarseness=1,
)
# Of a volume that is white matter throughout, such an MR is its bias alone.
FLAT = MRConfig(sequence="spin_echo", tr_ms=1000, te_ms=10, noise=0, texture=0, tissue_spread=0, bias=0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("template", "typical", "measure", "scans"))
    parser.add_argument("scans", type=Path, nargs="*")
    parser.add_argument("--heads", type=int, default=44)
    arguments = parser.parse_args()
    if arguments.what == "template":
        write_template()
    elif arguments.what == "typical":
        write_typical(arguments.heads)
    elif arguments.what == "measure":
        measure_heads(arguments.heads)
    else:
        measure_scans(arguments.scans)


def draw_subject(seed: int, number: int) -> HeadConfig:
    """Draw a head: three adults, then a child or an infant."""
    rng = np.random.default_rng([seed, number])
    return draw_head(rng, None if number % 4 else float(rng.uniform(0.5, 17)))


def anatomy(config: HeadConfig, number: int) -> Volume:
    """Simulate the whole head with air around it, and the neck cut by the border."""
    shape = [int(np.ceil((side * scale + 2 * MARGIN_MM) / SPACING_MM)) for side, scale in zip((188, 233, 255), config.scale, strict=True)]
    grid = head_grid((shape[0], shape[1], shape[2]), config, SPACING_MM)
    affine = grid.affine.copy()
    affine[2, 3] += MARGIN_MM
    return simulate_anatomy(config, Grid(grid.shape, affine), 1000 + number)


def draw_scan(labels: Volume, rng: np.random.Generator, whole: bool = False) -> Volume:
    """Draw an MR of a head: contrast, thickness of the slices and, unless it is to be whole, where it ends below."""
    thickness, axis = float(rng.uniform(SPACING_MM, 6.0)), int(rng.integers(3))
    if rng.random() < 0.5:
        config = draw_mr(str(rng.choice(list(MR_PRESETS))), rng)
        scan = simulate_mr(labels, config.model_copy(update={"slice_mm": thickness, "slice_axis": axis}), rng)
    else:
        scan = contrast_of_chance(labels, rng)
    return sliced(scan, rng, thickness, axis, whole)


def generated_scan(labels: Volume, rng: np.random.Generator) -> Volume:
    """Draw an MR of a head as any-mr draws it for its training, and then its slices as those of other scans."""
    torch.manual_seed(int(rng.integers(2**31)))
    head = draw_anatomy(torch.from_numpy(labels.array.astype(np.float32))[None, None], GENERATION)
    scan = labels.with_array(make_mr(head, GENERATION)[0, 0].numpy(), "mr")
    return sliced(scan, rng, float(rng.uniform(SPACING_MM, 6.0)), int(rng.integers(3)))


def sliced(scan: Volume, rng: np.random.Generator, thickness: float, axis: int, whole: bool = False) -> Volume:
    """Take slices of a thickness, from where the scan is to end below."""
    spacing = [SPACING_MM] * 3
    spacing[axis] = thickness
    below = 0 if whole else int(rng.uniform(0, 0.38) * scan.shape[2])
    grid = isotropic_grid(cut(scan, 2, below, scan.shape[2]).grid, (spacing[0], spacing[1], spacing[2]))
    return resample(scan, grid)


def contrast_of_chance(labels: Volume, rng: np.random.Generator) -> Volume:
    """Draw the intensity of every tissue, compact bone the darkest, with the imperfections of an MR."""
    levels = rng.uniform(0.1, 1, len(Tissue)).astype(np.float32)
    levels[[Tissue.BACKGROUND, Tissue.SINUS_AIR]] = 0
    compact = rng.uniform(0, 0.35)
    levels[[Tissue.CORTICAL_BONE, Tissue.TOOTH]] = compact
    levels[Tissue.DIPLOE] = rng.uniform(compact, 1)
    imperfect = simulate_mr(labels.with_array(np.full(labels.shape, Tissue.WHITE_MATTER, np.uint8)), FLAT, rng)
    return labels.with_array((levels[labels.array] * imperfect.array + np.abs(rng.normal(0, 2, labels.shape))).astype(np.float32), "mr")


def cut(scan: Volume, axis: int, start: int, stop: int) -> Volume:
    """Take a stretch of the field of view."""
    slices, corner = [slice(None)] * 3, np.zeros(3)
    slices[axis], corner[axis] = slice(start, stop), start
    affine = scan.affine.copy()
    affine[:3, 3] = scan.grid.to_world(corner)
    return Volume(scan.array[tuple(slices)], affine, scan.modality)


def turned(scan: Volume, turn: np.ndarray) -> Volume:
    """Give a scan a header that is wrong by a turn."""
    affine = np.eye(4)
    affine[:3] = turn @ scan.affine[:3]
    return Volume(scan.array, affine, scan.modality)


def write_template() -> None:
    """Average heads of one size and pose, both halves alike."""
    grid, total = template_grid(), np.zeros((*TEMPLATE_SHAPE, len(TISSUES)))
    for number in track(range(TEMPLATE_HEADS), "simulating"):
        rng = np.random.default_rng([TEMPLATE_SEED, number])
        head = draw_head(rng, None if number % 7 else 6.0)
        labels = anatomy(head.model_copy(update={"scale": (0.92,) * 3, "rotation_deg": (0.0,) * 3, "shift_mm": (0.0,) * 3}), number)
        for tissue, name in enumerate(TISSUES):
            total[..., tissue] += shares(labels, MEMBERS[name], grid)
    total = (total + total[::-1]) / (2 * TEMPLATE_HEADS)
    save_file({"right": np.round(255 * total[TEMPLATE_SHAPE[0] // 2 :]).astype(np.uint8)}, PACKAGE / TEMPLATE_NAME)


def shares(labels: Volume, members: tuple[Tissue, ...], grid: Grid) -> np.ndarray:
    """The share of a tissue at the points of a grid; the neck goes on below."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    smooth = gaussian_filter(np.isin(labels.array, members).astype(np.float32), 6.0 / SPACING_MM / np.sqrt(8 * np.log(2)))
    points = labels.grid.to_voxel(grid.to_world(np.stack(np.indices(grid.shape), axis=-1)))
    return map_coordinates(smooth, np.moveaxis(points, -1, 0), order=1, mode="nearest")


def write_typical(heads: int) -> None:
    """Measure the features of scans of simulated heads, and the distance that few of the last quarter of the heads exceed."""
    found = np.array([[features(scan) for scan in scans] for scans in track(list(drawn(TYPICAL_SEED, heads)), "measuring")])
    known, held_out = found[: heads * 3 // 4].reshape(-1, len(FEATURES)), found[heads * 3 // 4 :].reshape(-1, len(FEATURES))
    mean, covariance = known.mean(axis=0), np.cov(known.T) + 1e-5 * np.eye(len(FEATURES))
    typical = Typical(mean=tuple(mean.round(5).tolist()), covariance=tuple(tuple(row) for row in covariance.round(7).tolist()), limit=0)
    limit = float(np.quantile([typical.distance(row) for row in held_out], 0.995))
    rows = "\n".join(f"  {list(row)}," for row in typical.covariance)
    (PACKAGE / TYPICAL_NAME).write_text(
        f"# Written by: python benchmarks/guard.py typical --heads {heads}\n# Of {', '.join(FEATURES)}.\n"
        f"mean = {list(typical.mean)}\ncovariance = [\n{rows}\n]\nlimit = {limit:.2f}\n"
    )


def drawn(seed: int, heads: int, scans: int = 4) -> Iterator[list[Volume]]:
    """Some scans of each of many heads."""
    for number in range(heads):
        labels = anatomy(draw_subject(seed, number), number)
        rng = np.random.default_rng([seed, number, 1])
        yield [generated_scan(labels, rng) for _ in range(scans)]


def features(scan: Volume) -> np.ndarray:
    """What of a scan is compared with the usual."""
    fits = fit_head(scan)
    return measure(fits.copy, fits.best).features


def faults(scan: Volume, brain: np.ndarray, rng: np.random.Generator) -> dict[str, Callable[[], Volume]]:
    """The same scan as it should not be."""
    turns = {"upside down": np.diag((-1.0, 1.0, -1.0)), "back to front": np.diag((-1.0, -1.0, 1.0)), "front and top swapped": FACE}
    middle, side = (n // 2 for n in scan.shape[1::-1])
    any_turn = right_angle_turns()[int(rng.integers(1, 24))]
    return {
        "skull stripped": lambda: scan.with_array(np.where(brain, scan.array, 0)),
        **{name: lambda turn=turn: turned(scan, turn) for name, turn in turns.items()},
        "any wrong orientation": lambda: turned(scan, any_turn),
        "right half only": lambda: cut(scan, 0, side, scan.shape[0]),
        "left half blank": lambda: scan.with_array(np.where(np.arange(scan.shape[0])[:, None, None] < side, 0, scan.array)),
        "front half only": lambda: cut(scan, 1, middle, scan.shape[1]),
        "noise": lambda: scan.with_array(rng.normal(100, 20, scan.shape).astype(np.float32)),
    }


def measure_heads(heads: int) -> None:
    """Count the outcomes for heads that neither the template nor the usual was made of."""
    outcomes: dict[str, list[str]] = {}
    for number in track(range(heads), "measuring"):
        labels = anatomy(draw_subject(MEASURED_SEED, number), number)
        rng = np.random.default_rng([MEASURED_SEED, number, 1])
        say(outcomes, "MR, cut anywhere below the brain", draw_scan(labels, rng), number)
        scan = resample(draw_scan(labels, rng, whole=True), labels.grid)
        say(outcomes, "MR, whole head", scan, number)
        for name, make in faults(scan, np.asarray(brain_mask(labels).array), rng).items():
            say(outcomes, name, make())
        ct = simulate_ct(labels, CTConfig(), rng).array.astype(np.float32)
        say(outcomes, "CT, HU + 1024, as MR", scan.with_array(ct + 1024))
        say(outcomes, "CT, window of 0 to 80 HU, as MR", scan.with_array(np.clip(ct, 0, 80)))
        say(outcomes, "limb", limb(rng))
    print_table(outcomes)


def say(outcomes: dict[str, list[str]], name: str, scan: Volume, number: int | None = None) -> None:
    """Note the outcome; of false alarms, and of misses, tell which."""
    report = guard(scan)
    outcomes.setdefault(name, []).append(report.outcome)
    if (number is None) == (report.outcome == "proceed") or (number is not None and report.outcome != "proceed"):
        values = ", ".join(f"{check.name} {check.value:.2f}" for check in report.checks)
        print(f"{name}: {report.outcome} ({values})", flush=True)


def limb(rng: np.random.Generator) -> Volume:
    """Draw a limb: a cylinder of fat, muscle, and one bone or two with marrow, which are thicker at a joint."""
    shape = (64, 64, int(rng.integers(50, 90)))
    x, y, z = (3.0 * (np.arange(n) - (n - 1) / 2) for n in shape)
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    radius, fat, two = rng.uniform(55, 85), rng.uniform(5, 14), rng.random() < 0.5
    across = np.hypot(x, y * rng.uniform(1, 1.2)) / (1 + 0.1 * np.sin(z / 60))
    image = np.select([across < radius - fat, across < radius], rng.uniform(20, 100, 2), 0.0)
    for place in (-22, 22) if two else (0,):
        bone, thickness = np.hypot(x - place, y - 5), rng.uniform(12, 20) + 14 * np.exp(-((z / 40) ** 2))
        image = np.where(bone < thickness, np.where(bone < thickness - 4, rng.uniform(30, 100), 8.0), image)
    return Volume((image + np.abs(rng.normal(0, 3, shape))).astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]), "mr")


def measure_scans(paths: list[Path]) -> None:
    """Tell what is found in real scans."""
    outcomes: dict[str, list[str]] = {}
    for path in paths:
        scan = read_scan(path, "mr")
        report = guard(scan)
        print(
            f"{path.name}: {report.outcome}\n  "
            + "\n  ".join(f"{check.name} {check.value:.3f}: {check.outcome}" for check in report.checks)
        )
        upright = resample(scan, isotropic_grid(scan.grid, SPACING_MM, upright=True))
        fit = fit_head(upright).best
        brain = in_brain(upright, fit.pose.to_template)
        for name, make in faults(upright, brain, np.random.default_rng(0)).items():
            say(outcomes, name, make())
    print_table(outcomes)


def in_brain(scan: Volume, to_template: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A mask of the brain where none is known: where the template, laid over the scan, has it."""
    points = scan.grid.to_world(np.argwhere(np.ones(scan.shape)).astype(float))
    return (read_template().read(to_template(points))[:, 3:].sum(axis=1) > 0.55).reshape(scan.shape)


def print_table(outcomes: dict[str, list[str]]) -> None:
    """One line a kind of scan."""
    print("| scan | number | proceed | warn | refuse |\n|---|---|---|---|---|")
    for name, found in outcomes.items():
        print(f"| {name} | {len(found)} | " + " | ".join(str(found.count(outcome)) for outcome in ("proceed", "warn", "refuse")) + " |")


if __name__ == "__main__":
    main()
