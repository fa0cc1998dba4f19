import pytest

from transmodal.core.record import make_record
from transmodal.evaluation.protocol import Scores
from transmodal.evaluation.protocols import PROTOCOLS
from transmodal.evaluation.results import CaseScores, ScoreSheet, summarize_cases


def make_sheet(maes: dict[str, float | None], label: str = "unet", **changes) -> ScoreSheet:
    """A sheet by SynthRAD 2023 with these MAEs by case."""
    note = PROTOCOLS["synthrad2023"].note
    cases = tuple(
        CaseScores(
            case=case,
            prediction=f"{case}/sct.nii.gz",
            reference=f"{case}/ct.nii.gz",
            source=None,
            mask=f"{case}/mask.nii.gz",
            mask_source="beside the true image",
            mask_voxels=1000,
            resampled=False,
            scores={
                note.name: Scores(
                    protocol=note.name,
                    mask=note.mask,
                    clip=note.clip,
                    values={"mae_hu": mae, "psnr_db": 30.0, "ssim": 0.9},
                    reasons={} if mae is not None else {"mae_hu": "no voxel inside the mask"},
                )
            },
        )
        for case, mae in maes.items()
    )
    return ScoreSheet(label=label, direction="mr2ct", protocols=(note,), cases=cases, summary=summarize_cases([note], cases), **changes)


@pytest.fixture
def sheet_of():
    return make_sheet


@pytest.fixture
def made():
    return make_record("report", seed=3, inputs={"scores.json": "ab" * 32})
