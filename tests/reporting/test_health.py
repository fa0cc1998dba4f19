import pytest

from transmodal.engine.health import WINDOW
from transmodal.reporting.health import final_losses, health_words, is_adversarial, numbers

ROW = {
    "discriminator_ct": 0.5,
    "discriminator_mr": 0.25,
    "discriminator_ct_accuracy_real": 0.8,
    "discriminator_ct_accuracy_synthetic": 0.7,
    "discriminator_ct_saturation": 0.1,
    "generator_mr2ct_diversity": 0.9,
    "generator_mr2ct_histogram_distance": 0.05,
    "generator_mr2ct_edges": 0.7,
    "cycle_mr": 0.001,
    "cycle_ct": 0.002,
    "adversarial_mr": 0.9,
    "adversarial_ct": 0.8,
    "generators": 2.0,
    "gradient_norm_generators": 3.0,
}


def rows(count, **change):
    return [(10 * (k + 1), {**ROW, **change}) for k in range(count)]


def test_only_training_rows_are_judged():
    log = [{"step": "10", "split": "train", "loss": "0.5"}, {"step": "10", "split": "validation", "loss": "9"}]
    assert numbers(log) == [(10, {"loss": 0.5})]
    assert not is_adversarial(numbers(log))
    assert is_adversarial(rows(1))


def test_a_sound_training_is_called_sound_with_its_numbers():
    sentences = health_words(rows(WINDOW))
    assert sentences[0].startswith("No discriminator has won")
    assert "80% of real and 70% of synthetic" in sentences[1]
    assert "by 90% of what real ones do" in sentences[2]


def test_images_that_are_made_of_nothing_have_no_edges_to_tell_of():
    without = {name: value for name, value in ROW.items() if not name.endswith(("_edges", "_cycle"))}
    sentences = health_words([(10 * (k + 1), without) for k in range(WINDOW)])
    assert sentences[2].endswith("of network units.")


def test_a_fault_is_told_with_its_step():
    sentences = health_words([*rows(WINDOW), *rows(2 * WINDOW, generator_mr2ct_diversity=0.0)])
    assert sentences[0].startswith("From step ")
    assert "generator_mr2ct has collapsed" in sentences[0]
    assert not any(sentence.startswith("No discriminator has won") for sentence in sentences)


def test_a_short_log_is_not_judged():
    assert health_words(rows(2)) == [f"The log has 2 rows; {WINDOW} are needed to judge the health of the training."]


@pytest.mark.parametrize(("source", "target"), [("mr", "ct"), ("ct", "mr")])
def test_the_losses_have_the_names_of_the_paper(source, target):
    table = final_losses(rows(3), "run", source)
    named = {cells[1].text: cells[0].sort for _, cells in table.rows if cells[1].text}
    expected = {
        "ABA_reconstruction_losses": ROW[f"cycle_{source}"],
        "BAB_reconstruction_losses": ROW[f"cycle_{target}"],
        "DA_losses": ROW[f"discriminator_{source}"],
        "DB_losses": ROW[f"discriminator_{target}"],
        "D_losses": 0.75,
        "G_AB_adversarial_losses": ROW[f"adversarial_{target}"],
        "G_BA_adversarial_losses": ROW[f"adversarial_{source}"],
        "G_losses": 2.0,
        "reconstruction_losses": 0.003,
    }
    assert named == pytest.approx(expected)


def test_other_methods_have_their_own_names_only():
    table = final_losses(rows(3), "run", None)
    assert [name for name, _ in table.rows] == [
        "discriminator_ct",
        "discriminator_mr",
        "cycle_mr",
        "cycle_ct",
        "adversarial_mr",
        "adversarial_ct",
        "generators",
    ]
