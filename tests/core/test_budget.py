import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.core.budget import Budget, CostBound, Ledger, require_known_price
from reason.core.errors import BudgetExceeded, UserError
from reason.core.messages import Usage
from reason.core.types import RoleUsage, RunUsage


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


AMOUNTS = ("tokens", "calls", "reward_calls", "usd")
"""What is reserved and charged; seconds pass by themselves."""


def spend(ledger, kind, amount, role="main"):
    """Charge an amount of one kind, and nothing of any other."""
    usage = {"tokens": Usage(completion_tokens=amount), "usd": Usage(cost_usd=amount)}.get(kind, Usage())
    return ledger.charge(role, "m", usage, **({kind: amount} if kind in ("calls", "reward_calls") else {}))


@pytest.mark.parametrize("field", ["tokens", "calls", "seconds", "usd"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_must_be_positive(field, value):
    with pytest.raises(ValidationError):
        Budget(**{field: value})


def test_no_pass_of_a_reward_model_may_be_a_limit_and_fewer_may_not():
    assert Budget(reward_calls=0).reward_calls == 0
    with pytest.raises(ValidationError):
        Budget(reward_calls=-1)


@pytest.mark.parametrize("field", ["seconds", "usd"])
def test_time_and_money_are_limited_by_fractions_and_never_by_infinity(field):
    assert getattr(Budget(**{field: 0.01}), field) == 0.01
    for value in (math.inf, math.nan):
        with pytest.raises(ValidationError):
            Budget(**{field: value})


@pytest.mark.parametrize("kind", AMOUNTS)
def test_each_kind_counts_what_is_spent_and_what_is_held_and_no_other_kind(kind):
    ledger = Ledger(Budget(tokens=20, calls=20, reward_calls=20, usd=20))
    spend(ledger, kind, 3)
    spend(ledger, kind, 4, role="judge")
    with ledger.reserve(CostBound(**{kind: 6})), ledger.reserve(CostBound(**{kind: 5})):
        assert {k: ledger.used(k) for k in AMOUNTS} == {k: 18 if k == kind else 0 for k in AMOUNTS}
        assert {k: ledger.remaining(k) for k in AMOUNTS} == {k: 2 if k == kind else 20 for k in AMOUNTS}
        with pytest.raises(BudgetExceeded) as refused, ledger.reserve(CostBound(**{kind: 2.5})):
            pytest.fail("the step was taken")
        assert (refused.value.kind, refused.value.used, refused.value.limit) == (kind, 18, 20)
        assert ledger.used(kind) == 18  # nothing was held of what was refused
    assert ledger.exhausted == kind
    assert ledger.used(kind) == 7
    with ledger.reserve(CostBound(**{kind: 13})):
        assert ledger.remaining(kind) == 0
    spend(ledger, kind, 30)
    assert ledger.remaining(kind) == 0  # spent by more than it was: never negative


def test_a_need_is_nothing_unless_it_is_said_and_stays_what_it_was():
    assert [getattr(CostBound(), kind) for kind in AMOUNTS] == [0, 0, 0, 0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        CostBound().tokens = 1


def test_what_is_charged_is_what_was_said_and_nothing_else():
    ledger = Ledger(Budget())
    assert ledger.charge("main", "m", Usage()) == RoleUsage(model="m", cost_usd=0.0)
    first = {"calls": 2, "reward_calls": 3, "replayed_calls": 5, "replayed_tokens": 7, "working_s": 11.0}
    second = {"calls": 20, "reward_calls": 30, "replayed_calls": 50, "replayed_tokens": 70, "working_s": 110.0}
    usage = Usage(prompt_tokens=13, cached_tokens=17, completion_tokens=19, cost_usd=0.5, waited_s=23.0)
    ledger.charge("main", "m", usage, **first)
    assert ledger.charge("main", "m", usage, **second) == RoleUsage(
        model="m",
        prompt_tokens=26,
        cached_tokens=34,
        completion_tokens=38,
        model_calls=22,
        reward_calls=33,
        replayed_calls=55,
        replayed_tokens=77,
        cost_usd=1.0,
        working_s=121.0,
        waited_s=46.0,
    )


def test_a_model_without_a_price_adds_nothing_to_the_dollars_used():
    ledger = Ledger(Budget(usd=2))
    ledger.charge("main", "a", Usage(cost_usd=0.5))
    ledger.charge("judge", "b", Usage(cost_usd=None))
    assert ledger.used("usd") == 0.5


def test_a_limit_that_was_not_set_is_told_as_nothing():
    assert Ledger(Budget()).exceeded("calls").limit == 0


def test_the_clock_stands_from_the_first_stop():
    clock = Clock()
    ledger = Ledger(Budget(), clock)
    clock.now += 3
    ledger.stop()
    clock.now += 4
    ledger.stop()
    assert (ledger.elapsed_s, ledger.usage().wall_seconds, ledger.used("seconds")) == (3, 3, 3)


def test_no_limit_leaves_everything():
    ledger = Ledger(Budget())
    assert ledger.remaining("tokens") == math.inf
    assert ledger.remaining_seconds() is None
    assert ledger.view().max_samples(8, 512) == 8


def test_a_step_that_could_exceed_is_refused_before_it_is_taken():
    ledger = Ledger(Budget(tokens=100))
    ledger.charge("main", "m", Usage(completion_tokens=60), calls=1)
    with pytest.raises(BudgetExceeded) as refused, ledger.reserve(CostBound(tokens=41)):
        pytest.fail("the step was taken")
    assert (refused.value.kind, refused.value.used, refused.value.limit) == ("tokens", 60, 100)
    assert ledger.exhausted == "tokens"
    with ledger.reserve(CostBound(tokens=40)):
        assert ledger.remaining("tokens") == 0
    assert ledger.remaining("tokens") == 40


def test_two_steps_at_once_cannot_both_have_the_last_tokens():
    ledger = Ledger(Budget(tokens=100))
    with ledger.reserve(CostBound(tokens=60)), pytest.raises(BudgetExceeded), ledger.reserve(CostBound(tokens=60)):
        pytest.fail("both were let in")


def test_a_failed_step_gives_its_reservation_back():
    ledger = Ledger(Budget(tokens=100, calls=1))
    with pytest.raises(ZeroDivisionError), ledger.reserve(CostBound(tokens=100, calls=1)):
        raise ZeroDivisionError
    assert ledger.remaining("tokens") == 100
    assert ledger.remaining("calls") == 1


def test_time_is_a_limit_too():
    clock = Clock()
    ledger = Ledger(Budget(seconds=5), clock)
    clock.now += 3
    assert ledger.remaining_seconds() == 2
    clock.now += 3
    assert ledger.remaining_seconds() == 0
    with pytest.raises(BudgetExceeded, match="5 seconds"), ledger.reserve(CostBound()):
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
    require_known_price(Budget(usd=1), "m", True)
    require_known_price(Budget(tokens=1), "m", False)
    with pytest.raises(UserError, match="price of model 'm' is unknown"):
        require_known_price(Budget(usd=1), "m", False)


def test_what_is_restored_counts_but_is_not_paid_again():
    clock = Clock()
    first = Ledger(Budget(tokens=10), clock)
    first.charge("main", "a", Usage(completion_tokens=7), calls=2, working_s=3)
    clock.now += 4
    again = Ledger(Budget(tokens=10), clock)
    again.restore(RunUsage.model_validate_json(first.usage().model_dump_json()))
    assert again.remaining("tokens") == 3
    assert again.usage().replayed_tokens == 7
    assert again.usage().replayed_calls == 2
    assert again.usage().by_role["main:a"].working_s == 0
    assert again.elapsed_s == 4


@given(
    limit=st.integers(1, 500),
    steps=st.lists(st.tuples(st.integers(1, 80), st.floats(0, 1)), max_size=40),
)
def test_spending_never_exceeds_the_limit(limit, steps):
    ledger = Ledger(Budget(tokens=limit))
    for most, share in steps:
        try:
            with ledger.reserve(CostBound(tokens=most)):
                ledger.charge("main", "m", Usage(completion_tokens=int(most * share)))
        except BudgetExceeded:
            assert most > ledger.remaining("tokens")
        assert 0 <= ledger.used("tokens") <= limit
        assert ledger.remaining("tokens") == limit - ledger.used("tokens")


@given(limit=st.integers(1, 5000), wanted=st.integers(1, 64), each=st.integers(1, 600))
def test_affordable_samples_fit_unless_it_is_a_single_one(limit, wanted, each):
    n = Ledger(Budget(tokens=limit)).view().max_samples(wanted, each)
    assert 1 <= n <= wanted
    assert n == 1 or n * each <= limit
    assert n == wanted or (n + 1) * each > limit
