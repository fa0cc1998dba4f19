"""Dose planned on the true CT and the same plan calculated on the synthetic one, from given dose grids."""

from collections.abc import Callable
from typing import Any

import numpy as np

from transmodal.core.errors import ConfigError
from transmodal.evaluation import metrics
from transmodal.evaluation.protocol import Case, Companion, Found, MetricNote, Protocol, ProtocolNote

# The brain in SynthRAD, a fraction.
PRESCRIPTION_GY = 2.0
# Of the prescription: from where on a voxel is in the target, and from where on its gamma is asked for.
TARGET, CUTOFF = 0.9, 0.1
# Gamma: dose difference in % of the prescription, distance to agreement in mm.
DIFFERENCE_PERCENT, DISTANCE_MM = 2.0, 2.0
# Beyond 1, where it fails, gamma need not be known.
_MAX_GAMMA = 1.1


def dose_protocol(prescription_gy: float = PRESCRIPTION_GY) -> Protocol:
    """Relative dose error in the target, and the gamma pass rate.

    Parameters
    ----------
    prescription_gy : float
        D_rx, in the unit of the dose grids.

    Raises
    ------
    ConfigError
        If the prescription is not above 0.

    References
    ----------
    Huijben et al. 2024, "Generating synthetic computed tomography for radiotherapy: SynthRAD2023 challenge report".
    Low et al. 1998, "A technique for the quantitative evaluation of dose distributions".
    """
    if not prescription_gy > 0:
        raise ConfigError(f"--prescription-gy {prescription_gy:g}: the prescription must be above 0 Gy")

    def compute(case: Case) -> Found:
        true, found = (case.companions[side, "dose"].array.astype(np.float64) for side in ("reference", "prediction"))
        return {
            "mae_target": metrics.mae(true, found, np.asarray(true >= TARGET * prescription_gy)) / prescription_gy,
            "gamma_pass": _gamma_pass(true, found, case.reference.spacing, prescription_gy),
        }

    return Protocol(_note(prescription_gy), compute, companions=(Companion("dose", "dose", of="both"),), require=require_gamma)


def require_gamma() -> Callable[..., Any]:
    """The gamma index of pymedphys, or `ConfigError` where it is not installed."""
    try:
        from pymedphys import gamma  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError('--protocol dose needs pymedphys: pip install "transmodal[dose]"') from error
    return gamma


def _gamma_pass(true: metrics.Image, found: metrics.Image, spacing: tuple[float, float, float], prescription_gy: float) -> float:
    """Share of the voxels above the cut-off whose gamma is at most 1; NaN where there are none."""
    if not (true >= CUTOFF * prescription_gy).any():
        return float("nan")
    axes = tuple(step * np.arange(n) for step, n in zip(spacing, true.shape, strict=True))
    gamma = require_gamma()(
        *(axes, true, axes, found, DIFFERENCE_PERCENT, DISTANCE_MM),
        lower_percent_dose_cutoff=100 * CUTOFF,
        global_normalisation=prescription_gy,
        max_gamma=_MAX_GAMMA,
        skip_once_passed=True,
    )
    return float(np.mean(gamma[np.isfinite(gamma)] <= 1))


def _note(prescription_gy: float) -> ProtocolNote:
    return ProtocolNote(
        name="dose",
        title="Dose",
        modality="ct",
        mask=f"where the true dose is at least {100 * TARGET:g} % of a prescription of {prescription_gy:g} Gy, for gamma at least "
        f"{100 * CUTOFF:g} %; the mask is not used",
        clip=f"none; gamma of {DIFFERENCE_PERCENT:g} % of the prescription and {DISTANCE_MM:g} mm",
        metrics=(
            MetricNote(
                name="mae_target",
                label="Relative dose error in the target",
                unit="",
                better="lower",
                undefined=f"the true dose is nowhere {100 * TARGET:g} % of the prescription",
            ),
            MetricNote(
                name="gamma_pass",
                label="Gamma pass rate",
                unit="",
                better="higher",
                undefined=f"the true dose is nowhere {100 * CUTOFF:g} % of the prescription",
            ),
        ),
    )


DOSE = dose_protocol()
