"""What the processes of one training tell one another; alone, a process tells nobody."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn


def average_gradients(fabric: Fabric, parameters: Sequence[nn.Parameter]) -> None:
    """Put in the place of every gradient its mean over the processes, all in one message.

    Left to DDP, this would need every network to be called once for each loss that is to move it, and to be used whole. But a
    discriminator is called for the losses of others, and what has a head for each kind of image uses one of them at a time.
    """
    if fabric.world_size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    means = fabric.all_reduce(torch.cat([gradient.flatten() for gradient in gradients]))
    assert isinstance(means, Tensor)
    for gradient, mean in zip(gradients, means.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def share_buffers(fabric: Fabric, networks: Iterable[nn.Module]) -> None:
    """Give all processes what the first one has in its buffers, such as the running statistics of batch normalisation."""
    if fabric.world_size == 1:
        return
    for network in networks:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)


def gather(fabric: Fabric, state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The states of all processes, in every one of them: tensors and plain values, in dicts."""
    if fabric.world_size == 1:
        return [state]
    states: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(states, _on_cpu(state))
    return states


def _on_cpu(tree: Any) -> Any:
    """The same values, with every tensor where all processes can take it."""
    if isinstance(tree, Mapping):
        return {name: _on_cpu(node) for name, node in tree.items()}
    return tree.cpu() if isinstance(tree, Tensor) else tree
