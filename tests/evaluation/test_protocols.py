import numpy as np
import pytest

from small_cases import SHAPE, noisy_case
from transmodal.core.errors import ConfigError
from transmodal.evaluation.protocol import score
from transmodal.evaluation.protocols import PROTOCOLS, find_protocol


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_states_what_its_numbers_hold_for(name):
    note = PROTOCOLS[name].note
    scores = score(noisy_case(note.modality), PROTOCOLS[name])
    assert scores.protocol == note.name == name
    assert scores.mask and scores.clip
    assert list(scores.values) == [metric.name for metric in note.metrics]
    assert scores.reasons.keys() == {"dice_bone_ceiling"} & scores.values.keys()  # which needs to be told the truth


@pytest.mark.parametrize("name", PROTOCOLS)
def test_an_empty_mask_gives_reasons_and_no_values(name):
    scores = score(noisy_case(PROTOCOLS[name].note.modality, mask=np.zeros(SHAPE, bool)), PROTOCOLS[name])
    assert set(scores.values.values()) == {None}
    assert scores.reasons.keys() == scores.values.keys()
    assert all(scores.reasons.values())


def test_a_name_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(ConfigError, match=r"synthrad2024.*synthrad2023"):
        find_protocol("synthrad2024")
