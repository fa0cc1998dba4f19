"""The protocols that `evaluate` knows by name."""

from transmodal.core.errors import ConfigError
from transmodal.evaluation.mr import MR
from transmodal.evaluation.papers import BONE, CYCLEGAN, MR_GAN
from transmodal.evaluation.protocol import Protocol
from transmodal.evaluation.surface import SURFACE
from transmodal.evaluation.synthrad import SYNTHRAD2023, SYNTHRAD2025
from transmodal.evaluation.thin_bone import THIN_BONE
from transmodal.evaluation.tissue import Tissues, tissue_protocol

PROTOCOLS: dict[str, Protocol] = {
    protocol.note.name: protocol
    for protocol in (SYNTHRAD2023, SYNTHRAD2025, tissue_protocol(Tissues()), BONE, SURFACE, THIN_BONE, CYCLEGAN, MR, MR_GAN)
}


def find_protocol(name: str) -> Protocol:
    """Look up a protocol, or raise `ConfigError` listing those there are."""
    if name not in PROTOCOLS:
        raise ConfigError(f"--protocol {name}: there is no such protocol; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
