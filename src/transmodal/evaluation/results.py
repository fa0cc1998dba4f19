"""What an evaluation writes: one row a case, a summary, and what could not be scored."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from transmodal.core.config import Config, validate
from transmodal.core.files import read_json, write_json, write_text
from transmodal.core.record import Record
from transmodal.core.volume import Direction, Product
from transmodal.evaluation.protocol import ProtocolNote, Scores
from transmodal.evaluation.statistics import Summary, summarize

SCORES_NAME = "scores.json"
TABLE_NAME = "scores.csv"


class CaseScores(Config):
    """The scores of one case, and where its images are.

    Parameters
    ----------
    case : str
    prediction, reference : str
        Paths relative to the folder of the scores.
    source : str or None
        The image that the prediction was made from, where one was found.
    mask : str or None
        None where the mask was computed.
    mask_source : str
        In words, such as ``"beside the reference"``.
    mask_voxels : int
    resampled : bool
        Whether the prediction was brought onto the grid of the reference first.
    companions : dict
        What else the protocols looked at, such as ``"reference/bone"``, to its path.
    scores : dict
        Name of the protocol to the scores by it.
    """

    case: str
    prediction: str
    reference: str
    source: str | None
    mask: str | None
    mask_source: str
    mask_voxels: int
    resampled: bool
    companions: dict[str, str] = {}
    scores: dict[str, Scores]


class CaseFailure(Config):
    """A case that could not be scored, and why; with the paths that the message may hold, for who passes it on without them."""

    case: str
    message: str
    paths: tuple[str, ...] = ()


class ScoreSheet(Config):
    """The contents of ``scores.json``.

    Parameters
    ----------
    label : str
        The method, as the predictions' own record names it, or the name of their folder.
    direction : {"mr2ct", "ct2mr"}
    product : {"image", "bone"}
        Whether the predictions are synthetic images or masks of bone.
    simulated : bool or None
        Whether the references are computed heads; None where they carry no record.
    registration : str or None
        How source and reference were registered; None where that is not recorded.
    floor : dict
        The registration floor: mean scores by SynthRAD 2023 of the true CTs against themselves as a second registration places them;
        empty where it was not measured.
    made_by : Record or None
        The record of the predictions, where their folder holds one.
    protocols : tuple of ProtocolNote
    cases : tuple of CaseScores
    failures : tuple of CaseFailure
        Predictions that could not be scored.
    unpredicted : tuple of str
        References without a prediction.
    summary : dict
        Protocol, then metric, to the statistics over the cases.
    """

    format: Literal[1] = 1
    label: str
    direction: Direction
    product: Product = "image"
    simulated: bool | None = None
    registration: str | None = None
    floor: dict[str, float] = {}
    made_by: Record | None = None
    protocols: tuple[ProtocolNote, ...]
    cases: tuple[CaseScores, ...]
    failures: tuple[CaseFailure, ...] = ()
    unpredicted: tuple[str, ...] = ()
    summary: dict[str, dict[str, Summary]]


def summarize_cases(protocols: Sequence[ProtocolNote], cases: Sequence[CaseScores]) -> dict[str, dict[str, Summary]]:
    """Statistics over the cases, for every metric of every protocol."""
    return {
        protocol.name: {
            metric.name: summarize(case.scores[protocol.name].values[metric.name] for case in cases) for metric in protocol.metrics
        }
        for protocol in protocols
    }


def write_scores(folder: Path, sheet: ScoreSheet) -> None:
    """Write ``scores.json`` and ``scores.csv`` into `folder`."""
    write_json(folder / SCORES_NAME, sheet.model_dump(mode="json"))
    write_text(folder / TABLE_NAME, table(sheet))


def read_scores(folder: Path) -> ScoreSheet:
    """Read the ``scores.json`` of a folder, or raise `FileError` or `ConfigError` naming it."""
    path = Path(folder) / SCORES_NAME
    return validate(ScoreSheet, read_json(path), str(path))


def table(sheet: ScoreSheet) -> str:
    """CSV with one row a case and one column a metric or detail, named ``protocol.metric``; empty where a value is not defined."""
    columns = [(protocol.name, name) for protocol in sheet.protocols for name in _names(protocol, sheet.cases)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "mask_source", "mask_voxels", "resampled", *(f"{protocol}.{name}" for protocol, name in columns)])
    for case in sheet.cases:
        values = ((case.scores[protocol].values | case.scores[protocol].details).get(name) for protocol, name in columns)
        writer.writerow([case.case, case.mask_source, case.mask_voxels, case.resampled, *("" if v is None else repr(v) for v in values)])
    return stream.getvalue()


def _names(protocol: ProtocolNote, cases: Sequence[CaseScores]) -> list[str]:
    """The metrics of a protocol, and after them the details that any case has, each once."""
    metrics = (metric.name for metric in protocol.metrics)
    details = (name for case in cases for name in case.scores[protocol.name].details)
    return list(dict.fromkeys((*metrics, *details)))
