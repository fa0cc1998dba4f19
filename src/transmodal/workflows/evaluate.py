"""Score synthetic images against the true ones, whoever made them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transmodal.core.errors import CasesFailed, ConfigError, DataError, TransmodalError, about
from transmodal.core.files import folder_lock, write_json
from transmodal.core.progress import track
from transmodal.core.record import RECORD_NAME, Record, find_record, make_record, require_replaceable
from transmodal.core.volume import Direction, Modality, Product, Volume, require_same_grid, source_of, target_of
from transmodal.evaluation.cases import Matching, Pair, companion, companion_of_prediction, find_images, holds, holds_any, match
from transmodal.evaluation.dose import DOSE, dose_protocol
from transmodal.evaluation.papers import BONE
from transmodal.evaluation.protocol import Case, Protocol, Side, score
from transmodal.evaluation.protocols import find_protocol
from transmodal.evaluation.results import CaseFailure, CaseScores, ScoreSheet, summarize_cases, write_scores
from transmodal.imaging.grid import resample as resample_onto
from transmodal.imaging.masks import head_mask
from transmodal.imaging.plausibility import require_plausible
from transmodal.imaging.scan import read_scan, scan_hash

DEFAULT_PROTOCOLS: dict[Direction, tuple[str, ...]] = {"mr2ct": ("synthrad2023", "tissue"), "ct2mr": ("mr",)}
# The commands that make true images, or register them.
_ORIGINS = ("simulate", "prepare", "study")
_BONE_PROTOCOLS = (BONE.note.name,)


def evaluate(
    predictions: Path,
    references: Path,
    out: Path,
    *,
    masks: Path | None = None,
    protocols: Sequence[str | Protocol] | None = None,
    direction: Direction = "mr2ct",
    resample: bool = False,
    prescription_gy: float | None = None,
) -> ScoreSheet:
    """Score every case that has a prediction and a reference, and write ``scores.csv``, ``scores.json`` and ``record.json``.

    Parameters
    ----------
    predictions : Path
        Folder of synthetic images: ``CASE/sct.nii.gz`` (``smr`` for `direction` ct2mr) at any depth, or ``CASE.nii.gz``. Or, where there
        are none, masks of bone, ``CASE/bone.nii.gz``: they are scored by the protocol ``bone``.
    references : Path
        Folder of the true images, likewise with ``ct`` (``mr``).
    out : Path
        Folder to write.
    masks : Path, optional
        Folder of masks by case. By default the mask beside the reference, or else the head mask computed from the reference.
    protocols : sequence of str or Protocol, optional
        By default `DEFAULT_PROTOCOLS` of the direction. What else a protocol looks at lies beside the images (`Protocol.companions`);
        a case without what it requires has no values by it, and the reason.
    direction : {"mr2ct", "ct2mr"}
    resample : bool
        Bring images (linearly), masks and label maps (nearest neighbour) that lie on another grid onto that of the reference;
        otherwise such a case is refused.
    prescription_gy : float, optional
        For the protocol ``dose``; by default 2 Gy.

    Returns
    -------
    ScoreSheet
        What ``scores.json`` holds.

    Raises
    ------
    ConfigError
        If a protocol does not exist, is for the other modality, or needs what is not installed.
    FileError
        If `out` holds the record of another command.
    DataError
        If no prediction has a reference.
    CasesFailed
        If some predictions could not be scored. All that could are written by then, and the others are listed with them.
    """
    target, product = target_of(direction), _product(Path(predictions), direction)
    wanted = protocols or (_BONE_PROTOCOLS if product == "bone" else DEFAULT_PROTOCOLS[direction])
    chosen = _choose(_prescribed(_named(wanted), prescription_gy), target, product)
    matching = match(Path(predictions), Path(references), "bone" if product == "bone" else f"s{target}", target)
    mask_paths = find_images(Path(masks), "mask") if masks else None
    require_replaceable(Path(out) / RECORD_NAME, "evaluate")
    with folder_lock(Path(out)):
        cases, failures = _score_cases(_CaseScorer(Path(out), direction, product, chosen, mask_paths, resample), matching, references)
        sheet = _sheet(Path(predictions), Path(references), direction, product, chosen, cases, failures, matching)
        write_scores(Path(out), sheet)
        _write_record(Path(out), matching.pairs, sheet, {"resample": resample, "prescription_gy": prescription_gy})
    if failures:
        lines = "\n".join(failure.message for failure in failures)
        raise CasesFailed(f"{len(failures)} of {len(failures) + len(cases)} predictions could not be scored:\n{lines}")
    return sheet


@dataclass(frozen=True)
class _CaseScorer:
    """What is the same for all cases."""

    out: Path
    direction: Direction
    product: Product
    protocols: tuple[Protocol, ...]
    masks: dict[str, Path] | None
    resample: bool

    def score(self, pair: Pair) -> CaseScores:
        target, source_stem = target_of(self.direction), source_of(self.direction)
        reference = require_plausible(read_scan(pair.reference, target), str(pair.reference))
        prediction = require_plausible(read_scan(pair.prediction, "mask" if self.product == "bone" else target), str(pair.prediction))
        mask_path, mask_source = self._find_mask(pair, target)
        mask = read_scan(mask_path, "mask") if mask_path else head_mask(reference)
        resampled = not prediction.grid.matches(reference.grid)
        prediction = self._onto(reference, prediction, pair.prediction, pair.reference)
        mask = self._onto(reference, mask, mask_path or pair.reference, pair.reference)
        source = companion(pair.reference, pair.case, source_stem) or companion(pair.prediction, pair.case, source_stem)
        beside = self._companions(pair)
        case = Case(reference, prediction, mask, {key: self._read(pair, reference, *beside[key]) for key in beside})
        return CaseScores(
            case=pair.case,
            prediction=self._relative(pair.prediction),
            reference=self._relative(pair.reference),
            source=self._relative(source) if source else None,
            mask=self._relative(mask_path) if mask_path else None,
            mask_source=mask_source,
            mask_voxels=int(np.count_nonzero(mask.array)),
            resampled=resampled,
            companions={f"{side}/{stem}": self._relative(path) for (side, stem), (path, _) in beside.items()},
            scores={protocol.note.name: score(case, protocol) for protocol in self.protocols},
        )

    def _companions(self, pair: Pair) -> dict[tuple[Side, str], tuple[Path, Modality]]:
        """What the protocols look at beside the images, as far as it is there: whose it is and its stem to its file and what that is."""
        found: dict[tuple[Side, str], tuple[Path, Modality]] = {}
        for wanted in (wanted for protocol in self.protocols for wanted in protocol.companions):
            for side, stem in wanted.keys:
                path = companion(pair.reference, pair.case, stem) if side == "reference" else companion_of_prediction(pair, stem)
                if path is not None:
                    found[side, stem] = (path, wanted.modality)
        return found

    def _read(self, pair: Pair, reference: Volume, path: Path, modality: Modality) -> Volume:
        return self._onto(reference, read_scan(path, modality), path, pair.reference)

    def _find_mask(self, pair: Pair, target: Modality) -> tuple[Path | None, str]:
        if self.masks is not None:
            if pair.case not in self.masks:
                raise DataError("--masks holds no mask for this case; add it, or leave --masks out to compute a head mask")
            return self.masks[pair.case], "given"
        beside = companion(pair.reference, pair.case, "mask")
        return (beside, "beside the true image") if beside else (None, f"head mask computed from the true {target.upper()}")

    def _onto(self, reference: Volume, volume: Volume, path: Path, reference_path: Path) -> Volume:
        if self.resample and not volume.grid.matches(reference.grid):
            return resample_onto(volume, reference.grid)
        require_same_grid(reference.grid, volume.grid, str(reference_path), str(path))
        return volume

    def _relative(self, path: Path) -> str:
        return Path(os.path.relpath(path, self.out)).as_posix()


def _score_cases(scorer: _CaseScorer, matching: Matching, references: Path) -> tuple[list[CaseScores], list[CaseFailure]]:
    cases = []
    failures = [
        CaseFailure(case=case, message=f"{case}: there is no reference of this name in {references}", paths=(str(references),))
        for case in matching.unreferenced
    ]
    for pair in track(matching.pairs, "evaluating"):
        try:
            with about(pair.reference, pair.prediction):
                cases.append(scorer.score(pair))
        except TransmodalError as error:
            paths = (str(pair.reference), str(pair.prediction))
            failures.append(CaseFailure(case=pair.case, message=f"{pair.case}: {error}", paths=paths))
    return cases, failures


def _sheet(
    predictions: Path,
    references: Path,
    direction: Direction,
    product: Product,
    protocols: Sequence[Protocol],
    cases: Sequence[CaseScores],
    failures: Sequence[CaseFailure],
    matching: Matching,
) -> ScoreSheet:
    made_by, origin = find_record(predictions), _origin(references)
    notes = tuple(protocol.note for protocol in protocols)
    return ScoreSheet(
        label=_setting(made_by, "title") or _setting(made_by, "model") or predictions.resolve().name,
        direction=direction,
        product=product,
        simulated=None if origin is None else origin.command == "simulate",
        registration=_setting(origin, "registration"),
        floor=_floor(origin),
        made_by=made_by,
        protocols=notes,
        cases=tuple(cases),
        failures=tuple(failures),
        # Subjects that were left out on purpose are not missing.
        unpredicted=matching.unpredicted if _setting(made_by, "part") in (None, "all") else (),
        summary=summarize_cases(notes, cases),
    )


def _product(predictions: Path, direction: Direction) -> Product:
    """What the predictions are: masks of bone, if there are such and no synthetic CT, called so or by its case."""
    masks = direction == "mr2ct" and holds(predictions, "bone") and not holds_any(predictions, "sct")
    return "bone" if masks else "image"


def _named(protocols: Sequence[str | Protocol]) -> tuple[Protocol, ...]:
    return tuple(find_protocol(protocol) if isinstance(protocol, str) else protocol for protocol in protocols)


def _prescribed(protocols: tuple[Protocol, ...], prescription_gy: float | None) -> tuple[Protocol, ...]:
    if prescription_gy is None:
        return protocols
    if DOSE not in protocols:
        raise ConfigError(f"--prescription-gy {prescription_gy:g}: no dose is scored; add --protocol dose")
    return tuple(dose_protocol(prescription_gy) if protocol is DOSE else protocol for protocol in protocols)


def _choose(protocols: tuple[Protocol, ...], modality: Modality, product: Product) -> tuple[Protocol, ...]:
    """Return the protocols themselves, or raise `ConfigError` if one of them cannot score such predictions."""
    for protocol in protocols:
        if protocol.note.modality != modality:
            raise ConfigError(
                f"--protocol {protocol.note.name}: it is for a synthetic {protocol.note.modality.upper()}, and the direction makes a "
                f"{modality.upper()}; choose another protocol or direction"
            )
        if product == "bone" and not protocol.takes_masks:
            raise ConfigError(f"--protocol {protocol.note.name}: it is for images, and the predictions are masks of bone; take bone")
        protocol.require()
    return protocols


def _origin(references: Path) -> Record | None:
    """Find what made the references; in SynthRAD layout (``Task1/brain/CASE``) its record may lie up to two folders above them."""
    folders = (references.resolve(), *references.resolve().parents[:2])
    return next((record for folder in folders if (record := find_record(folder)) and record.command in _ORIGINS), None)


def _setting(record: Record | None, key: str) -> str | None:
    value = record.settings.get(key) if record else None
    return value if isinstance(value, str) else None


def _floor(record: Record | None) -> dict[str, float]:
    """The registration floor that `prepare` has measured of the pairs it registered."""
    found = record.settings.get("floor") if record else None
    return {name: float(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _write_record(out: Path, pairs: Sequence[Pair], sheet: ScoreSheet, options: dict[str, Any]) -> None:
    scored = {case.case for case in sheet.cases}
    inputs = {
        f"{pair.case}/{role}": scan_hash(path)
        for pair in pairs
        if pair.case in scored
        for role, path in (("prediction", pair.prediction), ("reference", pair.reference))
    }
    inputs |= {
        f"{case.case}/{role}": scan_hash(Path(os.path.normpath(out / path)))
        for case in sheet.cases
        for role, path in case.companions.items()
    }
    settings = {"protocols": [note.name for note in sheet.protocols], "direction": sheet.direction, **options}
    write_json(out / RECORD_NAME, make_record("evaluate", inputs=inputs, settings=settings).model_dump(mode="json"))
