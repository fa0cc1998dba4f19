"""The protocols that `evaluate` knows by name."""

from transmodal.core.errors import ConfigError
from transmodal.evaluation.dose import DOSE
from transmodal.evaluation.labels import LABELS
from transmodal.evaluation.mr import MR
from transmodal.evaluation.papers import BONE, CYCLEGAN, LIGHT_UNET, MR_GAN, MULTI_ATLAS
from transmodal.evaluation.protocol import Protocol
from transmodal.evaluation.surface import SURFACE
from transmodal.evaluation.synthrad import SYNTHRAD2023, SYNTHRAD2025
from transmodal.evaluation.thin_bone import THIN_BONE
from transmodal.evaluation.tissue import TISSUE
from transmodal.evaluation.uncertainty import UNCERTAINTY

_ALL = (
    *(SYNTHRAD2023, SYNTHRAD2025, TISSUE, BONE, SURFACE, THIN_BONE, LABELS, DOSE, UNCERTAINTY),
    *(MULTI_ATLAS, CYCLEGAN, LIGHT_UNET),
    *(MR, MR_GAN),
)
PROTOCOLS: dict[str, Protocol] = {protocol.note.name: protocol for protocol in _ALL}


def find_protocol(name: str) -> Protocol:
    """Look up a protocol, or raise `ConfigError` listing those there are."""
    if name not in PROTOCOLS:
        raise ConfigError(f"--protocol {name}: there is no such protocol; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
