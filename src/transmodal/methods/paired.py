"""One network fitted to pairs by a weighted sum of losses: what plain regression and a network that builds on atlases share."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import nn

from transmodal.contracts import LearnedMethod, Metrics, Optimization, Update
from transmodal.data.sampling import Batch
from transmodal.engine.predict import Setting
from transmodal.losses.voxel import l1
from transmodal.methods.optimizer import Optimizer
from transmodal.methods.paired_loss import Loss, PairedLoss


class PairedMethod(LearnedMethod):
    """A generator that goes down the loss between what it makes of a source and the true target.

    Parameters
    ----------
    setting : Setting
        Direction, preparation, intensities and view.
    generator : nn.Module
        From the channels of ``Batch.source`` to the target, in network units.
    loss : Loss
    optimizer : Optimizer
    """

    def __init__(self, setting: Setting, generator: nn.Module, loss: Loss, optimizer: Optimizer) -> None:
        self.setting = setting
        self.directions, self.opinions = (setting.direction,), setting.opinions
        self.networks: dict[str, nn.Module] = {"generator": generator}
        self._loss, self._optimizer = PairedLoss(loss, setting), optimizer

    @abstractmethod
    def initialize(self) -> None:
        """Read what a training begins with."""

    def optimizers(self) -> dict[str, Optimization]:
        """One over the generator."""
        optimizer = self._optimizer.build(self.networks["generator"].parameters())
        return {"generator": Optimization(optimizer, ("generator",))}

    def training_step(self, batch: Batch, update: Update) -> Metrics:
        """One step down the weighted sum of the losses."""
        loss = self._loss(self.networks["generator"](batch.source), batch)
        update("generator", loss)
        return {"loss": loss.detach()}

    def validation_step(self, batch: Batch) -> Metrics:
        """The loss, and the mean absolute error inside the head in network units."""
        prediction = self.networks["generator"](batch.source)
        return {"loss": self._loss(prediction, batch), "mae": l1(prediction, batch.target, batch.target_mask)}

    def state(self) -> Mapping[str, Any]:
        """The segmentor whose features are compared, if there is one."""
        return self._loss.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back the segmentor, whatever the folder of its run holds by now."""
        self._loss.load_state(state)
