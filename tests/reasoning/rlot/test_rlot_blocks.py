"""The five blocks: numbers, allowed successors, and substitutes for disallowed blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.reasoning.rlot.blocks import Block, best_legal, effective_block, legal_blocks


@pytest.mark.parametrize(
    ("ran", "expected"),
    [
        (0, (True, True, True, False, True)),
        (1, (True, True, True, True, True)),
        (4, (True, True, True, True, True)),
        (5, (False, False, False, False, True)),
        (6, (False, False, False, False, True)),
    ],
)
def test_legal_blocks_with_mask(ran, expected):
    assert legal_blocks(ran, 5, "none") == expected


@given(st.integers(0, 20), st.integers(1, 10))
def test_all_blocks_are_legal_with_substitute(ran, most):
    assert legal_blocks(ran, most, "reference") == (True,) * 5


@given(st.integers(0, 4), st.integers(0, 20), st.integers(1, 10))
def test_substitution_yields_legal_blocks(action, ran, most):
    may = legal_blocks(ran, most, "none")
    block = effective_block(action, ran, most)
    assert may[block]
    if may[action]:
        assert block == action
    elif ran >= most:
        assert block is Block.TERMINATE
    else:
        assert (action, block) == (Block.REFINE, Block.REASON)


@given(
    st.lists(st.integers(-3, 3), min_size=5, max_size=5), st.lists(st.booleans(), min_size=5, max_size=5).filter(any)
)
def test_best_legal_action_breaks_ties_by_number(values, may):
    chosen = best_legal(values, may)
    highest = max(value for value, is_legal in zip(values, may, strict=True) if is_legal)
    assert chosen == next(i for i in range(5) if may[i] and values[i] == highest)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: legal_blocks(-1, 5, "none"), "-1"),
        (lambda: legal_blocks(0, 0, "reference"), "max_blocks 0"),
        (lambda: effective_block(5, 0, 5), "no block 5"),
        (lambda: best_legal([1, 2, 3, 4, 5], [False] * 5), "no block is legal"),
        (lambda: best_legal([1, 2], [True] * 5), "got 2 and"),
    ],
)
def test_invalid_arguments_raise(call, named):
    assert callable(call)
    with pytest.raises(UserError, match=named) as refused:
        call()
    assert refused.value.hint
