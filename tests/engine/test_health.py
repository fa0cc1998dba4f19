import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from transmodal.engine.health import WINDOW, HealthWatch, ImageHealth, discriminator_health, judge, mean_rows

SOUND = {
    "discriminator_ct_accuracy_real": 0.8,
    "discriminator_ct_accuracy_synthetic": 0.7,
    "discriminator_ct_saturation": 0.1,
    "generator_mr2ct_diversity": 0.9,
    "generator_mr2ct_histogram_distance": 0.05,
    "generator_mr2ct_edges": 0.8,
    "generator_mr2ct_cycle": 0.03,
}


def test_accuracy_and_saturation_are_shares_of_the_scores():
    real, synthetic = torch.tensor([[1.0, 0.97], [0.6, 0.2]]), torch.tensor([[0.0, 0.4], [0.7, 0.9]])
    found = discriminator_health("d", "least_squares", real, synthetic)
    assert found == {"d_accuracy_real": 3 / 4, "d_accuracy_synthetic": 2 / 4, "d_saturation": (2 / 4 + 1 / 4) / 2}


def test_logits_are_judged_as_probabilities():
    found = discriminator_health("d", "cross_entropy", torch.tensor([5.0, -1.0]), torch.tensor([-5.0, -0.1]))
    assert found == {"d_accuracy_real": 1 / 2, "d_accuracy_synthetic": 1.0, "d_saturation": 1 / 2}


def test_a_critic_has_a_distance_only():
    assert discriminator_health("d", "wasserstein", torch.tensor([3.0, 5.0]), torch.tensor([-1.0, 0.0])) == {"d_distance": 4.5}


def test_copies_of_the_source_have_its_edges_and_all_of_the_diversity():
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = ImageHealth("g").measure(images, images, images, images)
    assert found["g_edges"] == pytest.approx(1, abs=1e-5)
    assert found["g_diversity"] == pytest.approx(1)
    assert found["g_histogram_distance"] == found["g_cycle"] == 0


def test_the_same_image_of_everything_has_no_diversity():
    health, numbers = ImageHealth("g"), torch.Generator().manual_seed(0)
    one = torch.rand(1, 1, 32, 32, generator=numbers)
    for _ in range(3):
        found = health.measure(
            *(torch.rand(1, 1, 32, 32, generator=numbers) for _ in range(1)), one, torch.rand(1, 1, 32, 32, generator=numbers)
        )
    assert found["g_diversity"] == 0


def test_edges_tell_whose_anatomy_it_is_whatever_the_contrast():
    """Cells around random points, as two modalities see them, and the cells of someone else."""
    numbers = np.random.default_rng(0)
    pixels = np.stack(np.indices((96, 96)), axis=-1).reshape(-1, 2)
    mine, others = (cKDTree(numbers.uniform(0, 96, (12, 2))).query(pixels)[1].reshape(96, 96) for _ in range(2))
    tables = [torch.as_tensor(numbers.uniform(-1, 1, 12), dtype=torch.float32) for _ in range(2)]
    source, same, strange = (
        table[torch.as_tensor(cells)][None, None] for table, cells in zip([*tables, tables[1]], [mine, mine, others], strict=True)
    )
    assert ImageHealth("g").measure(source, same, same)["g_edges"] > 0.7
    assert ImageHealth("g").measure(source, strange, strange)["g_edges"] < 0.4


def test_other_anatomy_has_other_edges():
    numbers = torch.Generator().manual_seed(0)
    source, other = (torch.rand(2, 1, 64, 64, generator=numbers) for _ in range(2))
    assert abs(ImageHealth("g").measure(source, other, other)["g_edges"]) < 0.1


def test_a_brighter_image_is_as_far_as_it_is_brighter():
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert ImageHealth("g").measure(images, images + 0.3, images)["g_histogram_distance"] == pytest.approx(0.3)


def test_a_constant_image_is_no_division_by_zero():
    flat = torch.zeros(1, 1, 32, 32)
    assert all(torch.isfinite(value) for value in ImageHealth("g").measure(flat, flat, flat).values())


def test_what_is_measured_goes_on_from_its_state():
    numbers = torch.Generator().manual_seed(0)
    first, second = (torch.rand(1, 1, 32, 32, generator=numbers) for _ in range(2))
    one, two = ImageHealth("g"), ImageHealth("g")
    one.measure(first, first, second)
    two.load_state(one.state())
    assert one.measure(second, second, first) == two.measure(second, second, first)
    two.load_state(ImageHealth("g").state())
    assert two.state() == {}


def test_a_sound_training_is_left_alone():
    assert judge(SOUND) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"discriminator_ct_accuracy_real": 1.0, "discriminator_ct_accuracy_synthetic": 1.0, "discriminator_ct_saturation": 0.97}, "won"),
        ({"generator_mr2ct_diversity": 0.05}, "collapsed"),
        ({"generator_mr2ct_edges": 0.05}, "drifts"),
    ],
)
def test_each_fault_is_told_by_its_name(change, kind):
    (finding,) = judge({**SOUND, **change})
    assert finding.kind.endswith(kind)
    assert finding.message.startswith(finding.kind)


def test_images_that_are_made_of_nothing_have_neither_edges_nor_drift():
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = ImageHealth("g").measure(None, images, images)
    assert found.keys() == {"g_diversity", "g_histogram_distance"}
    assert judge({name: float(value) for name, value in found.items()}) == []


def test_a_bad_cycle_is_no_drift():
    assert judge({**SOUND, "generator_mr2ct_edges": 0.05, "generator_mr2ct_cycle": 0.3}) == []


def test_a_fault_is_told_once_and_only_when_it_has_lasted():
    watch, bad = HealthWatch(), {**SOUND, "generator_mr2ct_diversity": 0.0}
    told = [watch.look(bad) for _ in range(3 * WINDOW)]
    assert [len(findings) for findings in told] == [0] * (WINDOW - 1) + [1] + [0] * (2 * WINDOW)


def test_a_short_fault_is_not_told():
    watch = HealthWatch()
    rows = [SOUND] * WINDOW + [{**SOUND, "generator_mr2ct_diversity": 0.0}] + [SOUND] * WINDOW
    assert not any(watch.look(row) for row in rows)


def test_other_metrics_are_no_matter():
    watch = HealthWatch()
    assert not any(watch.look({"loss": 1.0}) for _ in range(2 * WINDOW))


def test_means_are_over_the_rows_that_have_a_metric():
    assert mean_rows([{"a": 1.0}, {"a": 3.0, "b": 5.0}]) == {"a": 2.0, "b": 5.0}
