import numpy as np
import pytest

from transmodal.core.errors import ConfigError, DataError
from transmodal.core.volume import Volume
from transmodal.simulation.contrast import (
    HU_RANGE,
    MR_PRESETS,
    WHITE_MATTER_SIGNAL,
    CTConfig,
    MRConfig,
    draw_mr,
    mr_signal,
    simulate_ct,
    simulate_mr,
)
from transmodal.simulation.tissues import Tissue, TissueProperties, tissue_by_name, tissue_table

LN2 = np.log(2)


def _tissue(t1: float, t2: float, t2_star: float, density: float) -> TissueProperties:
    return TissueProperties(
        t1_ms={"1.5T": t1, "3T": t1},
        t2_ms={"1.5T": t2, "3T": t2},
        t2_star_ms={"1.5T": t2_star, "3T": t2_star},
        proton_density=density,
        hu=0,
        hu_texture=0,
    )


def _blocks() -> Volume:
    """One slab of 8 voxels for each tissue."""
    return Volume(np.repeat(np.arange(len(Tissue), dtype=np.uint8), 8)[:, None, None].repeat(24, 1).repeat(24, 2), np.eye(4), "labels")


def _inside(tissue: Tissue) -> tuple[slice, slice, slice]:
    return slice(8 * tissue + 3, 8 * tissue + 5), slice(4, -4), slice(4, -4)


def _ideal(name: str) -> MRConfig:
    update = {"noise": 0.0, "bias": 0.0, "texture": 0.0, "tissue_spread": 0.0}
    return MR_PRESETS[name].model_copy(update=update)


def test_spin_echo_by_hand():
    # TR and TE of one half-life each: 0.8 x 1/2 x 1/2.
    config = MRConfig(sequence="spin_echo", tr_ms=1000 * LN2, te_ms=100 * LN2)
    assert mr_signal(_tissue(1000, 100, 1, 0.8), config) == pytest.approx(0.2, rel=1e-12)


def test_gradient_echo_by_hand():
    # E1 = 1/2, a = 60 degrees: sqrt(3)/2 x 1/2 / (1 - 1/4) = 1/sqrt(3); then half of it after one half-life of T2*.
    config = MRConfig(sequence="gradient_echo", tr_ms=500 * LN2, te_ms=20 * LN2, flip_angle_deg=60)
    assert mr_signal(_tissue(500, 1, 20, 1.0), config) == pytest.approx(0.5 / np.sqrt(3), rel=1e-12)


def test_gradient_echo_is_strongest_at_the_ernst_angle():
    tissue = _tissue(600, 80, 50, 1.0)
    ernst = np.rad2deg(np.arccos(np.exp(-20 / 600)))
    signals = [
        mr_signal(tissue, MRConfig(sequence="gradient_echo", tr_ms=20, te_ms=0, flip_angle_deg=angle))
        for angle in (ernst - 1, ernst, ernst + 1)
    ]
    assert max(signals) == signals[1]


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("t1w", ("fat", "white_matter", "grey_matter", "csf", "cortical_bone")),
        ("t2w", ("csf", "grey_matter", "white_matter", "muscle", "cortical_bone")),
        ("pd", ("grey_matter", "white_matter", "cortical_bone")),
        ("bone", ("cortical_bone", "sinus_air")),
    ],
)
@pytest.mark.parametrize("field", ["1.5T", "3T"])
def test_contrast_order(name, order, field):
    config = MR_PRESETS[name].model_copy(update={"field": field})
    signals = [mr_signal(tissue_table()[tissue_by_name(tissue, "test")], config) for tissue in order]
    assert signals == sorted(signals, reverse=True)


def test_only_the_short_echo_sees_cortical_bone():
    table = tissue_table()

    def relative(name: str) -> float:
        return mr_signal(table[Tissue.CORTICAL_BONE], MR_PRESETS[name]) / mr_signal(table[Tissue.WHITE_MATTER], MR_PRESETS[name])

    assert relative("bone") > 0.2
    assert max(relative(name) for name in ("t1w", "t2w", "pd")) < 0.01


def test_mr_without_imperfections_is_the_signal_equation():
    labels, config = _blocks(), _ideal("t1w").model_copy(update={"blur_mm": 0.0})
    image = simulate_mr(labels, config, np.random.default_rng(0)).array
    table = tissue_table()
    reference = mr_signal(table[Tissue.WHITE_MATTER], config)
    for tissue in Tissue:
        expected = WHITE_MATTER_SIGNAL * mr_signal(table[tissue], config) / reference
        np.testing.assert_allclose(image[_inside(tissue)], expected, rtol=1e-5, atol=1e-3)


def test_noise_of_the_background_is_rayleigh():
    labels = Volume(np.zeros((40, 40, 40), dtype=np.uint8), np.eye(4), "labels")
    config = _ideal("t1w").model_copy(update={"noise": 0.05})
    image = np.asarray(simulate_mr(labels, config, np.random.default_rng(1)).array)
    sigma = 0.05 * WHITE_MATTER_SIGNAL
    assert image.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.02)
    assert image.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.02)


def test_thick_slices_blur_across_the_slices_only():
    array = np.zeros((21, 21, 21), dtype=np.uint8)
    array[10:] = Tissue.WHITE_MATTER
    along, across = (
        np.asarray(
            simulate_mr(
                Volume(array, np.eye(4), "labels"),
                _ideal("t1w").model_copy(update={"blur_mm": 0.0, "slice_mm": 4.0, "slice_axis": axis}),
                np.random.default_rng(0),
            ).array
        )
        for axis in (0, 2)
    )
    assert 0.2 < along[9, 10, 10] / WHITE_MATTER_SIGNAL < 0.5
    assert across[9, 10, 10] / WHITE_MATTER_SIGNAL < 0.1


def test_bias_field_has_the_amplitude_that_was_asked_for():
    labels = Volume(np.full((32, 32, 32), Tissue.WHITE_MATTER, dtype=np.uint8), np.eye(4), "labels")
    image = np.asarray(simulate_mr(labels, _ideal("t1w").model_copy(update={"bias": 0.2}), np.random.default_rng(3)).array)
    assert np.log(image).std() == pytest.approx(0.2, rel=1e-3)
    assert np.abs(np.diff(np.log(image), axis=0)).max() < 0.2


def test_ct_of_uniform_tissues_is_the_table():
    image = simulate_ct(_blocks(), CTConfig(noise_hu=0, texture=0, psf_mm=0), np.random.default_rng(0)).array
    assert image.dtype == np.int16
    for tissue in Tissue:
        assert (np.asarray(image)[_inside(tissue)] == round(tissue_table()[tissue].hu)).all()


def test_hu_are_recovered_inside_tissues_under_noise_and_texture():
    image = np.asarray(simulate_ct(_blocks(), CTConfig(), np.random.default_rng(0)).array, dtype=float)
    for tissue in Tissue:
        properties = tissue_table()[tissue]
        inside = image[_inside(tissue)]
        tolerance = 5 + 0.4 * properties.hu_texture
        assert abs(inside.mean() - max(properties.hu, HU_RANGE[0])) < tolerance, tissue


def test_ct_noise_has_its_standard_deviation():
    labels = Volume(np.full((30, 30, 30), Tissue.WHITE_MATTER, dtype=np.uint8), np.eye(4), "labels")
    image = np.asarray(simulate_ct(labels, CTConfig(noise_hu=15, texture=0), np.random.default_rng(0)).array, dtype=float)
    assert image.std() == pytest.approx(15, rel=0.02)


def test_images_stay_in_range_and_repeat_by_seed():
    labels = _blocks()
    first, again, other = (np.asarray(simulate_ct(labels, CTConfig(noise_hu=300), np.random.default_rng(s)).array) for s in (1, 1, 2))
    assert first.min() >= HU_RANGE[0]
    assert first.max() <= HU_RANGE[1]
    assert (first == again).all()
    assert (first != other).any()
    first, again = (np.asarray(simulate_mr(labels, MR_PRESETS["t2w"], np.random.default_rng(1)).array) for _ in range(2))
    assert (first == again).all()


def test_labels_of_another_convention_are_refused():
    labels = Volume(np.full((9, 9, 9), 77, dtype=np.uint8), np.eye(4), "labels")
    with pytest.raises(DataError, match=r"77.*--mapping"):
        simulate_ct(labels, CTConfig(), np.random.default_rng(0))


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="t1w"):
        draw_mr("flair", np.random.default_rng(0))
    with pytest.raises(ConfigError, match="grey_matter"):
        tissue_by_name("gray", "here")
