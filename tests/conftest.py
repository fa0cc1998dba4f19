import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook
from threadpoolctl import threadpool_limits

# On a busy machine slow is not wrong. (Under CI hypothesis has a profile of its own, which repeats the same examples.)
if "CI" not in os.environ:
    settings.register_profile("unhurried", deadline=None)
    settings.load_profile("unhurried")

# Workers of pytest-xdist share the cores: threads that are more than those wait for one another at full speed. The limit is for the
# numpy that a plugin has imported already, the variables are for what is loaded later.
_THREADS = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
torch.set_num_threads(_THREADS)
threadpool_limits(_THREADS)
for _variable in ("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, str(_THREADS))

# Every annotated call in the tests is checked, array shapes included.
install_import_hook("transmodal", "typechecker.check")

from phantoms import phantom, write_subject  # noqa: E402
from transmodal.core.volume import Volume  # noqa: E402
from transmodal.imaging.preparation import Preparation  # noqa: E402
from transmodal.simulation.contrast import MR_PRESETS, CTConfig, simulate_ct, simulate_mr  # noqa: E402
from transmodal.simulation.head import head_grid, simulate_anatomy  # noqa: E402
from transmodal.simulation.labels import head_mask  # noqa: E402
from transmodal.simulation.parameters import HeadConfig  # noqa: E402
from transmodal.simulation.tissues import BRAIN, Tissue  # noqa: E402
from transmodal.workflows.prepare import prepare  # noqa: E402


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real scans, where a checkout has them beside it; they are no part of the project."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder of real scans (../shared/data) is absent")
    return folder


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantom heads in SynthRAD layout."""
    folder = tmp_path_factory.mktemp("heads")
    for k in range(4):
        write_subject(folder / "Task1" / "brain" / f"head{k}", phantom(k))
    return folder


@pytest.fixture(scope="session")
def dataset(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four phantom heads, prepared on their own grids."""
    folder = tmp_path_factory.mktemp("dataset")
    prepare(heads, folder, Preparation(spacing_mm="native"))
    return folder


@pytest.fixture(scope="session")
def simulated_head() -> dict[str, Volume]:
    """A procedural head of about 3.5 mm: MR, CT, and the masks of head and brain, all in one place."""
    config, rng = HeadConfig(), np.random.default_rng(0)
    labels = simulate_anatomy(config, head_grid((64, 72, 64), config), seed=0)
    brain = np.isin(labels.array, (*BRAIN, Tissue.CSF))
    return {
        "mr": simulate_mr(labels, MR_PRESETS["t1w"], rng),
        "ct": simulate_ct(labels, CTConfig(), rng),
        "mask": head_mask(labels),
        "brain": labels.with_array(brain, "mask"),
    }
