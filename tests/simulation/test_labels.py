import numpy as np
import pytest

from transmodal.core.errors import ConfigError, DataError
from transmodal.core.volume import Volume
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.scan import read_scan
from transmodal.simulation.contrast import MR_PRESETS, simulate_mr
from transmodal.simulation.labels import LabelMapping, head_mask, map_labels, mapping_names, read_mapping
from transmodal.simulation.tissues import Tissue


def _ball(radii_and_classes: list[tuple[float, int]], spacing: float = 1.0) -> Volume:
    axis = (np.arange(48) - 23.5) * spacing
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)))
    array = np.zeros(distance.shape, dtype=np.uint8)
    for radius, number in radii_and_classes:
        array[distance < radius] = number
    return Volume(array, np.diag([spacing, spacing, spacing, 1.0]), "labels")


def test_classes_become_tissues():
    mapping = LabelMapping(classes={3: "csf", 7: "white_matter"})
    tissues = np.asarray(map_labels(_ball([(20, 3), (10, 7)]), mapping).array)
    assert tissues[24, 24, 24] == Tissue.WHITE_MATTER
    assert tissues[24, 24, 24 + 15] == Tissue.CSF
    assert tissues[0, 0, 0] == Tissue.BACKGROUND


def test_enclosed_background_is_internal_air():
    tissues = map_labels(_ball([(20, 1), (5, 0)]), LabelMapping(classes={1: "muscle"}))
    assert np.asarray(tissues.array)[24, 24, 24] == Tissue.SINUS_AIR
    mask = np.asarray(head_mask(tissues).array)
    assert mask[24, 24, 24]
    assert not mask[0, 0, 0]


@pytest.mark.parametrize("spacing", [0.5, 1.0])
def test_enrichment_is_measured_in_mm(spacing):
    labels = _ball([(20 * spacing, 1), (12 * spacing, 2)], spacing)
    mapping = LabelMapping(classes={1: "muscle", 2: "cortical_bone"}, skin_mm=2 * spacing, fat_mm=3 * spacing, table_mm=2 * spacing)
    ray = np.asarray(map_labels(labels, mapping).array)[24, 24, 24:]
    counts = {tissue: int((ray == tissue).sum()) for tissue in (Tissue.SKIN, Tissue.FAT, Tissue.MUSCLE, Tissue.CORTICAL_BONE)}
    assert counts == {Tissue.SKIN: 2, Tissue.FAT: 3, Tissue.MUSCLE: 3, Tissue.CORTICAL_BONE: 2}
    assert ray[0] == Tissue.DIPLOE


def test_bone_thinner_than_two_tables_has_no_diploe():
    labels = _ball([(20, 2), (17, 1)])
    tissues = map_labels(labels, LabelMapping(classes={1: "csf", 2: "cortical_bone"}, table_mm=2.0))
    assert Tissue.DIPLOE not in np.asarray(tissues.array)


def test_a_class_that_the_mapping_lacks_is_named():
    with pytest.raises(DataError, match=r"\[9\].*add them"):
        map_labels(_ball([(20, 1), (5, 9)]), LabelMapping(classes={1: "muscle"}))


def test_built_in_mappings_are_readable():
    assert {"new_york_head", "usc_19.5", "brainweb"} <= set(mapping_names())
    for name in mapping_names():
        assert read_mapping(name).classes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[classes]\n1 = "brain"\n', "class 1.*'brain'.*white_matter"),
        ('[classes]\nx = "skin"\n', "x"),
        ('tabel_mm = 2\n[classes]\n1 = "skin"\n', "tabel_mm"),
        ("[classes\n", "not valid TOML"),
    ],
)
def test_faulty_mappings_are_explained(tmp_path, text, message):
    path = tmp_path / "mapping.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        read_mapping(path)


def test_an_unknown_mapping_lists_those_there_are():
    with pytest.raises(ConfigError, match="new_york_head"):
        read_mapping("newyork")


@pytest.mark.parametrize(
    ("file", "mapping"),
    [
        ("colin27_labels.nii.gz", "brainweb"),
        ("usc19.5_fullhead_labels.nii.gz", "usc_19.5"),
        pytest.param("nyhead_labels.nii.gz", "new_york_head", marks=pytest.mark.slow),
    ],
)
def test_public_label_maps_become_heads(shared_data, file, mapping):
    labels = read_scan(shared_data / "anatomy" / file, "labels")
    coarse = resample(labels, isotropic_grid(labels.grid, 2.5), order=0)
    tissues = np.asarray(map_labels(coarse, read_mapping(mapping)).array)
    litres = {tissue: (tissues == tissue).sum() * 2.5**3 / 1e6 for tissue in Tissue}
    assert 0.9 < litres[Tissue.GREY_MATTER] + litres[Tissue.WHITE_MATTER] < 1.8
    assert 0.25 < litres[Tissue.CORTICAL_BONE] + litres[Tissue.DIPLOE] < 1.2
    assert litres[Tissue.FAT] > 0.05


def test_a_simulated_t1_resembles_the_real_t1_of_the_same_head(shared_data):
    labels = read_scan(shared_data / "anatomy" / "colin27_labels.nii.gz", "labels")
    real = read_scan(shared_data / "anatomy" / "colin27_t1.nii.gz", "mr")
    tissues = map_labels(labels, read_mapping("brainweb"))
    config = MR_PRESETS["t1w"].model_copy(update={"bias": 0.0})
    simulated = np.asarray(simulate_mr(tissues, config, np.random.default_rng(0)).array)
    inside = np.asarray(head_mask(tissues).array)
    assert np.corrcoef(simulated[inside], np.asarray(real.array)[inside])[0, 1] > 0.7

    def relative(image, tissue):
        classes = np.asarray(tissues.array)
        return image[classes == tissue].mean() / image[classes == Tissue.WHITE_MATTER].mean()

    for tissue in (Tissue.GREY_MATTER, Tissue.MUSCLE, Tissue.FAT, Tissue.CSF):
        assert abs(np.log(relative(simulated, tissue) / relative(np.asarray(real.array), tissue))) < np.log(1.5), tissue
