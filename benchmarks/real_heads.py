"""What a model makes of real MR scans: python benchmarks/real_heads.py RUN OUT SCAN [SCAN ...] [--bone LABELS=NUMBER] [--set KEY=VALUE].

For each scan: the synthetic CT on the scan's own grid, the time and the peak memory, the air deep in the head, and a picture. With
``--bone`` the first scan's synthetic CT is also compared with a label map on its grid, in which NUMBER is bone: Dice, precision and recall
above thresholds in HU, the shares of the points of either bone surface that lie within 2 mm of the other, and where the two differ.
``--set`` changes the recipe of the run in what prediction depends on, such as ``intensity.mr.power=0.5`` or ``method.brighter=[]``.
"""

import argparse
import resource
import shutil
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
from scipy import ndimage

from transmodal.core.config import override
from transmodal.core.volume import Volume, require_same_grid
from transmodal.engine.run import read_run, write_run
from transmodal.evaluation.metrics import dice
from transmodal.evaluation.surface import bone_surface, compare_surfaces, surface_statistics
from transmodal.imaging.grid import canonical
from transmodal.imaging.scan import read_scan, strip_scan_suffix, write_scan
from transmodal.methods.recipe import parse_recipe
from transmodal.methods.runs import load_method

matplotlib.use("Agg")
THRESHOLDS_HU = (250, 350, 500)
AIR_HU, NEAR_MM = -200, 2
HEIGHTS = ("lower third", "middle third", "upper third")
# Air of sinuses and mastoids, and how far from the surface of the head it lies.
SINUS_HU, DEEP_MM = -300, 8
# Fractions of the field of view at which the slices are taken, two of each plane.
PLACES = ((0.48, 0.62), (0.35, 0.55), (0.35, 0.6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--bone", metavar="LABELS=NUMBER")
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", default=[])
    arguments = parser.parse_args()
    method = load_method(copy_changed(arguments.run, arguments.set, arguments.out / "model"), torch.device("cpu"))
    for number, path in enumerate(arguments.scans):
        scan = read_scan(path, "mr")
        began = time.perf_counter()
        result = method.synthesize(scan)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        name = strip_scan_suffix(path.name)
        write_scan(result, arguments.out / f"{name}_sct.nii.gz")
        draw(scan, result, arguments.out / f"{name}.png")
        print(f"{name}: {'x'.join(map(str, scan.shape))} voxels, {seconds:.1f} s, peak {peak:.2f} GiB")
        print(f"  {deep_air(result):.1f} ml of air deep in the head")
        if arguments.bone and number == 0:
            compare(result, *arguments.bone.rsplit("=", 1))


def copy_changed(run: Path, assignments: list[str], folder: Path) -> Path:
    """A copy of a run, kept beside what it makes, whose recipe is changed in how scans are shown and volumes put together."""
    note = read_run(run)
    recipe = parse_recipe(override(note.recipe, assignments), "--set")
    setting = note.setting.model_copy(update={"intensity": recipe.intensity, "prediction": recipe.predict})
    shutil.copytree(run, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoints"))
    write_run(folder, note.model_copy(update={"recipe": recipe.model_dump(mode="json"), "setting": setting}))
    return folder


def compare(result: Volume, labels: str, number: str) -> None:
    """Print how well bone above each threshold agrees with a label map."""
    truth = read_scan(Path(labels), "labels")
    require_same_grid(result.grid, truth.grid, "the synthetic CT", labels)
    result, truth = canonical(result), canonical(truth)
    bone = truth.array == int(number)
    for threshold in THRESHOLDS_HU:
        found = result.array > threshold
        both = np.count_nonzero(found & bone)
        precision, recall = both / max(np.count_nonzero(found), 1), both / max(np.count_nonzero(bone), 1)
        print(f"  > {threshold} HU: bone Dice {dice(found, bone):.3f}, precision {precision:.3f}, recall {recall:.3f}")
    beyond, missed = (result.array > THRESHOLDS_HU[0]) & ~bone, bone & (result.array <= THRESHOLDS_HU[0])
    near = ndimage.distance_transform_edt(~bone, sampling=truth.spacing)[beyond] <= NEAR_MM
    air = result.array[missed] < AIR_HU
    print(f"  bone beyond the label: {near.mean():.1%} within {NEAR_MM} mm of it; what is missed of the label: {air.mean():.1%} made air")
    others = sorted(zip(*np.unique(truth.array[beyond], return_counts=True), strict=True), key=lambda pair: -pair[1])
    print("  label of the bone beyond it: " + ", ".join(f"{label} in {count / beyond.sum():.1%}" for label, count in others))
    planes = np.array_split(np.flatnonzero(bone.any(axis=(0, 1))), len(HEIGHTS))
    agreements = (dice(result.array[:, :, part] > THRESHOLDS_HU[0], bone[:, :, part]) for part in planes)
    print("  bone Dice by height: " + ", ".join(f"{name} {found:.3f}" for name, found in zip(HEIGHTS, agreements, strict=True)))
    everywhere = truth.with_array(np.ones_like(bone), "mask")
    surfaces = bone_surface(result, everywhere), bone_surface(truth.with_array(bone, "mask"), everywhere)
    if surfaces[0] and surfaces[1]:
        found = surface_statistics(compare_surfaces(surfaces[0], surfaces[1]))
        ways = {"of both surfaces": "within_2mm", "of the synthetic": "sct_to_ct_within_2mm", "of the true": "ct_to_sct_within_2mm"}
        print("  within 2 mm: " + ", ".join(f"{found[key]:.1%} {words}" for words, key in ways.items()))


def deep_air(result: Volume) -> float:
    """The volume, in ml, of air in the head that lies deep under its surface, in which nostrils and ears are closed."""
    head = ndimage.binary_fill_holes(ndimage.binary_closing(result.array > -500, iterations=4))
    deep = ndimage.distance_transform_edt(head, sampling=result.spacing) > DEEP_MM
    return float(np.count_nonzero(deep & (result.array < SINUS_HU)) * np.prod(result.spacing) / 1000)


def draw(scan: Volume, result: Volume, path: Path) -> None:
    """Two slices of each plane: the MR above, the synthetic CT below, the patient's right on the left."""
    from matplotlib.figure import Figure

    mr, ct = canonical(scan), canonical(result)
    top = np.percentile(mr.array[mr.array > mr.array.mean()], 98)
    figure = Figure(figsize=(18, 6.4), facecolor="black", layout="constrained")
    axes = figure.subplots(2, 6)
    for row, (volume, limits) in enumerate(((mr, (0, top)), (ct, (-600, 1400)))):
        for column in range(6):
            axis, place = divmod(column, 2)
            index = int(PLACES[axis][place] * volume.shape[axis])
            plane = np.take(volume.array, index, axis).T[::-1, :: -1 if axis else 1]
            across, up = (volume.spacing[k] for k in range(3) if k != axis)
            axes[row, column].imshow(plane, cmap="gray", vmin=limits[0], vmax=limits[1], aspect=up / across)
            axes[row, column].axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=72, facecolor="black")


if __name__ == "__main__":
    main()
