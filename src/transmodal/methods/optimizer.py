"""The tables ``[method.optimizer]``; their ``kind`` chooses the optimiser."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Discriminator, Field, Tag
from torch import nn

from transmodal.core.config import Config


class OptimizerSettings(Config, ABC):
    """What an optimiser is to be like."""

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """A new optimiser over these parameters."""


class Adam(OptimizerSettings):
    """The optimiser of Kingma and Ba, 2015."""

    kind: Literal["adam"] = "adam"
    learning_rate: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam over these parameters."""
        return torch.optim.Adam(parameters, self.learning_rate, self.betas)


class SGD(OptimizerSettings):
    """Stochastic gradient descent with Nesterov's momentum, with the values that nnU-Net gives it."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = Field(default=1e-2, gt=0)
    momentum: float = Field(default=0.99, gt=0, lt=1)
    weight_decay: float = Field(default=3e-5, ge=0)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """SGD over these parameters."""
        return torch.optim.SGD(parameters, self.learning_rate, self.momentum, weight_decay=self.weight_decay, nesterov=True)


def _kind(table: Any) -> Any:
    """A table without a kind is of Adam."""
    return table.get("kind", "adam") if isinstance(table, dict) else getattr(table, "kind", None)


Optimizer = Annotated[Annotated[Adam, Tag("adam")] | Annotated[SGD, Tag("sgd")], Discriminator(_kind)]
