"""What the log of an adversarial training tells, in words, and its last losses as a table."""

from collections.abc import Mapping, Sequence

from transmodal.engine.health import WINDOW, HealthWatch, mean_rows
from transmodal.reporting.tables import Cell, Table

Row = Mapping[str, float]


def numbers(rows: Sequence[Mapping[str, str]]) -> list[tuple[int, Row]]:
    """The training rows of ``metrics.csv``: the step, and the metrics as numbers."""
    training = [row for row in rows if row.get("split") == "train"]
    return [(int(row["step"]), {name: float(value) for name, value in row.items() if name not in ("step", "split")}) for row in training]


def is_adversarial(rows: Sequence[tuple[int, Row]]) -> bool:
    """Whether the log is of a training with a discriminator."""
    return any(name.startswith("discriminator") for _, row in rows for name in row)


def health_words(rows: Sequence[tuple[int, Row]]) -> list[str]:
    """Sentences: what went wrong and when, or that nothing did, and the numbers at the end."""
    if len(rows) < WINDOW:
        return [f"The log has {len(rows)} rows; {WINDOW} are needed to judge the health of the training."]
    watch = HealthWatch()
    told = [(step, finding) for step, row in rows for finding in watch.look(row)]
    last = mean_rows([row for _, row in rows[-WINDOW:]])
    faults = [f"From step {step}: {finding.message}." for step, finding in told]
    sound = "No discriminator has won, no generator has collapsed, and none has drifted from the anatomy of its source."
    return [*(faults or [sound]), *_at_the_end(last)]


def _at_the_end(last: Row) -> list[str]:
    """The measurements of each network in words."""
    found = []
    for name in (name.removesuffix("_accuracy_real") for name in last if name.endswith("_accuracy_real")):
        real, synthetic, final = (last[f"{name}_{kind}"] for kind in ("accuracy_real", "accuracy_synthetic", "saturation"))
        found.append(
            f"At the end {name} knows {real:.0%} of real and {synthetic:.0%} of synthetic images; {final:.0%} of its scores are final."
        )
    for name in (name.removesuffix("_diversity") for name in last if name.endswith("_diversity")):
        edges = f"; their edges and the source's correlate by {last[f'{name}_edges']:.2f}" if f"{name}_edges" in last else ""
        found.append(
            f"The images of {name} differ from one another by {last[f'{name}_diversity']:.0%} of what real ones do; their sorted "
            f"intensities are off by {last[f'{name}_histogram_distance']:.3f} of network units{edges}."
        )
    return found


def final_losses(rows: Sequence[tuple[int, Row]], name: str, source: str | None) -> Table:
    """The means of all losses over the last rows.

    Parameters
    ----------
    rows : sequence of (step, row)
    name : str
        Of the run.
    source : {"mr", "ct"}, optional
        Of a CycleGAN, the modality that its first cycle begins at; the losses are then also given the names that the paper on an FCN and
        CycleGAN from DICOM tabulates them by (its table 2).
    """
    last = mean_rows([row for _, row in rows[-WINDOW:]])
    losses = {metric: value for metric, value in last.items() if not metric.endswith(_HEALTH) and not metric.startswith("gradient_norm")}
    published = {} if source is None else _published_names(source)
    sums = {"reconstruction": _sum(losses, "cycle_"), "discriminators": _sum(losses, "discriminator_")} if published else {}
    heads = [("loss", ""), ("value", ""), *([("name in the paper", "")] if published else [])]
    cells = [
        (metric, [Cell(f"{value:.4g}", sort=value), *([Cell(published.get(metric, ""))] if published else [])])
        for metric, value in {**losses, **sums}.items()
    ]
    return Table(f"Last losses of {name}: means over the last {min(WINDOW, len(rows))} rows of the log", heads, cells)


_HEALTH = ("_accuracy_real", "_accuracy_synthetic", "_saturation", "_distance", "_diversity", "_edges")


def _published_names(source: str) -> dict[str, str]:
    target = "ct" if source == "mr" else "mr"
    return {
        f"cycle_{source}": "ABA_reconstruction_losses",
        f"cycle_{target}": "BAB_reconstruction_losses",
        f"discriminator_{source}": "DA_losses",
        f"discriminator_{target}": "DB_losses",
        "discriminators": "D_losses",
        f"adversarial_{target}": "G_AB_adversarial_losses",
        f"adversarial_{source}": "G_BA_adversarial_losses",
        "generators": "G_losses",
        "reconstruction": "reconstruction_losses",
    }


def _sum(losses: Row, prefix: str) -> float:
    return sum(value for name, value in losses.items() if name.startswith(prefix))
