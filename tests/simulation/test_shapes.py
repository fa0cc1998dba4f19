import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transmodal.simulation import shapes
from transmodal.simulation.noise import SmoothField, band_noise, sheet_distance

coordinate = st.floats(-50, 50, width=32)
point = st.tuples(coordinate, coordinate, coordinate)


def _at(x, y, z) -> shapes.Points:
    return tuple(np.full((1, 1, 1), value, dtype=np.float32) for value in (x, y, z))


@given(point, st.floats(1, 30))
def test_a_ball_is_a_sphere_an_ellipsoid_and_a_capsule_of_no_length(p, radius):
    expected = np.linalg.norm(p) - radius
    assert shapes.sphere(_at(*p), (0, 0, 0), radius).item() == pytest.approx(expected, abs=1e-3)
    assert shapes.capsule(_at(*p), (0, 0, 0), (0, 0, 1e-3), radius).item() == pytest.approx(expected, abs=1e-2)
    if np.linalg.norm(p) > 1:
        assert shapes.ellipsoid(_at(*p), (0, 0, 0), (radius, radius, radius)).item() == pytest.approx(expected, abs=1e-2)


@given(point, st.floats(2, 4))
@settings(max_examples=50)
def test_the_sign_of_a_superellipsoid_is_that_of_its_equation(p, exponent):
    radii = (20.0, 30.0, 10.0)
    level = sum(abs(v / r) ** exponent for v, r in zip(p, radii, strict=True))
    if abs(level - 1) > 1e-3:
        assert (shapes.ellipsoid(_at(*p), (0, 0, 0), radii, exponent).item() > 0) == (level > 1)


def test_box_by_hand():
    assert shapes.box(_at(5, 0, 0), (0, 0, 0), (2, 3, 4)).item() == pytest.approx(3)
    assert shapes.box(_at(5, 7, 0), (0, 0, 0), (2, 3, 4)).item() == pytest.approx(5)
    assert shapes.box(_at(1, 0, 0), (0, 0, 0), (2, 3, 4)).item() == pytest.approx(-1)


def test_arch_by_hand():
    distance, along = shapes.arch(*_at(3, 4, 0)[:2], [(0.0, 0.0), (3.0, 0.0), (3.0, 10.0)])
    assert (distance.item(), along.item()) == pytest.approx((0, 7))


@given(st.floats(-20, 20, width=32), st.floats(-20, 20, width=32), st.floats(0.5, 10))
def test_smooth_union_is_the_union_away_from_the_seam(a, b, width):
    first, second = (np.full((1, 1, 1), v, dtype=np.float32) for v in (a, b))
    union = shapes.smooth_union(first, second, width).item()
    assert min(a, b) - width / 4 - 1e-4 <= union <= min(a, b) + 1e-4
    assert shapes.smooth_intersection(first, second, width).item() >= max(a, b) - 1e-4
    if abs(a - b) >= width:
        assert union == pytest.approx(min(a, b), abs=1e-5)


def test_noise_has_unit_variance_and_its_wavelength():
    field = band_noise(np.random.default_rng(0), 20.0, (0, 0, 0), (200, 200, 200))
    assert field.values.std() == pytest.approx(1, abs=1e-5)
    spectrum = np.abs(np.fft.fftn(field.values)) ** 2
    frequencies = np.linalg.norm(np.meshgrid(*[np.fft.fftfreq(n, field.spacing) for n in field.values.shape], indexing="ij"), axis=0)
    power = [spectrum[(frequencies > f - 0.004) & (frequencies <= f + 0.004)].mean() for f in (0.025, 0.05, 0.1)]
    assert np.argmax(power) == 1


def test_sheet_distance_is_nearly_a_distance_near_the_sheets():
    x = np.broadcast_to(np.arange(80.0, dtype=np.float32)[:, None, None], (80, 4, 4))
    wave = SmoothField(np.sin(2 * np.pi * (x - 40) / 40), (0, 0, 0), 1.0)
    distance = sheet_distance(wave).values[36:45, 0, 0]
    true = np.arange(-4, 5)
    assert distance[4] == pytest.approx(0, abs=1e-5)
    assert (np.abs(distance) <= np.abs(true) + 1e-5).all()
    assert (np.abs(distance) >= 0.8 * np.abs(true) - 1e-5).all()
