"""The report in words: what was scored, what came out, and what cannot be concluded."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from transmodal.core.volume import target_of
from transmodal.evaluation.protocol import MetricNote
from transmodal.evaluation.results import CaseScores, ScoreSheet
from transmodal.evaluation.statistics import Summary
from transmodal.evaluation.synthrad import SYNTHRAD2023
from transmodal.reporting.tables import badness, mean_sd, with_unit

# Under this many cases, means are said to be rough.
_FEW_CASES = 10


def leading(sheet: ScoreSheet) -> tuple[str, MetricNote]:
    """Name the protocol and metric that cases and methods are ordered by: the first of each."""
    return sheet.protocols[0].name, sheet.protocols[0].metrics[0]


def ranked(sheet: ScoreSheet) -> list[CaseScores]:
    """Order the cases from the best to the worst by the leading metric, without those that have no value of it."""
    protocol, metric = leading(sheet)
    values = {case.case: case.scores[protocol].values[metric.name] for case in sheet.cases}
    known = [case for case in sheet.cases if values[case.case] is not None]
    return sorted(known, key=lambda case: badness(metric, values[case.case] or 0.0))


def extremes(sheet: ScoreSheet) -> list[tuple[str, CaseScores]]:
    """Pick the best, the median and the worst case (the lower of two medians), each case once."""
    cases = ranked(sheet)
    picks = {"Best": 0, "Median": (len(cases) - 1) // 2, "Worst": len(cases) - 1}
    chosen: dict[int, str] = {}
    for name in ("Best", "Worst", "Median"):
        chosen.setdefault(picks[name], name)
    return [(chosen[index], cases[index]) for index in sorted(chosen) if cases]


def lead(name: str, sheet: ScoreSheet) -> list[str]:
    """Sentences on one method: how many cases, by which protocol, the headline numbers, the best and the worst case."""
    protocol = sheet.protocols[0]
    if not sheet.cases:
        return [f"No case of {name} could be scored."]
    sentences = [
        f"{name}: {product_of(sheet)} of {_cases(len(sheet.cases))}, scored against the true image by {protocol.title} ({_masks(sheet)})."
    ]
    numbers = [_headline(metric, sheet.summary[protocol.name][metric.name]) for metric in protocol.metrics]
    sentences.append(f"Mean (standard deviation) over the cases: {', '.join(numbers)}. Clipping: {protocol.clip}.")
    order = ranked(sheet)
    if len(order) > 1:
        metric = protocol.metrics[0]
        best, worst = (f"{case.case} ({_value(metric, case.scores[protocol.name].values[metric.name])})" for case in (order[0], order[-1]))
        sentences.append(f"By {metric.label}, the best case is {best} and the worst {worst}.")
    return sentences


def without_folders(message: str, paths: Sequence[str] = ()) -> str:
    """The message with no more of a path than the file and its folder: a page goes to others, and paths may hold names of people.

    Paths are recognized by their slashes, as far as no space is in them; those of which it is known that they occur, whatever they hold.
    """
    for path in sorted(paths, key=len, reverse=True):
        message = message.replace(path, "/".join(("…", *Path(path).parts[-2:])))
    return re.sub(r"(?<![\w/…])(?:[^\s/:;,\"'(]*/)(?:[^\s/:;,]+/)+([^\s/:;,]+/[^\s/:;,]+)", r"…/\1", message)


def product_of(sheet: ScoreSheet) -> str:
    """Name what the method makes."""
    return "mask of bone" if sheet.product == "bone" else f"synthetic {target_of(sheet.direction).upper()}"


def cautions(sheets: Sequence[tuple[str, ScoreSheet]]) -> list[str]:
    """Say what the numbers do not show, each said once."""
    found = [caution for name, sheet in sheets for caution in _cautions(name, sheet)]
    if len({frozenset(case.case for case in sheet.cases) for _, sheet in sheets}) > 1:
        found.append("The methods were not scored on the same cases, so their means are not comparable as they stand.")
    if _masks_differ([sheet for _, sheet in sheets]):
        found.append("The methods were not scored on the same voxels of every case, so their scores are not comparable as they stand.")
    if len(sheets) > 1:
        found.append(
            "Differences between methods are tested over these cases; how far apart two trainings of one method are is not known from them."
        )
    return list(dict.fromkeys(found))


def _masks_differ(sheets: Sequence[ScoreSheet]) -> bool:
    """Whether a case was scored in masks of different sizes, as it is when its true image lay on another grid."""
    voxels: dict[str, set[int]] = {}
    for case in (case for sheet in sheets for case in sheet.cases):
        voxels.setdefault(case.case, set()).add(case.mask_voxels)
    return any(len(numbers) > 1 for numbers in voxels.values())


def _cautions(name: str, sheet: ScoreSheet) -> Iterator[str]:
    yield _origin(sheet)
    count, failed, missing = len(sheet.cases), [failure.case for failure in sheet.failures], sheet.unpredicted
    resampled = sum(case.resampled for case in sheet.cases)
    if count == 1:
        yield "One case says nothing of the spread between heads."
    elif 1 < count < _FEW_CASES:
        yield f"{count} cases are few: the means are rough, and a rare failure of the method may not be among them."
    if any(case.mask is None for case in sheet.cases):
        yield "Cases that came without a mask were scored inside a computed head mask; another mask gives other numbers."
    if resampled:
        yield f"{name}: {_cases(resampled)} had to be resampled onto the grid of the true image, which smooths the prediction."
    if failed:
        yield f"{name}: {_cases(len(failed))} could not be scored ({_listed(failed)}); the means are over the others."
    if missing:
        yield f"{name}: {_cases(len(missing))} with a true image had no prediction ({_listed(missing)}); the means say nothing of them."


def _origin(sheet: ScoreSheet) -> str:
    if sheet.simulated:
        return "The heads are simulated: the numbers compare methods under known conditions, and say nothing of the error in patients."
    if sheet.registration:
        registered = f"The reference was registered to the source by {sheet.registration}"
        return f"{registered}; the scores contain the error of this registration. {_floor(sheet)}"
    return (
        "How the reference was registered to the source is not recorded; the scores contain the error of that registration, which "
        "can be several HU of MAE."
    )


def _floor(sheet: ScoreSheet) -> str:
    """The registration floor, which no synthesis can be scored below."""
    if not sheet.floor:
        return "How large it is was not measured: there is no registration floor to compare with."
    metrics = {metric.name: metric for metric in SYNTHRAD2023.note.metrics}
    numbers = [
        f"{metrics[name].label}\u00a0{with_unit(value, metrics[name].unit)}" for name, value in sheet.floor.items() if name in metrics
    ]
    return (
        f"The registration floor, the true CT against itself as a second registration places it, is {', '.join(numbers)} "
        f"({SYNTHRAD2023.note.title}): differences as small as that mean nothing."
    )


def _cases(count: int) -> str:
    return "one case" if count == 1 else f"{count} cases"


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _masks(sheet: ScoreSheet) -> str:
    sources = list(dict.fromkeys(case.mask_source for case in sheet.cases))
    return f"mask: {', '.join(sources)}"


def _headline(metric: MetricNote, summary: Summary) -> str:
    return f"{metric.label}\u00a0{mean_sd(summary, metric.unit)}" + (f"\u00a0{metric.unit}" if metric.unit else "")


def _value(metric: MetricNote, value: float | None) -> str:
    return with_unit(value, metric.unit)
