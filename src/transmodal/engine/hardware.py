"""What the machine offers: the device, the number format that is fastest on it, and memory that is kept for reuse."""

import ctypes
import platform
from typing import Literal

import torch
from torch import nn

from transmodal.core.errors import ConfigError
from transmodal.networks.layers import CHANNELS_LAST

Precision = Literal["auto", "fp32", "bf16"]

_CONVOLUTIONS = {nn.Conv2d: CHANNELS_LAST[2], nn.Conv3d: CHANNELS_LAST[3]}


def choose_device(name: str = "auto", option: str = "--device") -> torch.device:
    """The device of that name, which was given as an option; ``auto`` takes a GPU where there is one.

    Raises
    ------
    ConfigError
        If torch does not know the name, or the device is not there.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"{option} {name}: not available here ({str(error).splitlines()[0]}); use auto or cpu") from error
    return device


def use_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bfloat16: as asked, or for ``auto`` where the hardware multiplies bfloat16 matrices faster."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return bool(features.get("amx_bf16") or features.get("avx512_bf16"))
    return False


def optimize_layout(network: nn.Module) -> nn.Module:
    """Store the weights of convolutions channels-last, which the fast kernels of CPUs and GPUs want; values do not change."""
    kinds = {type(module) for module in network.modules()}
    for kind, layout in _CONVOLUTIONS.items():
        if any(issubclass(found, kind) for found in kinds):
            return network.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    return network


def keep_memory() -> None:
    """Tell glibc to keep freed memory for the next step instead of giving it back to the system, page by page.

    Large temporary tensors are what training allocates; getting fresh pages for them each time can cost as much as the
    arithmetic. Does nothing where the C library is another one.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    m_trim_threshold, m_top_pad, m_mmap_max, never = -1, -2, -4, -1
    libc = ctypes.CDLL(None)
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, never)
    libc.mallopt(m_top_pad, 2**26)
