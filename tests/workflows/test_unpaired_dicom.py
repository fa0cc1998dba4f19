"""The way of the paper on an FCN and CycleGAN: from two folders of DICOM, MRs of some people and CTs of others, to both directions."""

import numpy as np
import pytest

from dicom_series import straight, write_slices
from phantoms import phantom
from transmodal.engine.logs import read_metrics
from transmodal.imaging.dicom_read import read_series
from transmodal.imaging.scan import read_scan
from transmodal.methods.recipe import load_preparation, load_recipe
from transmodal.workflows.prepare import prepare
from transmodal.workflows.synthesize import synthesize
from transmodal.workflows.train import train

SHORT = [
    "method.generator.channels=4",
    "method.generator.blocks=1",
    "method.discriminator.channels=4",
    "train.steps=3",
    "train.batch_size=2",
    "train.validation_fraction=0",
]


@pytest.fixture
def folders(tmp_path):
    """MRs of two people, and CTs of two others."""
    for k, (kind, patient) in enumerate((("mr", "p1"), ("mr", "p2"), ("ct", "p3"), ("ct", "p4"))):
        array = np.rint(phantom(k)[kind].array).astype(np.int16)
        positions = straight(array.shape[2], 4.5, start=(-90, -108, -99))
        place = {"positions": positions, "PixelSpacing": ["4.5", "4.5"], "modality": kind.upper()}
        write_slices(tmp_path / kind / patient, array, series=patient, PatientID=patient, **place)
    return tmp_path


def test_two_folders_of_dicom_train_both_directions(folders):
    recipe = load_recipe("fcn-cyclegan", SHORT)
    manifest = prepare(folders / "mr", folders / "dataset", load_preparation("fcn-cyclegan"), ct_source=folders / "ct")
    assert {(s.id, s.paired) for s in manifest.subjects} == {(name, False) for name in ("mr-p1", "mr-p2", "ct-p3", "ct-p4")}

    run = train(recipe, folders / "dataset", folders / "run", quiet=True)
    losses = read_metrics(run / "metrics.csv")[-1]
    # The paper's table: reconstruction ABA and BAB, DA, DB, both adversarial losses of the generators, and G.
    table = {"cycle_mr", "cycle_ct", "discriminator_mr", "discriminator_ct", "adversarial_mr", "adversarial_ct", "generators"}
    assert table <= losses.keys()

    synthesize(folders / "mr" / "p1", folders / "sct", run)
    sct = read_series(folders / "sct", "ct").volume
    assert sct.grid.matches(read_series(folders / "mr" / "p1", "mr").volume.grid)
    (smr,) = synthesize(folders / "ct" / "p3", folders / "smr.nii.gz", run, direction="ct2mr")
    assert read_scan(smr, "mr").grid.matches(read_series(folders / "ct" / "p3", "ct").volume.grid)
