from __future__ import annotations

import numpy as np
import pytest
from reason.core.errors import CapabilityMissing, UserError
from reason.core.messages import LogitsProcessorSpec
from reason.serving.logits_processors import ProcessorState, make_logits_processors
from reason.serving.logits_processors.builtin import forbid_tokens, only_tokens

STATE = ProcessorState([1], [], 0)


def row() -> np.ndarray:
    return np.arange(5, dtype=np.float32)


def test_forbid_and_only_change_a_copy():
    logits = row()
    forbidden = forbid_tokens([4, 0])(logits, STATE)
    only = only_tokens([1, 3])(logits, STATE)
    assert np.isneginf(forbidden).tolist() == [True, False, False, False, True]
    assert np.isneginf(only).tolist() == [True, False, True, False, True]
    assert only[3] == 3
    assert np.array_equal(logits, row())


def test_unknown_processor_lists_the_known_ones():
    with pytest.raises(
        CapabilityMissing, match=r"logits processor no_such_hook.*entropy_probe, forbid_tokens, only_tokens"
    ):
        make_logits_processors([LogitsProcessorSpec(name="no_such_hook")], "local/x")


@pytest.mark.parametrize("args", [{}, {"ids": "12"}, {"ids": [-1]}, {"ids": [1], "more": 2}, {"ids": []}])
def test_bad_arguments_are_user_errors(args):
    with pytest.raises(UserError, match="only_tokens"):
        make_logits_processors([LogitsProcessorSpec(name="only_tokens", args=args)], "local/x")


def test_tokens_outside_the_vocabulary():
    with pytest.raises(UserError, match="token 9"):
        forbid_tokens([9])(row(), STATE)
