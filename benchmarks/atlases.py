"""Leave-one-out of simulated full-size heads by atlases: python benchmarks/atlases.py OUT [--heads 6] [--only ROW ...] [--times N].

Each head of 1 mm is synthesized from the others: matched by the surfaces of their brains or registered by intensities, affine or with a
free-form deformation, from the whole MR and from one that has been cropped. The first table: mean absolute error inside the head and Dice
of the bone by k-means, over the field of view that both MRs have, so that cropped rows can be compared with whole ones; and seconds an
atlas, which are those of registering and moving it. The second: one of these rows with other fusions. The third: how well the brain is
found where its mask is not given. Scores are kept in OUT, and so are registrations. With --times there is only a table of seconds an
atlas, of the first N heads, with nothing kept: for when nothing else runs.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from cli import transmodal

from transmodal.core.errors import ConfigError, DataError
from transmodal.core.files import read_json, write_json
from transmodal.core.volume import Volume
from transmodal.evaluation.bone import bone_mask
from transmodal.evaluation.metrics import dice
from transmodal.imaging.brain import strip_by_deepbet
from transmodal.imaging.intensity import measure
from transmodal.imaging.preparation import PreparedScan
from transmodal.methods.atlas import Atlas, AtlasSettings
from transmodal.methods.atlas_registration import AtlasHead, AtlasRegistration
from transmodal.methods.fusion import Fusion
from transmodal.methods.runs import load_method

# Fractions of the head's height and depth that are left: no neck, face or crown, as where a scan is made for a part of the brain.
CROP = {1: (0.1, 1.0), 2: (0.45, 0.9)}
REGISTRATIONS = {
    f"{by}, {'free-form' if spacing else 'affine'}": AtlasRegistration(by=by, free_form_mm=spacing)
    for by in ("surface", "intensity")
    for spacing in (None, 30.0)
}
FIELDS = ("whole", "cropped")
# The row of which other fusions are scored.
FUSED = "surface, free-form, whole"
ROWS = [f"{name}, {field}" for field in FIELDS for name in REGISTRATIONS]


@dataclass(frozen=True)
class Case:
    """A head that is synthesized: its MR, the masks of head and brain, its CT, and which slices are scored."""

    scan: PreparedScan
    brain: Volume
    ct: np.ndarray
    scored: tuple[slice, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, metavar="ROW")
    parser.add_argument("--times", type=int, metavar="N")
    arguments = parser.parse_args()
    out = arguments.out
    transmodal("simulate", out / "heads", "--subjects", str(arguments.heads), "--seed", "6", "--spacing-mm", "1")
    transmodal("prepare", out / "heads", out / "dataset")
    transmodal("atlas", "build", out / "dataset", out / "set")
    atlases = load_method(out / "set", torch.device("cpu"))
    assert isinstance(atlases, Atlas)
    if arguments.times:
        print_times(atlases, arguments.only, arguments.times)
        return
    print("| registration | MR | MAE, HU | bone Dice | s an atlas |\n|---|---|---|---|---|")
    for row in arguments.only:
        name, field = row.rsplit(", ", 1)
        scores = list(score_row(atlases, AtlasSettings(registration=REGISTRATIONS[name]), field, out, row))
        cells = [cell([score[key] for score in scores], digits) for key, digits in (("mae", 1), ("dice", 3), ("seconds", 1))]
        print(f"| {name} | {field} | {' | '.join(cells)} |", flush=True)
    print(f"\n| fusion ({FUSED}) | MAE, HU | bone Dice |\n|---|---|---|")
    name, field = FUSED.rsplit(", ", 1)
    for fusion in get_args(Fusion):
        settings = AtlasSettings(registration=REGISTRATIONS[name], fusion=fusion)
        scores = list(score_row(atlases, settings, field, out, f"{FUSED}, {fusion}"))
        print(f"| {fusion} | {cell([s['mae'] for s in scores], 1)} | {cell([s['dice'] for s in scores], 3)} |", flush=True)
    print("\n| brain found by | MR | Dice with the true mask | refused |\n|---|---|---|---|")
    for field in FIELDS:
        print_brains("the atlases", field, atlases, out, lambda method, case: method.find_brain(case.scan.volume, method.heads))
        print_brains("deepbet", field, atlases, out, lambda _, case: strip_by_deepbet(case.scan.volume))


def print_times(atlases: Atlas, rows: list[str], count: int) -> None:
    print("| registration | MR | s an atlas |\n|---|---|---|")
    for row in rows:
        name, field = row.rsplit(", ", 1)
        settings = AtlasSettings(registration=REGISTRATIONS[name])
        times = [score(others(atlases, head, settings), case_of(head, field))["seconds"] for head in atlases.heads[:count]]
        print(f"| {name} | {field} | {statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f}) |", flush=True)


def cell(values: list[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f} ({statistics.stdev(values):.{digits}f})"


def score_row(atlases: Atlas, settings: AtlasSettings, field: str, out: Path, title: str) -> Iterator[dict[str, float]]:
    """The scores of each head, which are kept."""
    note = out / "scores" / f"{title}.json"
    done = read_json(note) if note.is_file() else {}
    for head in atlases.heads:
        if head.id not in done:
            done[head.id] = score(others(atlases, head, settings, out / "kept"), case_of(head, field))
            write_json(note, done)
        yield done[head.id]


def others(atlases: Atlas, left_out: AtlasHead, settings: AtlasSettings, kept: Path | None = None) -> Atlas:
    """All atlases but one, registered and fused so."""
    method = Atlas(settings, atlases.setting)
    method.folder = kept
    method.heads = tuple(head for head in atlases.heads if head is not left_out)
    return method


def case_of(head: AtlasHead, field: str) -> Case:
    """A head of the set as a scan, whole or cropped; scored are the slices that both have."""
    assert head.brain is not None
    mask = head.mr.with_array(np.asarray(head.mr.array) > 0, "mask")
    scored = crop(mask)
    cut = scored if field == "cropped" else (slice(None),) * 3
    mr, inside, brain = (part(volume, cut) for volume in (head.mr, mask, head.brain))
    window = scored if field == "whole" else (slice(None),) * 3
    return Case(PreparedScan(mr, inside, measure(mr, inside)), brain, np.asarray(head.ct.array)[scored].astype(np.float32), window)


def crop(mask: Volume) -> tuple[slice, ...]:
    """The voxels that are left."""
    spans = []
    for axis in range(3):
        inside = np.flatnonzero(mask.array.any(axis=tuple(k for k in range(3) if k != axis)))
        low, high = CROP.get(axis, (None, None))
        height = inside[-1] + 1 - inside[0]
        spans.append(slice(None) if low is None else slice(inside[0] + round(low * height), inside[0] + round(high * height)))
    return tuple(spans)


def part(volume: Volume, spans: tuple[slice, ...]) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] = volume.grid.to_world(np.array([float(span.start or 0) for span in spans]))
    return replace(volume, array=volume.array[spans], affine=affine)


def score(method: Atlas, case: Case) -> dict[str, float]:
    """Errors and Dice where both fields of view are, and the time an atlas takes."""
    method = method.with_brain(case.brain) if method.uses_brain else method
    began = time.perf_counter()
    fused = method.fuse(case.scan)
    seconds = (time.perf_counter() - began) / len(method.heads)
    inside = np.asarray(case.scan.mask.array)[case.scored] > 0
    made = np.where(inside, fused.ct[case.scored], np.float32(-1000))
    found, true = bone_mask(made, inside), bone_mask(case.ct, inside)
    return {"mae": float(np.abs(made - case.ct)[inside].mean()), "dice": dice(found, true), "seconds": seconds}


def print_brains(title: str, field: str, atlases: Atlas, out: Path, find: Callable[[Atlas, Case], Volume]) -> None:
    scores, refused = [], 0
    for head in atlases.heads:
        case, method = case_of(head, field), others(atlases, head, AtlasSettings(), out / "kept")
        try:
            found = find(method, case)
        except DataError:
            refused += 1
            continue
        except ConfigError as error:
            print(f"| {title} | {field} | not available: {error} | |")
            return
        scores.append(dice(np.asarray(found.array) > 0, np.asarray(case.brain.array) > 0))
    print(f"| {title} | {field} | {cell(scores, 3) if len(scores) > 1 else '–'} | {refused} of {len(atlases.heads)} |", flush=True)


if __name__ == "__main__":
    main()
