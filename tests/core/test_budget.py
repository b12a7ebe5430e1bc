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

AMOUNTS = ("tokens", "thinking_tokens", "prompt_tokens", "calls", "reward_calls", "usd")
"""What is reserved and charged; seconds pass by themselves."""


def spend(ledger, kind, amount, role="main"):
    """Charge an amount of one kind, and nothing of any other."""
    usages = {
        "tokens": Usage(completion_tokens=amount),
        "thinking_tokens": Usage(thinking_tokens=amount),
        "prompt_tokens": Usage(prompt_tokens=amount),
        "usd": Usage(cost_usd=amount),
    }
    usage = usages.get(kind, Usage())
    return ledger.charge(role, "m", usage, **({kind: amount} if kind in ("calls", "reward_calls") else {}))


def test_lost_tokens_of_an_interrupted_run_are_carried_and_count_in_no_limit():
    interrupted = Ledger(Budget(tokens=10))
    interrupted.charge("main", "m", Usage(completion_tokens=4))
    interrupted.charge("main", "m", Usage(completion_tokens=3), lost_tokens=3)
    assert interrupted.usage().lost_tokens == 3
    resumed = Ledger(Budget(tokens=10))
    resumed.carry_lost(interrupted.usage())
    resumed.carry_lost(interrupted.usage())
    assert (resumed.usage().lost_tokens, resumed.usage().completion_tokens) == (3, 0)
    assert resumed.remaining("tokens") == 10
    checkpoint = Ledger(Budget(tokens=10))
    checkpoint.charge("main", "m", Usage(completion_tokens=4))
    resumed.restore(checkpoint.usage())
    resumed.charge("main", "m", Usage(completion_tokens=2), lost_tokens=2)
    assert (resumed.usage().lost_tokens, resumed.usage().completion_tokens) == (5, 6)
    resumed.carry_lost(interrupted.usage())
    assert resumed.usage().lost_tokens == 5  # the larger of both


def test_limits_are_positive_and_finite_and_only_reward_calls_may_be_none():
    positive = ("tokens", "thinking_tokens", "prompt_tokens", "calls", "seconds", "usd")
    refused = [(field, value) for field in positive for value in (0, -1)]
    refused += [(field, value) for field in ("seconds", "usd") for value in (math.inf, math.nan)]
    for field, value in (*refused, ("reward_calls", -1)):
        with pytest.raises(ValidationError):
            Budget(**{field: value})
    for field, value in (("reward_calls", 0), ("seconds", 0.01), ("usd", 0.01)):
        assert getattr(Budget(**{field: value}), field) == value
    for field in ("thinking_tokens", "prompt_tokens"):
        assert field not in Budget().model_dump()
        assert Budget(**{field: 1}).model_dump()[field] == 1


@pytest.mark.parametrize("kind", AMOUNTS)
def test_each_limit_counts_its_own_spent_and_reserved_amounts(kind):
    ledger = Ledger(Budget(**dict.fromkeys(AMOUNTS, 20)))
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


def test_a_cost_bound_defaults_to_zero_and_is_immutable():
    assert [getattr(CostBound(), kind) for kind in AMOUNTS] == [0] * 6
    with pytest.raises(dataclasses.FrozenInstanceError):
        CostBound().tokens = 1


def test_charges_add_up_field_by_field():
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


def test_dollars_of_many_roles_add_up_exactly():
    ledger = Ledger(Budget(usd=1))
    for i in range(10):
        ledger.charge(f"juror-{i}", "m", Usage(cost_usd=0.1))
    assert (ledger.used("usd"), ledger.usage().cost_usd, ledger.remaining("usd")) == (1, 1, 0)


def test_an_unset_limit_is_reported_as_zero():
    assert Ledger(Budget()).exceeded("calls").limit == 0


async def test_the_clock_stops_at_the_first_stop(clock):
    ledger = Ledger(Budget())
    await clock.advance(3)
    ledger.stop()
    await clock.advance(4)
    ledger.stop()
    assert (ledger.elapsed_s, ledger.usage().wall_seconds, ledger.used("seconds")) == (3, 3, 3)


def test_without_limits_everything_remains():
    ledger = Ledger(Budget())
    assert ledger.remaining("tokens") == math.inf
    assert ledger.remaining_seconds() is None


def test_a_failed_step_releases_its_reservation():
    ledger = Ledger(Budget(tokens=100, calls=1))
    with pytest.raises(ZeroDivisionError), ledger.reserve(CostBound(tokens=100, calls=1)):
        raise ZeroDivisionError
    assert ledger.remaining("tokens") == 100
    assert ledger.remaining("calls") == 1


async def test_the_time_limit_refuses_steps(clock):
    ledger = Ledger(Budget(seconds=5))
    await clock.advance(3)
    assert ledger.remaining_seconds() == 2
    await clock.advance(3)
    assert ledger.remaining_seconds() == 0
    with pytest.raises(BudgetExceeded, match="5 seconds"), ledger.reserve(CostBound()):
        pytest.fail("went on")


def test_usage_is_summed_by_role():
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


async def test_restored_usage_counts_as_replayed(clock):
    first = Ledger(Budget(tokens=10))
    first.charge("main", "a", Usage(completion_tokens=7), calls=2, working_s=3)
    await clock.advance(4)
    again = Ledger(Budget(tokens=10))
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


def test_a_view_keeps_its_reserve():
    ledger = Ledger(Budget(tokens=100, calls=5))
    view = ledger.view(reserve=CostBound(tokens=30, calls=1))
    assert (view.remaining("tokens"), view.remaining("calls"), view.remaining("usd")) == (70, 4, math.inf)
    assert ledger.remaining("tokens") == 100
    spend(ledger, "tokens", 80)
    assert view.remaining("tokens") == 0
    assert view.spent_tokens == 80


def test_a_view_applies_its_own_token_limit_from_where_it_was_made():
    ledger = Ledger(Budget())
    spend(ledger, "tokens", 500)
    view = ledger.view(max_tokens=40)
    assert view.remaining("tokens") == 40
    assert view.tokens_per_sample(4) == 10
    spend(ledger, "tokens", 30)
    assert (view.spent_tokens, view.remaining("tokens")) == (30, 10)


def test_a_step_that_would_use_the_reserve_is_refused():
    view = Ledger(Budget(tokens=100, calls=5)).view(reserve=CostBound(tokens=30))
    assert view.shortfall(CostBound(tokens=70, calls=5)) is None
    assert view.shortfall(CostBound(tokens=71)) == "tokens"
    view.require(CostBound(tokens=70))
    with pytest.raises(BudgetExceeded) as refused:
        view.require(CostBound(tokens=71))
    assert refused.value.kind == "tokens"


def test_only_a_time_limit_leaves_a_view_unlimited():
    assert Ledger(Budget()).view().is_unlimited
    assert Ledger(Budget(seconds=5)).view().is_unlimited
    assert not Ledger(Budget(reward_calls=0)).view().is_unlimited


async def test_a_tenth_of_the_time_or_the_slowest_call_is_reserved_for_the_answer(clock):
    view = Ledger(Budget(seconds=20)).view()
    assert (view.reserved_seconds, view.remaining("seconds")) == (2, 18)
    view.observe_call(5)
    view.observe_call(3)
    assert (view.reserved_seconds, view.remaining("seconds")) == (5, 15)
    assert Ledger(Budget()).view().reserved_seconds == 0
    await clock.advance(15)
    with pytest.raises(BudgetExceeded, match="20 seconds"), view.cutoff():
        pytest.fail("no time was left")


async def test_the_cutoff_is_set_when_only_the_reserved_time_is_left(clock):
    with Ledger(Budget(seconds=20)).view().cutoff() as enough:
        await clock.advance(17.9)
        assert not enough.is_set()
        await clock.advance(0.1)
        assert enough.is_set()
    with Ledger(Budget()).view().cutoff() as enough:
        assert enough is None


def test_a_reservation_released_with_its_charge_is_not_counted_twice():
    ledger = Ledger(Budget(calls=2))
    with ledger.reserve(CostBound(calls=1)) as release:
        ledger.charge("main", "m", Usage(), calls=1)
        assert ledger.remaining("calls") == 0
        release()
        assert ledger.remaining("calls") == 1
        release()
        assert ledger.remaining("calls") == 1
    assert ledger.remaining("calls") == 1


def test_a_closed_ledger_refuses_every_step_but_the_concluding_one():
    ledger = Ledger(Budget())
    ledger.is_closed = True
    with pytest.raises(BudgetExceeded, match="the user wants the answer now") as refused, ledger.reserve(CostBound()):
        pass
    assert (refused.value.kind, refused.value.used, ledger.exhausted) == ("user", 0, "user")
    with ledger.reserve(CostBound(tokens=3), even_closed=True):
        assert ledger.used("tokens") == 3
    with pytest.raises(BudgetExceeded), Ledger(Budget(tokens=2)).reserve(CostBound(tokens=3), even_closed=True):
        pass


def test_thinking_tokens_are_counted_by_role_and_in_all():
    ledger = Ledger(Budget(thinking_tokens=10))
    ledger.charge("main", "m", Usage(completion_tokens=9, thinking_tokens=6))
    ledger.charge("judge", "m", Usage(completion_tokens=3, thinking_tokens=1))
    usage = ledger.usage()
    assert (usage.completion_tokens, usage.thinking_tokens) == (12, 7)
    assert {key: row.thinking_tokens for key, row in usage.by_role.items()} == {"main:m": 6, "judge:m": 1}
    assert ledger.remaining("thinking_tokens") == 3
    with pytest.raises(BudgetExceeded, match="10 thinking_tokens is spent"):
        ledger.view().require(CostBound(tokens=4, thinking_tokens=4))
    restored = Ledger(Budget(thinking_tokens=10))
    restored.restore(usage)
    assert restored.remaining("thinking_tokens") == 3


async def test_turns_and_tool_calls_are_counted_and_restored():
    ledger = Ledger(Budget(turns=2, tool_calls=0))
    ledger.count("turns")
    assert (ledger.remaining("turns"), ledger.remaining("tool_calls")) == (1, 0)
    again = Ledger(Budget(turns=2))
    again.restore(ledger.usage())
    assert (again.usage().turns, again.remaining("turns"), again.remaining("tool_calls")) == (1, 1, math.inf)
    assert ledger.view().remaining("turns") == 1


async def test_the_clock_does_not_count_a_pause(clock):
    ledger = Ledger(Budget(seconds=5))
    with ledger.paused():
        await clock.advance(100)
    await clock.advance(2)
    assert ledger.remaining_seconds() == 3
