import json
import math
import signal
import threading

import pytest
import torch
from torch import nn

from transmodal.contracts import LearnedMethod, Optimization
from transmodal.core.errors import ConfigError, Interrupted, TrainingError
from transmodal.data.augment import Augmentation
from transmodal.data.sampling import Sampler, Sampling, View
from transmodal.data.store import Dataset
from transmodal.engine.checkpoint import load_tree
from transmodal.engine.logs import read_metrics
from transmodal.engine.train import WEIGHTS_NAME, Training, make_fabric, train
from transmodal.imaging.intensity import PercentileIntensity, WindowIntensity


class Fake(LearnedMethod):
    """Two networks in turn, as a GAN has them, and a state of its own."""

    def __init__(self):
        self.networks = {"a": nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout(0.3), nn.Conv2d(4, 1, 1)), "b": nn.Conv2d(1, 1, 1)}
        self.steps = torch.zeros(())

    def optimizers(self):
        return {name: Optimization(torch.optim.Adam(self.networks[name].parameters(), 1e-2), (name,)) for name in self.networks}

    def training_step(self, batch, update):
        self.steps = self.steps + 1
        first = (self.networks["a"](batch.source) - batch.target).square().mean()
        update("a", first)
        metrics = {"first": first.detach()}
        if self.steps % 3:  # not every step need do, and report, the same
            second = (self.networks["b"](self.networks["a"](batch.source).detach()) - batch.target).abs().mean()
            update("b", second)
            metrics["second"] = second.detach()
        return metrics

    def validation_step(self, batch):
        return {"loss": (self.networks["a"](batch.source) - batch.target).square().mean()}

    def synthesize(self, scan):
        return scan

    def state(self):
        return {"steps": self.steps}

    def load_state(self, state):
        self.steps = state["steps"]


def sampler(dataset, *names):
    intensity = {"mr": PercentileIntensity(), "ct": WindowIntensity(lower=-1024, upper=3071)}
    return Sampler(Dataset(dataset), names, "mr2ct", View(size=(16, 16)), Sampling(), Augmentation(noise=0.1), intensity, 0)


def run(dataset, folder, make=Fake, validation=True, **changes):
    settings = Training(**{"steps": 12, "batch_size": 2, "validate_every": 4, "checkpoint_every": 4, "log_every": 2, **changes})
    torch.manual_seed(0)
    method = make()
    held_out = sampler(dataset, "head3") if validation else None
    progress = train(make_fabric(settings), method, sampler(dataset, "head0", "head1", "head2"), held_out, settings, folder, quiet=True)
    return method, progress


def weights(folder):
    return load_tree(folder / WEIGHTS_NAME)


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        for key in one[name]:
            assert torch.equal(one[name][key], two[name][key]), (name, key)


def last_checkpoint(folder):
    return load_tree(max(folder.glob("checkpoints/*")))


class Stopping(Fake):
    """Sends a signal to its own process in the middle of a step."""

    def __init__(self, at, number):
        super().__init__()
        self.at, self.number = at, number

    def training_step(self, batch, update):
        result = super().training_step(batch, update)
        if self.steps == self.at:
            signal.raise_signal(self.number)
        return result


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [1, 5])
@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "precision": "bf16", "schedule": "linear"}], ids=["plain", "ema bf16 linear"])
def test_a_stopped_training_goes_on_to_the_same_weights(dataset, tmp_path, at, number, changes):
    run(dataset, tmp_path / "whole", **changes)
    with pytest.raises(Interrupted, match=f"after step {at} of 12"):
        run(dataset, tmp_path / "parts", lambda: Stopping(at, number), **changes)
    method, progress = run(dataset, tmp_path / "parts", **changes)
    assert method.steps == 12
    assert progress.step == 12
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert_same(last_checkpoint(tmp_path / "whole")["networks"], last_checkpoint(tmp_path / "parts")["networks"])
    whole, parts = (read_metrics(tmp_path / name / "metrics.csv") for name in ("whole", "parts"))
    assert [row for row in parts if row["split"] == "validation"] == [row for row in whole if row["split"] == "validation"]
    assert parts[-1] == whole[-1]


DAMAGE = {"truncated": lambda data: data[:-100], "flipped": lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_aloud(dataset, tmp_path, damage):
    run(dataset, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(dataset, tmp_path / "parts", lambda: Stopping(9, signal.SIGTERM))
    latest = max((tmp_path / "parts").glob("checkpoints/*"))
    latest.write_bytes(DAMAGE[damage](latest.read_bytes()))
    with pytest.warns(UserWarning, match="damaged"):
        run(dataset, tmp_path / "parts")
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_finished_training_is_left_as_it_is(dataset, tmp_path):
    run(dataset, tmp_path)
    before = (tmp_path / WEIGHTS_NAME).stat().st_mtime_ns
    method, _ = run(dataset, tmp_path)
    assert method.steps == 12
    assert (tmp_path / WEIGHTS_NAME).stat().st_mtime_ns == before


def test_the_best_weights_are_those_of_the_least_validation_loss(dataset, tmp_path):
    _, progress = run(dataset, tmp_path, steps=30)
    rows = [row for row in read_metrics(tmp_path / "metrics.csv") if row["split"] == "validation"]
    best = min(rows, key=lambda row: float(row["loss"]))
    assert progress.best_step == int(best["step"])
    note = json.loads((tmp_path / "weights.json").read_text())
    assert note["step"] == progress.best_step
    assert note["validation_loss"] == pytest.approx(float(best["loss"]), rel=1e-4)


def test_without_validation_the_last_weights_are_kept(dataset, tmp_path):
    method, _ = run(dataset, tmp_path, validation=False)
    assert torch.equal(weights(tmp_path)["b"]["weight"], method.networks["b"].state_dict()["weight"])


class Choosy(Fake):
    """Scores every other batch only, as pairs among strangers."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def validation_step(self, batch):
        self.seen += 1
        return {"value": torch.tensor(1.0)} if self.seen % 2 else {"value": torch.tensor(2.0), "loss": torch.tensor(float(self.seen))}


def test_a_validation_loss_that_some_batches_lack_is_the_mean_of_the_others(dataset, tmp_path):
    _, progress = run(dataset, tmp_path, Choosy, steps=4, validation_batches=5)
    (row,) = [row for row in read_metrics(tmp_path / "metrics.csv") if row["split"] == "validation"]
    assert (float(row["value"]), float(row["loss"])) == (pytest.approx(7 / 5), 3)
    assert (progress.best_loss, progress.best_step) == (3, 4)


class Failing(Fake):
    def training_step(self, batch, update):
        if self.steps == 9:
            raise RuntimeError("on purpose")
        return super().training_step(batch, update)


def test_what_was_logged_can_be_read_from_the_last_validation_on(dataset, tmp_path):
    with pytest.raises(RuntimeError, match="on purpose"):
        run(dataset, tmp_path, Failing, steps=30, validate_every=8, checkpoint_every=30)
    assert [int(row["step"]) for row in read_metrics(tmp_path / "metrics.csv")][-1] == 8


class Sick(Fake):
    """Its discriminator has won."""

    def training_step(self, batch, update):
        one = torch.tensor(1.0)
        return {**super().training_step(batch, update), "d_accuracy_real": one, "d_accuracy_synthetic": one, "d_saturation": one}


class SickAndFailing(Sick):
    def training_step(self, batch, update):
        if self.steps == 14:
            raise RuntimeError("on purpose")
        return super().training_step(batch, update)


def test_a_fault_that_was_told_is_not_told_again_after_an_interruption(dataset, tmp_path):
    changes = {"steps": 24, "log_every": 1, "checkpoint_every": 12}
    with pytest.raises(RuntimeError, match="on purpose"), pytest.warns(UserWarning, match="d has won"):
        run(dataset, tmp_path, SickAndFailing, **changes)
    run(dataset, tmp_path, Sick, **changes)  # a warning would be an error


class Worsening(Fake):
    def validation_step(self, batch):
        return {"loss": self.steps}


def test_patience_ends_training_and_a_resume_does_not_go_on(dataset, tmp_path):
    for _ in range(2):
        method, progress = run(dataset, tmp_path, Worsening, steps=40, patience=2)
        assert method.steps == progress.step == 12
        assert progress.best_step == 4


class Diverging(Fake):
    def training_step(self, batch, update):
        result = super().training_step(batch, update)
        return {**result, "first": result["first"] * (math.inf if self.steps > 5 else 1)}


def test_a_loss_that_is_no_number_stops_with_advice_and_keeps_the_best(dataset, tmp_path):
    with pytest.raises(TrainingError, match=r"step 6: first is not a finite number; lower the learning rate"):
        run(dataset, tmp_path, Diverging)
    assert json.loads((tmp_path / "weights.json").read_text())["step"] == 4
    assert last_checkpoint(tmp_path)["progress"]["step"] == 4


def test_clipping_bounds_the_gradient(dataset, tmp_path):
    norms = []

    class Watching(Fake):
        def training_step(self, batch, update):
            result = super().training_step(batch, update)
            norms.append(torch.cat([p.grad.flatten() for p in self.networks["a"].parameters()]).norm())
            return result

    run(dataset, tmp_path / "free", Watching)
    assert max(norms) > 0.1
    norms.clear()
    run(dataset, tmp_path / "clipped", Watching, clip_norm=0.01)
    assert max(norms) <= 0.0101


def test_the_linear_schedule_ends_at_zero():
    settings = Training(steps=10, batch_size=1, schedule="linear", decay_from=4)
    assert [settings.rate(step) for step in (0, 3, 4, 7, 10)] == [1, 1, 1, 0.5, 0]


def test_the_polynomial_schedule_falls_a_little_slower_than_a_line():
    settings = Training(steps=10, batch_size=1, schedule="polynomial")
    assert [settings.rate(step) for step in (0, 5, 10)] == [1, pytest.approx(0.5**0.9), 0]


def test_batches_do_not_depend_on_the_number_of_threads(dataset, tmp_path):
    one, _ = run(dataset, tmp_path / "one", workers=1)
    four, _ = run(dataset, tmp_path / "four", workers=4)
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "four"))
    assert threading.active_count() < 20
    assert one.steps == four.steps


def test_a_batch_that_cannot_be_divided_is_refused(dataset, tmp_path, monkeypatch):
    settings = Training(steps=2, batch_size=3)
    fabric = make_fabric(settings)
    monkeypatch.setattr(type(fabric), "world_size", property(lambda _: 2))
    with pytest.raises(ConfigError, match="cannot be divided among 2"):
        train(fabric, Fake(), sampler(dataset, "head0"), None, settings, tmp_path, quiet=True)
