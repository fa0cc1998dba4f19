"""An update as the engine does it, which tells what it has moved."""

import copy

import torch


def stepping(method, told):
    """Appends to `told` the name, the loss, and the networks that have changed, of every update."""
    optimizations = method.optimizers()

    def update(name, loss):
        before = {key: copy.deepcopy(network.state_dict()) for key, network in method.networks.items()}
        optimizer, networks = optimizations[name].optimizer, optimizations[name].networks
        optimizer.zero_grad()
        loss.backward(inputs=[p for network in networks for p in method.networks[network].parameters()])
        optimizer.step()
        changed = [
            key
            for key, network in method.networks.items()
            if any(not torch.equal(t, before[key][n]) for n, t in network.state_dict().items())
        ]
        told.append((name, loss.item(), changed))

    return update
