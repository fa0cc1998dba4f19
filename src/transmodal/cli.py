"""The command line. Each command is a thin skin over one workflow; whatever is heavy is imported when a command runs."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from transmodal import __version__
from transmodal.core.errors import ConfigError, Interrupted, OutOfMemory, TransmodalError

app = App(
    name="transmodal",
    version=__version__,
    help="From a head MR to the CT that was never taken, and from a CT to the MR.",
    help_format="plaintext",
)

# A switch without a --no- twin.
Flag = Annotated[bool, Parameter(negative="")]
# As transmodal.imaging.layouts has it, which is heavy to import.
LayoutName = Literal["auto", "synthrad", "bids", "nnunet", "dicom", "csv", "folders", "unpaired"]


@app.command
def demo(out: Path | None = None, /, *, train: Flag = False, seed: int = 0) -> None:
    """Make the CT of a simulated head with the built-in model, and judge it; or walk through a whole training, in minutes.

    Parameters
    ----------
    out
        The folder to write, by default transmodal-demo, or transmodal-training; a demo that was interrupted goes on where it stopped.
    train
        Simulate a dozen heads, train on them, apply the model to heads that were held out, and score it.
    seed
        Of the heads and of training.
    """
    from transmodal.workflows.demo import demo as run
    from transmodal.workflows.demo import walk

    page = walk(out or Path("transmodal-training"), seed=seed) if train else run(out or Path("transmodal-demo"), seed=seed)
    print(f"The report: {page}")


@app.command
def simulate(
    out: Path,
    /,
    *,
    subjects: int = 8,
    seed: int = 0,
    shape: tuple[int, int, int] = (192, 224, 192),
    spacing_mm: float | None = None,
    age_years: float | None = None,
    contrast: str = "t1w",
    misalign_mm: float = 0.0,
    misalign_deg: float = 0.0,
    misalign_warp_mm: float = 0.0,
    labels: Path | None = None,
    mapping: str | None = None,
    prefix: str = "sim",
) -> None:
    """Make paired MR and CT heads with label maps, in SynthRAD layout.

    Parameters
    ----------
    out
        The folder to write.
    subjects
        How many heads.
    seed
        The same seed gives the same heads.
    shape
        Voxels along x, y and z.
    spacing_mm
        Voxel size; by default the one with which the shape just holds the head, or that of the label map.
    age_years
        Age of every head; by default adults of 18 to 85.
    contrast
        t1w, t2w, pd, or bone (short echo time).
    misalign_mm, misalign_deg, misalign_warp_mm
        Shift, rotation and smooth deformation of the CT against the MR; the true transform is written beside them.
    labels
        A label map to make images of, in place of procedural heads.
    mapping
        What the classes of the label map are: the name of a built-in mapping, or a TOML file.
    prefix
        What the names of the subjects begin with.
    """
    from transmodal.workflows.simulate import simulate as run

    names = run(
        out,
        subjects=subjects,
        seed=seed,
        shape=shape,
        spacing_mm=spacing_mm,
        age_years=age_years,
        contrast=contrast,
        misalign_mm=misalign_mm,
        misalign_deg=misalign_deg,
        misalign_warp_mm=misalign_warp_mm,
        labels=labels,
        mapping=mapping,
        prefix=prefix,
    )
    print(f"{len(names)} subjects in {out}")


@app.command
def prepare(
    source: Path,
    dataset: Path,
    /,
    *,
    layout: LayoutName = "auto",
    ct: Path | None = None,
    mr_series: str | None = None,
    ct_series: str | None = None,
    force_geometry: Flag = False,
    recipe: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    register: Literal["auto", "none", "rigid", "affine", "landmarks"] | None = None,
    spacing_mm: float | None = None,
    native: Flag = False,
    workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Turn scans, however they are organised, into a dataset for training, with a page to check them on.

    Parameters
    ----------
    source
        A folder in SynthRAD, BIDS or nnU-Net layout, a tree of DICOM files, two folders mr and ct, or a table (.csv, .tsv) of scans.
    dataset
        The folder to write; finished subjects are kept.
    layout
        How the source is organised; by default it is recognized, and the reason told.
    ct
        A folder of CTs of other people than those whose MRs are in the source: an unpaired dataset.
    mr_series, ct_series
        Which of several scans of a subject is meant: of DICOM, the number or UID of the series or a pattern of its description, such as
        "*mprage*"; of files, a pattern of the name.
    force_geometry
        Of DICOM, resample tilted, missing or uneven slices onto a regular grid, and accept lossy compression, instead of refusing.
    recipe
        Prepare as this recipe asks for (its table [preparation]).
    set_
        A setting to replace, such as preparation.bias_correction=true; may be given several times.
    register
        How the CT of a pair comes onto its MR; auto is rigid where they lie on different grids, and none where they share one.
    spacing_mm
        Isotropic voxel size that every scan is resampled to; by default 1.
    native
        Keep the voxels of each scan as they are, and only order the axes.
    workers
        Processes that prepare subjects at the same time.
    scheduler
        Address of a dask scheduler whose workers do it instead, such as tcp://node1:8786.
    """
    from transmodal.core.jobs import Workers
    from transmodal.methods.recipe import load_preparation
    from transmodal.workflows.prepare import prepare as run

    if native and spacing_mm is not None:
        raise ConfigError(f"--native and --spacing-mm {spacing_mm:g}: the scans' own grids, or one spacing for all; leave one out")
    given = {"registration.kind": register, "spacing_mm": "native" if native else spacing_mm}
    shortcuts = [f"preparation.{name}={value}" for name, value in given.items() if value is not None]
    settings = load_preparation(recipe, [*(set_ or []), *shortcuts])
    choices = {"ct_source": ct, "mr_series": mr_series, "ct_series": ct_series, "force_geometry": force_geometry}
    manifest = run(source, dataset, settings, layout=layout, workers=Workers(workers, scheduler), **choices)
    pairs = sum(subject.paired for subject in manifest.subjects)
    print(f"{len(manifest.subjects)} subjects ({pairs} paired) in {dataset}; to check them: {dataset / 'quality.html'}")


@app.command
def train(
    recipe: str,
    dataset: Path,
    run: Path,
    /,
    *,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    resume: Flag = False,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    devices: str = "auto",
    nodes: int = 1,
    accelerator: str = "auto",
    workers: int = 1,
) -> None:
    """Train the method of a recipe on a dataset.

    Parameters
    ----------
    recipe
        The name of a recipe (see: transmodal recipes), or a TOML file.
    dataset
        A folder written by: transmodal prepare.
    run
        The folder to write. It holds everything that prediction needs.
    set_
        A setting to replace, such as train.steps=500; may be given several times.
    resume
        Go on from the latest checkpoint, with exactly the result of a training that was never interrupted.
    from_
        Another run, or the name of a built-in model, whose weights to begin with; its networks must be of the same architecture.
    devices
        Devices (or CPU processes) per node.
    nodes
        Machines, under torchrun or SLURM.
    accelerator
        auto, cpu, cuda ...
    workers
        Processes that register atlases at the same time, for a recipe that builds on them.
    """
    from transmodal.core.jobs import Workers
    from transmodal.methods.recipe import load_recipe
    from transmodal.workflows.train import train as run_training

    count: int | str = int(devices) if devices.isdigit() else devices
    resolved = load_recipe(recipe, set_ or [])
    where = {"devices": count, "nodes": nodes, "accelerator": accelerator, "workers": Workers(workers)}
    run_training(resolved, dataset, run, resume=resume, begin=from_, **where)
    print(f"The run: {run}")


atlas = App(name="atlas", help="Sets of atlases: heads whose CT is known, to be registered to an MR.")
app.command(atlas)


@atlas.command
def build(
    dataset: Path,
    out: Path,
    /,
    *,
    recipe: str = "atlas-affine",
    subjects: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Make atlases of the pairs of a dataset, with masks of bone and brain; what it writes is a model for synthesize.

    Parameters
    ----------
    dataset
        A folder written by: transmodal prepare.
    out
        The folder to write.
    recipe
        The name of an atlas recipe, or a TOML file.
    subjects
        Which are to be atlases; by default all that have an MR and a CT.
    set_
        A setting to replace, such as method.brain=deepbet; may be given several times.
    workers
        Processes that register atlases to one another at the same time, where masks of brains are missing.
    scheduler
        Address of a dask scheduler whose workers do it instead.
    """
    from transmodal.core.jobs import Workers
    from transmodal.methods.recipe import load_recipe
    from transmodal.workflows.atlas import build_atlases, describe_atlases

    resolved = load_recipe(recipe, set_ or [])
    print(describe_atlases(build_atlases(resolved, dataset, out, subjects=subjects, workers=Workers(workers, scheduler))))
    print(f"The atlases: {out}")


@app.command
def synthesize(
    scan: Path,
    output: Path,
    /,
    *,
    model: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    direction: Literal["mr2ct", "ct2mr"] | None = None,
    layout: LayoutName = "auto",
    part: Literal["all", "train", "validation", "test"] = "all",
    device: str = "auto",
    series: str | None = None,
    force_geometry: Flag = False,
    force: Flag = False,
    uncertainty: Flag = False,
    cycle: Flag = False,
    brain: Path | None = None,
    workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Make the other modality of a scan, or of every subject of a folder, on the scan's own grid.

    A model that segments (recipes bone-unet2d and tissues2d) makes a mask of the bone instead.

    Parameters
    ----------
    scan
        A scan, a folder of subjects or a table as prepare takes them, or a folder of DICOM files.
    output
        A scan file such as sct.nii.gz, or for a folder the folder to write. From DICOM, a folder takes the result as a series; from BIDS,
        it becomes a BIDS derivative.
    model
        A run, or the name of a built-in model (see: transmodal models), by default any-mr; or several after each other, whose mean is
        taken. Give it after SCAN and OUTPUT.
    direction
        mr2ct or ct2mr; by default what the model does.
    layout
        How a folder is organised; by default it is recognized, and the reason told.
    part
        Of a folder, only the subjects in this part of the run's split.
    device
        auto, cpu, cuda ...
    series
        Where several scans would do: of DICOM, the number or UID of the series or a pattern of its description; of files, a pattern
        of the name.
    force_geometry
        Of DICOM, resample tilted, missing or uneven slices onto a regular grid, and accept lossy compression, instead of refusing.
    force
        Go on with a scan that the guard of the model refuses, such as one without its skull or with a wrong orientation.
    uncertainty
        Also write sct_uncertainty.nii.gz: the standard deviation in HU over all runs, planes, mirror images and exposures, with what the
        built-in model expects of its own error.
    cycle
        Also write sct_cycle.nii.gz: the scan made again from the result, by a model that goes both ways.
    brain
        A mask of the brain in the scan, for atlases that are matched by its surface; of a folder, brain.nii.gz beside each scan.
    workers
        Processes that register atlases at the same time.
    scheduler
        Address of a dask scheduler whose workers do it instead, such as tcp://node1:8786.
    """
    from transmodal.core.jobs import Workers
    from transmodal.methods.builtin import DEFAULT_MODEL
    from transmodal.workflows.synthesize import synthesize as run

    shared = {"brain": brain, "workers": Workers(workers, scheduler)}
    choices = {"series": series, "force_geometry": force_geometry, "force": force, "uncertainty": uncertainty, "cycle": cycle, **shared}
    written = run(scan, output, model or [Path(DEFAULT_MODEL)], direction=direction, layout=layout, part=part, device=device, **choices)
    print(f"{len(written)} written: {output}")


@app.command
def segment(ct: Path, out: Path, /, *, synthetic: Flag = False) -> None:
    """Segment the bone of a true or synthetic CT, or of every case of a folder, by k-means.

    Parameters
    ----------
    ct
        A CT, or a folder with one case a sub-folder (ct.nii.gz), or one case a file. A mask of the head beside it is used.
    out
        A file such as bone.nii.gz; for a folder, the folder that takes CASE/bone.nii.gz.
    synthetic
        Of a folder, take the synthetic CTs (sct.nii.gz).
    """
    from transmodal.workflows.segment import segment as run

    written = run(ct, out, synthetic=synthetic)
    print(f"{len(written)} written: {out}")


@app.command
def surface(
    ct: Path,
    out: Path,
    /,
    *,
    reference: Path | None = None,
    mask: Path | None = None,
    threshold_hu: float = 250.0,
    specks_mm3: float = 0.0,
    json: Flag = False,
) -> None:
    """Make a mesh of the bone of a true or synthetic CT, and measure how far it is from that of another.

    Parameters
    ----------
    ct
        A CT in HU; or a mask of bone, which has no other values than 0 and one more.
    out
        A file such as skull.stl or skull.ply, in RAS+ mm. PLY takes the deviation as well, as a property and a colour of its vertices.
    reference
        The true CT (or a mask of its bone), on the same grid, to measure the deviation from.
    mask
        Only bone in here counts, on the same grid; by default all of the image.
    threshold_hu
        What is above is bone.
    specks_mm3
        Pieces of bone, and cavities in it, of less volume are left out.
    json
        For a script to read.
    """
    from transmodal.workflows.surface import print_summary
    from transmodal.workflows.surface import surface as run

    print_summary(run(ct, out, reference=reference, mask=mask, threshold_hu=threshold_hu, specks_mm3=specks_mm3), as_json=json)


@app.command
def convert(
    ct: Path,
    out: Path,
    /,
    *,
    to: Literal["density", "electron-density", "mu-map", "acoustic", "bone", "head-model"],
    table: Path | None = None,
    kvp: int | None = None,
    preset: str | None = None,
    threshold_hu: float | None = None,
    compact_hu: float | None = None,
    closing_mm: float | None = None,
    brain: Path | None = None,
    surfaces: Flag = False,
    series: str | None = None,
    force_geometry: Flag = False,
    json: Flag = False,
) -> None:
    """Turn a true or synthetic CT into what is calculated with next, on the CT's own grid, with units and sources beside it.

    Parameters
    ----------
    ct
        A CT in HU, or a folder of DICOM files.
    out
        A scan file such as density.nii.gz; density.json takes units, table and record. For acoustic, _density, _speed and _attenuation
        are added to the name.
    to
        Mass density (g/cm3), electron density (relative to water), attenuation at 511 keV (1/cm), acoustic maps of the skull (kg/m3, m/s,
        dB/cm), a mask of the bone, or a head model: labels of soft tissue, bone, the cavity of the brain, and air.
    table
        A TOML file of your own in place of the package's table.
    kvp
        Of mu-map, the tube voltage of the CT in kV; by default 120.
    preset
        Of acoustic: aubry2003 (the default), yaakub2023 or k-plan, or one of your table.
    threshold_hu
        Of acoustic, bone and head-model: bone is above it; by default 250, or what the preset has.
    compact_hu
        Of head-model: below it, bone inside bone is spongy; by default 700.
    closing_mm
        Of head-model: holes in bone up to twice this are closed; by default 3.
    brain
        Of head-model: a mask of the brain, on the same grid, which becomes a layer.
    surfaces
        Of head-model: also write a closed surface around each layer, as STL.
    series
        Of DICOM, the number or UID of the series, or a pattern of its description.
    force_geometry
        Of DICOM, resample tilted, missing or uneven slices onto a regular grid, and accept lossy compression, instead of refusing.
    json
        For a script to read.
    """
    from transmodal.workflows.convert import convert as run
    from transmodal.workflows.convert import print_conversion

    options = {"table": table, "kvp": kvp, "preset": preset, "threshold_hu": threshold_hu, "compact_hu": compact_hu}
    options |= {"closing_mm": closing_mm, "brain": brain, "surfaces": surfaces, "series": series, "force_geometry": force_geometry}
    print_conversion(run(ct, out, to, **options), out, as_json=json)


@app.command
def evaluate(
    predictions: Path,
    references: Path,
    out: Path,
    /,
    *,
    masks: Path | None = None,
    protocol: Annotated[list[str] | None, Parameter(negative="")] = None,
    direction: Literal["mr2ct", "ct2mr"] = "mr2ct",
    resample: Flag = False,
    prescription_gy: float | None = None,
) -> None:
    """Score synthetic images against true ones, whoever made them.

    Parameters
    ----------
    predictions
        A folder with one case a sub-folder (sct.nii.gz), or one case a file; or with masks of bone (bone.nii.gz).
    references
        A folder of true images, matched by name.
    out
        The folder to write: scores.csv, scores.json.
    masks
        A folder of masks; by default those beside the references, or else found in them.
    protocol
        How to score; may be given several times. CT: synthrad2023, synthrad2025, tissue, bone, surface, thin-bone, labels, dose,
        uncertainty, and multi-atlas, cyclegan, light-unet as these papers score. MR: mr, mr-gan.
    direction
        mr2ct scores synthetic CTs, ct2mr synthetic MRs.
    resample
        Put predictions on other grids onto the references' grids, instead of refusing them.
    prescription_gy
        For the protocol dose; by default 2 Gy.
    """
    from transmodal.workflows.evaluate import evaluate as run

    choices = {"direction": direction, "resample": resample, "prescription_gy": prescription_gy}
    run(predictions, references, out, masks=masks, protocols=protocol, **choices)
    print(f"The scores: {out}")


@app.command
def study(
    study: str,
    dataset: Path,
    out: Path,
    /,
    *,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    scaled: Flag = False,
    attributes: Path | None = None,
    dry_run: Flag = False,
    workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Train, synthesize and evaluate all that a published table compares, and write the table beside the published one.

    Parameters
    ----------
    study
        The name of a study (see: transmodal studies), or a TOML file.
    dataset
        A folder written by: transmodal prepare.
    out
        The folder to write, one for each study and its settings. What is finished there is kept, and a training that was stopped goes on.
    set_
        A setting to replace in the recipes of all arms, such as train.steps=500; may be given several times.
    scaled
        Small networks, few steps and folds: the form of the tables in minutes, not their numbers.
    attributes
        A table (.csv, .tsv) of attributes that the dataset does not hold, such as hospital, with a column subject.
    dry_run
        Only list the cells, that is the trainings, and which of them are done.
    workers
        Processes that do cells at the same time.
    scheduler
        Address of a dask scheduler whose workers do it instead, such as tcp://node1:8786.
    """
    from transmodal.core.jobs import Workers
    from transmodal.workflows.study import list_cells, run_study

    choices = {"assignments": set_ or [], "scaled": scaled, "attributes": attributes}
    if dry_run:
        print("\n".join(list_cells(study, dataset, out, **choices)))
        return
    run_study(study, dataset, out, **choices, workers=Workers(workers, scheduler))
    print(f"The tables: {out / 'tables.md'}")


@app.command
def studies(*, json: Flag = False) -> None:
    """List the studies that come with the package.

    Parameters
    ----------
    json
        For a script to read.
    """
    from transmodal.workflows.studies import show_studies

    show_studies(as_json=json)


@app.command
def report(
    *arguments: Annotated[Path, Parameter(name="SOURCES OUT.html")],
    title: str | None = None,
    view: Annotated[list[str] | None, Parameter(negative="")] = None,
    no_viewer: Flag = False,
    scans: Path | None = None,
) -> None:
    """Make one self-contained HTML page of scores, runs and synthetic images.

    Parameters
    ----------
    arguments
        One or more folders of scores (see: transmodal evaluate), runs, or synthetic images without true ones, and last the page to write.
    title
        Of the page.
    view
        A case to look into, with what every method made of it; may be given several times. By default the median one of the first method.
    no_viewer
        Leave the viewer out, which is most of the page's size; slices remain.
    scans
        A folder of the scans that synthetic images without scores were made from; by default what lies beside them.
    """
    from transmodal.core.errors import ConfigError
    from transmodal.workflows.report import report as run

    if len(arguments) < 2 or arguments[-1].suffix != ".html":
        raise ConfigError(
            "report: give one or more folders of scores, runs or synthetic images, and last the page to write, such as report.html"
        )
    run(arguments[:-1], arguments[-1], title=title, view=view, viewer=not no_viewer, scans=scans)
    print(f"The report: {arguments[-1]}")


@app.command
def show(
    *scans: Path,
    out: Path | None = None,
    reference: Path | None = None,
    at: tuple[float, float, float] | None = None,
    window: tuple[float, float] | None = None,
) -> None:
    """Draw three planes of scans beside one another, in the terminal or as a PNG.

    Parameters
    ----------
    scans
        MRs and CTs, shown on the grid of the first.
    out
        The PNG to write; by default the picture goes to the terminal.
    reference
        A true image, shown first; the errors of the others are drawn beside them, red where too low, blue where too high.
    at
        The point that the planes meet in, in RAS+ mm; by default the middle of the head.
    window
        The HU of black and white in CTs; by default -600 1400.
    """
    from transmodal.core.errors import ConfigError
    from transmodal.workflows.show import show as run

    if not scans:
        raise ConfigError("show: give one or more scans, such as mr.nii.gz sct.nii.gz")
    run(scans, out, reference=reference, at=at, limits=window)


@app.command
def series(folder: Path, /, *, json: Flag = False) -> None:
    """List what a DICOM folder holds, and why a series is no volume where it is none.

    Parameters
    ----------
    folder
        A folder tree, or one file.
    json
        For a script to read.
    """
    from transmodal.workflows.series import show_series

    show_series(folder, as_json=json)


@app.command
def export(run: Path, out: Path, /) -> None:
    """Make a model to pass on of a run: what prediction needs, with weights in half precision.

    Parameters
    ----------
    run
        A folder written by: transmodal train.
    out
        The folder to write; synthesize --model takes it as it takes a run.
    """
    from transmodal.workflows.export import export as write

    print(f"The model: {out} ({write(run, out):.1f} MB)")


@app.command
def models(name: str | None = None, /, *, json: Flag = False) -> None:
    """List the models that come with the package, or show the card of one: what it was trained on, what it does well, and what not.

    Parameters
    ----------
    name
        Of a model, to show its card.
    json
        For a script to read.
    """
    from transmodal.workflows.models import show_models

    show_models(name, as_json=json)


@app.command
def recipes(*, details: Flag = False, json: Flag = False) -> None:
    """List the recipes that come with the package.

    Parameters
    ----------
    details
        Also layers and parameters of each network.
    json
        For a script to read.
    """
    from transmodal.workflows.recipes import show_recipes

    show_recipes(details=details, as_json=json)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line; a user's error is one message and its own exit code, never a traceback.

    Parameters
    ----------
    words : sequence of str, optional
        The command and its arguments; by default those that the program was called with.
    """
    try:
        with _sigterm_as_interrupt():
            app(sys.argv[1:] if words is None else words)
    except TransmodalError as error:
        print(f"transmodal: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except MemoryError:
        print("transmodal: there is not enough memory; close other programs, or use a larger machine", file=sys.stderr)
        sys.exit(OutOfMemory.exit_code)
    except KeyboardInterrupt:
        print("transmodal: stopped; what is finished is kept, and the same command does the rest", file=sys.stderr)
        sys.exit(Interrupted.exit_code)
    except BrokenPipeError:
        sys.exit(141)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does: temporary files and locks are removed on the way out."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    main()
