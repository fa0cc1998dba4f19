"""A network that builds on a set of atlases: the bone-weighted residual, and the atlas CT as a second channel.

Section 2.4 of the multi-atlas/U-Net/cGAN paper, "Residual Learning with Atlas Prior": the U-Net of its section 2.2 is trained as there,
but the loss is that of the weighted sum of its output and the CT of the atlases (`transmodal.networks.atlas_prior`). The paper does not
state sigma, t, alpha and beta; ours are in the recipe. Its merged mask we read so: bone wherever any atlas has it.

What the atlases have of each subject is computed when training begins, and kept in the run, as are the atlases themselves: prediction
registers them to the scan.
"""

import shutil
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator
from torch import nn

from transmodal.core.config import Config, validate
from transmodal.core.errors import ConfigError, TransmodalError
from transmodal.core.files import atomic_path
from transmodal.core.progress import track
from transmodal.core.volume import Volume
from transmodal.data.extra_images import ExtraImages
from transmodal.data.manifest import MANIFEST_NAME, Image, Manifest, Subject, write_manifest
from transmodal.data.store import Dataset, write_image
from transmodal.engine.checkpoint import load_tree
from transmodal.engine.predict import Beside, Setting, place_result, place_soft, predict_prepared, prepare_source
from transmodal.engine.run import RUN_NAME, read_run
from transmodal.engine.train import WEIGHTS_NAME
from transmodal.imaging.preparation import BACKGROUND, PreparedScan
from transmodal.methods.architecture import UNetSettings
from transmodal.methods.atlas import Atlas, AtlasSettings
from transmodal.methods.fusion import Fused
from transmodal.methods.optimizer import Adam, Optimizer
from transmodal.methods.paired import PairedMethod
from transmodal.methods.paired_loss import Loss
from transmodal.networks.atlas_prior import BoneWeighted, Weighting

ATLASES_NAME, PRIORS_NAME = "atlases", "priors"


class WeightingSettings(Config):
    """A table ``[[method.weighting]]``: what holds from a step of the training on, eqs. (6) and (7).

    Parameters
    ----------
    from_step : int
    sigma_mm : float
        Standard deviation of the Gaussian that smooths the merged bone mask.
    threshold : float
        t, from which on the smoothed mask is 1.
    alpha, beta : float
        W1 = alpha W_bone + beta, the weight of the network, within [0, 1].
    atlas_alpha, atlas_beta : float, optional
        The same for W2, the weight of the atlases, which by default is 1 - W1.
    """

    from_step: int = Field(default=0, ge=0)
    sigma_mm: float = Field(default=3.0, gt=0)
    threshold: float = Field(default=0.3, gt=0, le=1)
    alpha: float = 0.9
    beta: float = 0.1
    atlas_alpha: float | None = None
    atlas_beta: float | None = None

    @model_validator(mode="after")
    def _within_bounds(self) -> "WeightingSettings":
        if (self.atlas_alpha is None) != (self.atlas_beta is None):
            raise ValueError("atlas_alpha and atlas_beta belong together; leave both out for W2 = 1 - W1")
        for name, alpha, beta in (("W1", self.alpha, self.beta), ("W2", *self.atlas_line)):
            if not (0 <= beta <= 1 and 0 <= round(alpha + beta, 9) <= 1):
                raise ValueError(f"{name} goes from {beta:g} to {alpha + beta:g}; choose alpha and beta so that it lies within [0, 1]")
        return self

    @property
    def atlas_line(self) -> tuple[float, float]:
        """Alpha and beta of W2."""
        if self.atlas_alpha is None or self.atlas_beta is None:
            return -self.alpha, 1 - self.beta
        return self.atlas_alpha, self.atlas_beta


class PriorSettings(Config):
    """The ``[method]`` table of a recipe that builds on atlases.

    Parameters
    ----------
    atlases : str
        The folder of a set of atlases (``transmodal atlas build``). It is copied into the run when training begins.
    use : {"weighted", "channel"}
        The weighted sum of the paper, or the atlas CT as a second channel of the network's input.
    weighting : tuple of WeightingSettings
        Of ``weighted``, by the step from which each holds; the first from step 0.
    informed : bool
        Of ``weighted``: show the network the atlas CT and W1, too. In the paper it sees the MR alone, and the borders of W stay visible in
        the sum.
    network : UNetSettings
    loss : Loss
    optimizer : Optimizer
    """

    name: Literal["prior"] = "prior"
    atlases: str
    use: Literal["weighted", "channel"] = "weighted"
    weighting: tuple[WeightingSettings, ...] = Field(default=(WeightingSettings(),), min_length=1)
    informed: bool = False
    network: UNetSettings = UNetSettings()
    loss: Loss = Loss()
    optimizer: Optimizer = Adam()

    @model_validator(mode="after")
    def _in_order(self) -> "PriorSettings":
        if self.use == "channel" and (self.informed or self.weighting != (WeightingSettings(),)):
            raise ValueError('informed and weighting are for use = "weighted"; leave them out, or set it')
        starts = [weighting.from_step for weighting in self.weighting]
        if starts[0] != 0 or sorted(set(starts)) != starts:
            raise ValueError(f"method.weighting begins at the steps {starts}; the first must be 0, and each later than the one before")
        return self

    @property
    def sigmas_mm(self) -> list[float]:
        """The smoothings that occur, each once; none without weights."""
        return list(dict.fromkeys(weighting.sigma_mm for weighting in self.weighting)) if self.use == "weighted" else []


class Prior(PairedMethod):
    """A U-Net and a set of atlases; `PairedMethod` has the step of its training, down the loss of the sum.

    Parameters
    ----------
    settings : PriorSettings
    setting : Setting
        Direction, which must be ``mr2ct``, preparation, intensities and view.
    """

    Settings = PriorSettings
    uses_brain = True

    def __init__(self, settings: PriorSettings, setting: Setting) -> None:
        _require_atlas_like(setting)
        super().__init__(setting, _build(settings, setting), settings.loss, settings.optimizer)
        self.settings = settings
        self._brain: Volume | None = None
        self._loaded: list[Atlas] = []  # at most one; all that `with_brain` makes of this method share it

    def with_brain(self, mask: Volume) -> "Prior":
        """The same method, whose atlases are told the mask of the brain in the scan to come."""
        told = copy(self)
        told._brain = mask
        return told

    def initialize(self) -> None:
        """Look whether the atlases are there, and read the run of a segmentor if the recipe names one."""
        assert self.folder is not None, "a training has a folder"
        copied = self.folder / ATLASES_NAME  # before an interruption
        _require_atlases(copied if (copied / RUN_NAME).is_file() else Path(self.settings.atlases))
        self._loss.initialize()

    def restart(self) -> None:
        """Begin with the first weighting."""
        network = self.networks["generator"]
        if isinstance(network, BoneWeighted):
            network.step.zero_()

    def extra_images(self, dataset: Dataset, subjects: Sequence[str]) -> ExtraImages:
        """The CT of the atlases for each subject, and the smoothed masks of their bone."""
        assert self.folder is not None, "a training has a folder"
        names = ["atlas", *(f"bone{k}" for k in range(len(self.settings.sigmas_mm)))]
        backgrounds = dict(zip(names, self._backgrounds, strict=True))
        folder = self.folder / PRIORS_NAME
        return ExtraImages(folder, backgrounds, lambda: self._make_priors(dataset, subjects, folder, names))

    def synthesize(self, scan: Volume) -> Volume:
        """The CT, on the scan's own grid."""
        return self.synthesize_with_uncertainty(scan)[0]

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """The same, and the spread over planes and mirror images; the atlases are the same for all of them."""
        prepared, target = prepare_source(scan, self.setting), self.setting.target_map
        found = predict_prepared(self.networks["generator"], prepared, self.setting, self.beside(prepared))
        result = place_result(target.inverse(found.mean), prepared, scan, self.setting.target)
        return result, place_soft(np.float32(target.scale) * found.sd, prepared, scan, "uncertainty")

    def beside(self, prepared: PreparedScan) -> Beside:
        """What the network is given beside a prepared MR: the CT of the atlases, with air around the head, and the smoothed masks of bone.

        Parameters
        ----------
        prepared : PreparedScan

        Returns
        -------
        Beside
            Images of shape (k, x, y, z): the CT in network units, then a mask in [0, 1] for each smoothing, in the order of
            ``settings.sigmas_mm``.
        """
        from scipy.ndimage import gaussian_filter

        fused = self._ask(prepared)
        bone = fused.bone.astype(np.float32)
        smooth = [gaussian_filter(bone, [sigma / step for step in prepared.volume.spacing]) for sigma in self.settings.sigmas_mm]
        ct = np.where(prepared.mask.array > 0, fused.ct, np.float32(BACKGROUND["ct"]))
        return Beside(np.stack([self.setting.target_map.forward(ct), *smooth]), tuple(self._backgrounds))

    @property
    def _backgrounds(self) -> list[float]:
        air = self.setting.target_map.forward(np.array([BACKGROUND["ct"]], dtype=np.float32))
        return [float(air[0]), *(0.0 for _ in self.settings.sigmas_mm)]

    @property
    def _atlases(self) -> Atlas:
        """Those that lie in the run, read when they are first needed."""
        if not self._loaded:
            self._loaded.append(self._read_atlases())
        return self._loaded[0]

    def _read_atlases(self) -> Atlas:
        assert self.folder is not None, "a method that predicts has been loaded from a run"
        folder = self.folder / ATLASES_NAME
        run = read_run(folder)
        atlases = Atlas(validate(AtlasSettings, run.recipe["method"], f"{folder / RUN_NAME}, recipe, [method]"), run.setting)
        tree = load_tree(folder / WEIGHTS_NAME)
        atlases.load_state({name: tensor.numpy() for name, tensor in tree.items()})
        atlases.folder, atlases.workers = folder, self.workers
        return atlases

    def _ask(self, prepared: PreparedScan) -> Fused:
        atlases = self._atlases
        if self._brain is not None and atlases.uses_brain:
            atlases = atlases.with_brain(self._brain)
        return atlases.fuse(prepared)

    def _make_priors(self, dataset: Dataset, subjects: Sequence[str], folder: Path, names: Sequence[str]) -> None:
        """Ask the atlases about every subject, unless that has been done; the table of contents is written last."""
        assert self.folder is not None, "a training has a folder"
        if (folder / MANIFEST_NAME).is_file():
            return
        if not (self.folder / ATLASES_NAME / RUN_NAME).is_file():
            _copy_atlases(Path(self.settings.atlases), self.folder / ATLASES_NAME)
        made = []
        for name in track([name for name in subjects if "mr" in dataset.manifest.subject(name).images], "atlas priors"):
            prepared, brain = _read_prepared(dataset, name)
            try:
                images = (self.with_brain(brain) if brain else self).beside(prepared).images
            except TransmodalError as error:
                raise type(error)(f"{name}: {error}") from error
            for image, values in zip(names, images, strict=True):
                write_image(folder, name, image, values)
            entry = dataset.manifest.subject(name).images["mr"]
            made.append(Subject(id=name, images={image: Image(shape=entry.shape, affine=entry.affine) for image in names}))
        write_manifest(folder, Manifest(preparation=dataset.manifest.preparation, subjects=tuple(made)))


def _build(settings: PriorSettings, setting: Setting) -> nn.Module:
    if settings.use == "channel":
        return settings.network.build(setting.view, extra=1)
    channels = {sigma: k for k, sigma in enumerate(settings.sigmas_mm)}
    schedule = {w.from_step: Weighting(channels[w.sigma_mm], w.threshold, w.alpha, w.beta, *w.atlas_line) for w in settings.weighting}
    network = settings.network.build(setting.view, extra=2 if settings.informed else 0)
    zero = setting.target_map.forward(np.array([setting.target_map.lower], dtype=np.float32))
    return BoneWeighted(network, setting.view.channels, schedule, float(zero[0]), settings.informed)


def _require_atlas_like(setting: Setting) -> None:
    if setting.direction != "mr2ct":
        raise ConfigError(f"direction = {setting.direction}: atlases are registered to MRs, and their CTs are fused; set mr2ct")
    if setting.intensity["ct"].kind != "window":
        raise ConfigError(f'intensity.ct.kind = "{setting.intensity["ct"].kind}": the CTs of atlases come in HU; set it to "window"')
    if setting.view.fit == "square":
        raise ConfigError('view.fit = "square": what the atlases have is not resized with the slices; set it to "none"')


def _require_atlases(folder: Path) -> None:
    name = read_run(folder).recipe.get("method", {}).get("name")
    if name != "atlas":
        raise ConfigError(f"method.atlases = {folder}: a run of the method {name!r}; give a set of atlases (transmodal atlas build)")


def _copy_atlases(source: Path, target: Path) -> None:
    """All that the set needs; the note that makes a folder a run is copied last."""
    for name in (WEIGHTS_NAME, RUN_NAME):
        with atomic_path(target / name) as path:
            shutil.copyfile(source / name, path)


def _read_prepared(dataset: Dataset, name: str) -> tuple[PreparedScan, Volume | None]:
    """The MR of a subject as it was prepared, and the mask of its brain if there is one."""
    images = dataset.manifest.subject(name).images
    statistics = images["mr"].statistics
    assert statistics is not None, "every MR has been measured"
    mr = Volume(dataset.read_all(name, "mr").astype(np.float32), images["mr"].grid.affine, "mr")
    mask = mr.with_array(dataset.read_all(name, "mr_mask") > 0, "mask")
    brain = mr.with_array(dataset.read_all(name, "brain") > 0, "mask") if "brain" in images else None
    return PreparedScan(mr, mask, statistics), brain
