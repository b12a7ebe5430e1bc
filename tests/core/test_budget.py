import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.core.answer import RunUsage
from reason.core.budget import Budget, Ledger, Need, refuse_unpriced
from reason.core.errors import LimitExceeded, UserError
from reason.core.messages import Usage


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("field", ["tokens", "calls", "seconds", "usd"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_must_be_positive(field, value):
    with pytest.raises(ValidationError):
        Budget(**{field: value})


def test_no_limit_leaves_everything():
    ledger = Ledger(Budget())
    assert ledger.left("tokens") == math.inf
    assert ledger.seconds_left() is None
    assert ledger.affordable_samples(8, 512) == 8


def test_a_step_that_could_exceed_is_refused_before_it_is_taken():
    ledger = Ledger(Budget(tokens=100))
    ledger.charge("main", "m", Usage(completion_tokens=60), calls=1)
    with pytest.raises(LimitExceeded) as refused, ledger.reserve(Need(tokens=41)):
        pytest.fail("the step was taken")
    assert (refused.value.kind, refused.value.used, refused.value.limit) == ("tokens", 60, 100)
    assert ledger.exhausted == "tokens"
    with ledger.reserve(Need(tokens=40)):
        assert ledger.left("tokens") == 0
    assert ledger.left("tokens") == 40


def test_two_steps_at_once_cannot_both_have_the_last_tokens():
    ledger = Ledger(Budget(tokens=100))
    with ledger.reserve(Need(tokens=60)), pytest.raises(LimitExceeded), ledger.reserve(Need(tokens=60)):
        pytest.fail("both were let in")


def test_a_failed_step_gives_its_reservation_back():
    ledger = Ledger(Budget(tokens=100, calls=1))
    with pytest.raises(ZeroDivisionError), ledger.reserve(Need(tokens=100, calls=1)):
        raise ZeroDivisionError
    assert ledger.left("tokens") == 100
    assert ledger.left("calls") == 1


def test_time_is_a_limit_too():
    clock = Clock()
    ledger = Ledger(Budget(seconds=5), clock)
    clock.now += 3
    assert ledger.seconds_left() == 2
    clock.now += 3
    assert ledger.seconds_left() == 0
    with pytest.raises(LimitExceeded, match="5 seconds"), ledger.reserve(Need()):
        pytest.fail("went on")


def test_the_ledger_adds_up_by_role():
    ledger = Ledger(Budget())
    ledger.charge("main", "a", Usage(prompt_tokens=10, completion_tokens=5, cost_usd=0.5), calls=1, working_s=2)
    ledger.charge("judge", "b", Usage(prompt_tokens=1, completion_tokens=2, waited_s=3), calls=2, reward_calls=4)
    ledger.charge("main", "a", Usage(prompt_tokens=10, cached_tokens=9, completion_tokens=5, cost_usd=0.25), calls=1)
    usage = ledger.usage()
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (21, 9, 12)
    assert (usage.model_calls, usage.reward_calls, usage.cost_usd) == (4, 4, 0.75)
    assert usage.by_role["main:a"].completion_tokens == 10
    assert usage.by_role["judge:b"].waited_s == 3


def test_one_unknown_price_makes_the_total_unknown():
    ledger = Ledger(Budget())
    ledger.charge("main", "a", Usage(cost_usd=0.5))
    ledger.charge("judge", "b", Usage(cost_usd=None))
    assert ledger.usage().cost_usd is None
    assert ledger.usage().by_role["main:a"].cost_usd == 0.5


def test_a_money_limit_on_an_unpriced_model_is_refused():
    refuse_unpriced(Budget(usd=1), "m", True)
    refuse_unpriced(Budget(tokens=1), "m", False)
    with pytest.raises(UserError, match="price of model 'm' is unknown"):
        refuse_unpriced(Budget(usd=1), "m", False)


def test_what_is_restored_counts_but_is_not_paid_again():
    clock = Clock()
    first = Ledger(Budget(tokens=10), clock)
    first.charge("main", "a", Usage(completion_tokens=7), calls=2)
    clock.now += 4
    again = Ledger(Budget(tokens=10), clock)
    again.restore(RunUsage.model_validate_json(first.usage().model_dump_json()))
    assert again.left("tokens") == 3
    assert again.usage().replayed_tokens == 7
    assert again.usage().replayed_calls == 2
    assert again.elapsed_s == 4


@given(
    limit=st.integers(1, 500),
    steps=st.lists(st.tuples(st.integers(1, 80), st.floats(0, 1)), max_size=40),
)
def test_spending_never_exceeds_the_limit(limit, steps):
    ledger = Ledger(Budget(tokens=limit))
    for most, share in steps:
        try:
            with ledger.reserve(Need(tokens=most)):
                ledger.charge("main", "m", Usage(completion_tokens=int(most * share)))
        except LimitExceeded:
            assert most > ledger.left("tokens")
        assert 0 <= ledger.used("tokens") <= limit
        assert ledger.left("tokens") == limit - ledger.used("tokens")


@given(limit=st.integers(1, 5000), wanted=st.integers(1, 64), each=st.integers(1, 600))
def test_affordable_samples_fit_unless_it_is_a_single_one(limit, wanted, each):
    n = Ledger(Budget(tokens=limit)).affordable_samples(wanted, each)
    assert 1 <= n <= wanted
    assert n == 1 or n * each <= limit
    assert n == wanted or (n + 1) * each > limit
