from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmodal.core.errors import ConfigError
from transmodal.imaging.conversion import (
    AcousticTable,
    DensityTable,
    ElectronDensityTable,
    MuTable,
    acoustics,
    attenuation_511,
    by_points,
    choose_preset,
    read_table,
)

DENSITY, ELECTRONS = read_table(DensityTable, "density"), read_table(ElectronDensityTable, "electron-density")
MU, ACOUSTIC = read_table(MuTable, "mu-map"), read_table(AcousticTable, "acoustic")
VOLTAGES = (80, 100, 110, 120, 130, 140)

# Atomic number and mass, and weight percents and density (g/cm3) of ICRU 44 and 46.
ELEMENTS = {
    "H": (1, 1.008),
    "C": (6, 12.011),
    "N": (7, 14.007),
    "O": (8, 15.999),
    "Na": (11, 22.990),
    "Mg": (12, 24.305),
    "P": (15, 30.974),
    "S": (16, 32.06),
    "Cl": (17, 35.45),
    "Ar": (18, 39.95),
    "K": (19, 39.098),
    "Ca": (20, 40.078),
    "Fe": (26, 55.845),
}
WATER = ({"H": 11.19, "O": 88.81}, 1.0)
TISSUES = {
    "air": ({"C": 0.01, "N": 75.53, "O": 23.18, "Ar": 1.28}, 0.001205),
    "adipose": ({"H": 11.4, "C": 59.8, "N": 0.7, "O": 27.8, "Na": 0.1, "S": 0.1, "Cl": 0.1}, 0.95),
    "water": WATER,
    "brain": ({"H": 10.7, "C": 14.5, "N": 2.2, "O": 71.2, "Na": 0.2, "P": 0.4, "S": 0.2, "Cl": 0.3, "K": 0.3}, 1.04),
    "muscle": ({"H": 10.2, "C": 14.3, "N": 3.4, "O": 71.0, "Na": 0.1, "P": 0.2, "S": 0.3, "Cl": 0.1, "K": 0.4}, 1.05),
    "spongiosa": (
        {"H": 8.5, "C": 40.4, "N": 2.8, "O": 36.7, "Na": 0.1, "Mg": 0.1, "P": 3.4, "S": 0.2, "Cl": 0.2, "K": 0.1, "Ca": 7.4, "Fe": 0.1},
        1.18,
    ),
    "cranium": ({"H": 5.0, "C": 21.2, "N": 4.0, "O": 43.5, "Na": 0.1, "Mg": 0.2, "P": 8.1, "S": 0.3, "Ca": 17.6}, 1.61),
    "cortical": ({"H": 3.4, "C": 15.5, "N": 4.2, "O": 43.5, "Na": 0.1, "Mg": 0.2, "P": 10.3, "S": 0.3, "Ca": 22.5}, 1.92),
}
# Those that Schneider et al. (2000) fix their densities at, and the HU that they give.
ANCHORS = {
    -98: ({"H": 11.6, "C": 68.1, "N": 0.2, "O": 19.8, "Na": 0.1, "S": 0.1, "Cl": 0.1}, 0.93),
    14: ({"H": 10.6, "C": 28.4, "N": 2.6, "O": 57.8, "P": 0.1, "S": 0.2, "Cl": 0.2, "K": 0.1}, 1.03),
    100: ({"H": 9.4, "C": 20.7, "N": 6.2, "O": 62.2, "Na": 0.6, "S": 0.6, "Cl": 0.3}, 1.12),
    1524: TISSUES["cortical"],
}


def summed(tissue, of_one_atom):
    weights, density = tissue
    return density * sum(weight / ELEMENTS[name][1] * of_one_atom(ELEMENTS[name][0]) for name, weight in weights.items())


def stoichiometric_hu(tissue):
    def cross_section(z):
        return z + 1.24e-3 * z**2.86 + 3.06e-5 * z**4.62

    return 1000 * (summed(tissue, cross_section) / summed(WATER, cross_section) - 1)


def at(hu, table):
    return by_points(np.array(hu, float), table)


@pytest.mark.parametrize("hu", ANCHORS)
def test_the_stoichiometric_calibration_gives_the_hu_of_its_paper(hu):
    assert stoichiometric_hu(ANCHORS[hu]) == pytest.approx(hu, abs=1)


def test_the_densities_are_those_of_tissues_at_their_stoichiometric_hu():
    assert len(DENSITY.points) == len(ELECTRONS.points) == len(TISSUES)
    for (hu, density), (same_hu, electrons), tissue in zip(DENSITY.points, ELECTRONS.points, TISSUES.values(), strict=True):
        assert hu == same_hu == pytest.approx(stoichiometric_hu(tissue), abs=0.6 if hu > -1000 else 1.1)
        assert density == tissue[1]
        assert electrons == pytest.approx(summed(tissue, float) / summed(WATER, float), rel=1e-3, abs=5e-6)


def test_water_and_air_are_exact():
    np.testing.assert_array_equal(at([-1000, 0], DENSITY), np.float32([0.001205, 1]))
    np.testing.assert_array_equal(at([-1000, 0], ELECTRONS), np.float32([0.00108, 1]))
    for kvp in VOLTAGES:
        np.testing.assert_array_equal(attenuation_511(np.array([-1000, 0]), MU, kvp), np.float32([0, 0.096]))
    assert 1000 * at([0], DENSITY)[0] == ACOUSTIC.water.density  # g/cm3 and kg/m3


def test_between_points_is_a_line_below_the_first_a_constant_and_above_the_last_the_line_goes_on():
    assert at([643], DENSITY)[0] == pytest.approx((1.18 + 1.61) / 2)
    assert at([-3024], DENSITY)[0] == np.float32(0.001205)
    assert at([1524 + 525], DENSITY)[0] == pytest.approx(1.92 + (1.92 - 1.61))


def test_integers_and_floats_of_any_shape_give_floats_of_that_shape():
    hu = np.arange(-1000, 1000, 100, dtype=np.int16).reshape(2, 5, 2)
    for convert in (lambda hu: by_points(hu, DENSITY), lambda hu: attenuation_511(hu, MU, 120)):
        assert convert(hu).shape == hu.shape and convert(hu).dtype == np.float32
        np.testing.assert_array_equal(convert(hu), convert(hu.astype(float)))


def test_the_break_points_are_those_of_the_paper():
    crossings = {kvp: line.intercept / (MU.soft_slope - line.slope) - 1000 for kvp, line in MU.kvp.items()}
    assert {kvp: round(hu) for kvp, hu in crossings.items()} == dict(zip(VOLTAGES, (50, 52, 43, 47, 37, 30), strict=True))


@pytest.mark.parametrize(("kvp", "expected"), [(80, 0.1354), (100, 0.143), (110, 0.1472), (120, 0.1491), (130, 0.1526), (140, 0.1536)])
def test_bone_attenuates_as_the_paper_has_it(kvp, expected):
    assert attenuation_511(np.array([1000.0]), MU, kvp)[0] == pytest.approx(expected, abs=1e-6)
    assert attenuation_511(np.array([-3024.0]), MU, kvp)[0] == 0


def test_the_presets_are_what_their_formulas_give():
    hu, bone = np.array([500.0, 1150, 3000, 500]), np.array([True, True, True, False])
    aubry = acoustics(hu, bone, choose_preset(ACOUSTIC, "aubry2003"), ACOUSTIC.water)
    np.testing.assert_allclose(aubry["density"], [1600, 2200, 2200, 1000])
    np.testing.assert_allclose(aubry["speed"], [2200, 2900, 2900, 1500])
    np.testing.assert_allclose(aubry["attenuation"], [2 + 78 * np.sqrt(0.5), 2, 2, 0], rtol=1e-6)
    yaakub = acoustics(hu, bone, choose_preset(ACOUSTIC, "yaakub2023"), ACOUSTIC.water)
    np.testing.assert_allclose(yaakub["density"], [1225, 1517.5, 1900, 1000])
    np.testing.assert_allclose(yaakub["speed"], [1900, 2420, 3100, 1500])
    np.testing.assert_allclose(yaakub["attenuation"], [4 + 4.7 * np.sqrt(1500 / 1700), 4 + 4.7 * np.sqrt(0.5), 4, 0], rtol=1e-6)
    k_plan = acoustics(hu, bone, choose_preset(ACOUSTIC, "k-plan"), ACOUSTIC.water)
    np.testing.assert_allclose(k_plan["density"], [1280, 1530 + 620 * 150 / 950, 2150, 1000], rtol=1e-6)
    np.testing.assert_allclose(k_plan["speed"][:3], 1.33 * k_plan["density"][:3] + 167, rtol=1e-6)
    np.testing.assert_allclose(k_plan["attenuation"], [13.3, 13.3, 13.3, 0], rtol=1e-6)


@given(st.lists(st.floats(-3100, 4000), min_size=2, max_size=20))
def test_denser_is_never_less(values):
    hu = np.sort(np.array(values))
    maps = [by_points(hu, DENSITY), by_points(hu, ELECTRONS), *(attenuation_511(hu, MU, kvp) for kvp in VOLTAGES)]
    for preset in ACOUSTIC.presets.values():
        found = acoustics(hu, np.ones(hu.shape, bool), preset, ACOUSTIC.water)
        maps += [found["density"], found["speed"], -found["attenuation"]]
    for values in maps:
        assert (np.diff(values) >= 0).all()
    assert all((found >= 0).all() for found in maps[:8])


@given(st.lists(st.tuples(st.integers(-1000, 3000), st.floats(0, 5)), min_size=2, max_size=8, unique_by=lambda point: point[0]))
def test_a_table_passes_through_its_points(points):
    points = sorted(points)
    values = sorted(value for _, value in points)
    table = DensityTable(source="mine", unit="g/cm3", points=tuple((hu, value) for (hu, _), value in zip(points, values, strict=True)))
    np.testing.assert_array_equal(at([hu for hu, _ in points], table), np.float32(values))
    middles = [(a + b) / 2 for (a, _), (b, _) in pairwise(points)]
    np.testing.assert_allclose(at(middles, table), [(a + b) / 2 for a, b in pairwise(values)], rtol=1e-6, atol=1e-7)


GOOD = {"source": '"mine"', "unit": '"g/cm3"', "points": "[[-1000, 0.0], [0, 1.0]]"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": "[[-1000, 0.0], [0, 1.0], [10, 0.9]]"}, "values must not fall, and at 10 HU 0.9 comes after 1"),
        ({"points": "[[-1000, 0.0], [-1000, 1.0]]"}, "HU must rise from point to point, and -1000 comes after -1000"),
        ({"points": "[[-1000, -0.1], [0, 1.0]]"}, "must not be negative, and at -1000 HU there is -0.1"),
        ({"points": "[[0, 1.0]]"}, "two points"),
        ({"points": "[[0, 1.0, 2.0], [1, 1.0, 2.0]]"}, r"points\.0"),
        ({"unit": '"kg/m3"'}, "unit = 'kg/m3'"),
        ({"points": None}, "points: this setting is required"),
        ({"unit": None}, "unit: this setting is required"),
        ({"colour": '"red"'}, "colour: there is no such setting"),
        ({"points": "[[-1000, 0.0], [0, nan]]"}, "finite number"),
    ],
)
def test_a_table_that_is_none_is_refused_by_name(tmp_path, change, message):
    lines = [f"{key} = {value}" for key, value in (GOOD | change).items() if value is not None]
    path = tmp_path / "my.toml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=rf"(?s)my\.toml.*{message}"):
        read_table(DensityTable, "density", path)


def test_what_a_table_does_not_have_is_refused_with_what_it_has(tmp_path):
    with pytest.raises(ConfigError, match="--kvp 125: the table is for 80, 100, 110, 120, 130, 140 kV"):
        attenuation_511(np.zeros(1), MU, 125)
    with pytest.raises(ConfigError, match="--preset mine: the table has aubry2003, yaakub2023, k-plan"):
        choose_preset(ACOUSTIC, "mine")
    steep = tmp_path / "steep.toml"
    steep.write_text('source = "mine"\nunit = "1/cm"\nsoft_slope = 9.6e-5\nkvp = { 120 = { slope = 9.7e-5, intercept = 0.01 } }')
    with pytest.raises(ConfigError, match=r"at 120 kV the slope 9\.7e-05 is not below the soft_slope"):
        read_table(MuTable, "mu-map", steep)
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        read_table(MuTable, "mu-map", tmp_path / "absent.toml")
