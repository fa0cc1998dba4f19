"""Names of files by the Brain Imaging Data Structure: ``sub-01_ses-2_acq-mprage_T1w.nii.gz`` (BIDS 1.10, "Filenames", "Entities")."""

from dataclasses import dataclass
from pathlib import Path

from transmodal.core.volume import Direction, Product
from transmodal.imaging.scan import strip_scan_suffix

VERSION = "1.10.0"
# The contrast that is taken where there are several, first come first served.
MR_SUFFIXES = ("T1w", "T2w", "PDw", "FLAIR", "T2starw", "UNIT1")
CT_SUFFIX = "ct"  # not in BIDS yet
SYNTHETIC, UNCERTAINTY, CYCLE, BONE = "synthetic", "uncertainty", "cycle", "bone"  # descriptions
# The order in which BIDS wants the entities that an anatomical image may have.
_ORDER = (
    *("sub", "ses", "sample", "acq", "ce", "trc", "rec", "dir", "run", "mod", "echo", "flip", "inv", "mt", "part", "proc"),
    *("space", "split", "chunk", "seg", "res", "den", "label", "desc"),
)


@dataclass(frozen=True)
class Name:
    """The parts of a file's name: entities such as ``{"sub": "01"}``, and the suffix, such as ``"T1w"``."""

    entities: dict[str, str]
    suffix: str

    @property
    def person(self) -> str:
        """The folder of the subject, such as ``sub-01``."""
        return f"sub-{self.entities['sub']}"

    @property
    def folder(self) -> Path:
        """Where an anatomical image lies in a dataset, such as ``sub-01/ses-2/anat``."""
        session = self.entities.get("ses")
        return Path(self.person, *([f"ses-{session}"] if session else []), "anat")

    @property
    def case(self) -> str:
        """Subject and session, such as ``sub-01_ses-2``."""
        session = self.entities.get("ses")
        return f"{self.person}_ses-{session}" if session else self.person

    @property
    def is_synthetic(self) -> bool:
        """Whether it is called so by its description."""
        return self.entities.get("desc") == SYNTHETIC

    @property
    def is_bone(self) -> bool:
        """Whether it is a mask of bone."""
        return self.entities.get("desc") == BONE and self.suffix == "mask"

    def __str__(self) -> str:
        known = [key for key in _ORDER if key in self.entities]
        others = [key for key in self.entities if key not in _ORDER]
        # The description comes last, after entities that this version of BIDS does not know.
        keys = sorted([*known, *others], key=lambda key: key == "desc")
        return "_".join([*(f"{key}-{self.entities[key]}" for key in keys), self.suffix])


def parse_name(path: Path) -> Name | None:
    """Take the name of a scan apart; None if it is not one of BIDS."""
    *pairs, suffix = strip_scan_suffix(path.name).split("_")
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    whole = len(entities) == len(pairs) and all(entities.values())
    return Name(entities, suffix) if whole and entities.get("sub") else None


def result_name(source: Name, direction: Direction, product: Product = "image") -> Name:
    """What the result made of `source` is called, such as ``sub-01_space-T1w_desc-synthetic_ct``, or ``..._desc-bone_mask``.

    It lies in the space of its source. An MR made of a CT is called ``T1w``: BIDS has no suffix for an MR of no named contrast.
    """
    kept = {key: value for key, value in source.entities.items() if key not in ("space", "desc")}
    suffix = CT_SUFFIX if direction == "mr2ct" else MR_SUFFIXES[0]
    description, suffix = (BONE, "mask") if product == "bone" else (SYNTHETIC, suffix)
    return Name({**kept, "space": source.suffix, "desc": description}, suffix)
