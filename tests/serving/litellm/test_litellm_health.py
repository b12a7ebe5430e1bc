"""Health and choice of endpoints, on a clock of the tests."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import RateLimited
from reason.core.messages import Prompt
from reason.serving.litellm.endpoints import (
    COOLDOWN_S,
    MAX_CONSECUTIVE_FAILURES,
    MAX_COOLDOWN_S,
    SLACK,
    Endpoint,
    EndpointPool,
)
from reason.serving.litellm.errors import FailedAttempt
from reason.serving.litellm.limiter import ConcurrencyLimiter
from reason.serving.litellm.prompt_cache import prompt_start_key

FAULT = FailedAttempt(RuntimeError("down"), retryable=True)


def endpoint(number: int = 0, most: int = 64) -> Endpoint:
    return Endpoint(f"http://{number}/v1", ConcurrencyLimiter(most))


def pool(number: int, most: int = 64) -> EndpointPool:
    return EndpointPool([endpoint(i, most) for i in range(number)], clock=lambda: 0.0)


def down(one: Endpoint, now: float = 0.0) -> Endpoint:
    for _ in range(MAX_CONSECUTIVE_FAILURES):
        one.failed(now, FAULT)
    return one


def test_single_failure_does_not_trip():
    one = endpoint()
    for _ in range(2):
        for _ in range(MAX_CONSECUTIVE_FAILURES - 1):
            one.failed(0, FAULT)
        assert one.is_usable(0)
        one.succeeded()
    assert not down(one).is_usable(MAX_COOLDOWN_S), "not before a check has succeeded"


def test_failed_checks_double_the_pause():
    one = down(endpoint())
    now, pauses = 0.0, []
    for _ in range(8):
        pauses.append(one.paused_until - now)
        assert not one.needs_check(one.paused_until - 0.001)
        now = one.paused_until
        assert one.needs_check(now)
        one.take_down(now)
    assert pauses == [min(MAX_COOLDOWN_S, COOLDOWN_S * 2**i) for i in range(8)]
    one.succeeded()
    assert down(one, now).paused_until == now + COOLDOWN_S, "it starts again"


def test_requests_in_flight_at_the_trip_do_not_count():
    one = down(endpoint())
    for _ in range(100):
        one.failed(0.5, FAULT)
    assert one.paused_until == COOLDOWN_S


def test_retry_after_sets_the_pause():
    one = endpoint()
    one.failed(10, FailedAttempt(RateLimited("slow down", retry_after_s=7), retryable=True))
    one.failed(11, FailedAttempt(RateLimited("slow down", retry_after_s=2), retryable=True))
    assert not one.is_usable(16.9)
    assert one.is_usable(17)


def test_one_rejected_key_trips():
    one = endpoint()
    one.failed(0, FailedAttempt(RuntimeError("wrong key"), fatal=True))
    assert one.is_down


def test_full_endpoint_is_skipped():
    chosen = pool(2, most=2)
    chosen.all[1].limiter.tokens = 1000
    places = []
    for _ in range(4):
        one = chosen.choose(None, 10)
        one.limiter.busy += 1
        one.limiter.tokens += 10
        places.append(one.address)
    assert places == ["http://0/v1", "http://0/v1", "http://1/v1", "http://1/v1"]


def test_what_is_down_or_tried_is_not_chosen():
    chosen = pool(3)
    down(chosen.all[0])
    chosen.all[1].is_down, chosen.all[1].excluded = True, "another model"
    assert chosen.choose(None, 10) is chosen.all[2]
    assert chosen.choose("key", 10, {chosen.all[2]}) is None
    assert "http://0/v1: down; http://1/v1: another model" in chosen.account()


def test_few_trees_are_spread_and_stay_where_they_are():
    chosen = pool(3)
    places = {}
    for key in "abcdefghi":
        places[key] = chosen.choose(key, 100)
        places[key].limiter.tokens += 100
    assert set(Counter(e.address for e in places.values()).values()) == {3}
    for one in chosen.all:
        one.limiter.tokens = 0
    assert all(chosen.choose(key, 100) is one for key, one in places.items())
    places["a"].is_down = True
    after = chosen.choose("a", 100)
    assert after is not places["a"]
    places["a"].is_down = False
    assert chosen.choose("a", 100) is after


def test_outstanding_tokens_decide_and_not_requests():
    chosen = pool(2)
    with chosen.all[0].limiter.outstanding(100, 4000) as long:
        for _ in range(40):  # forty short requests are less than a long one
            one = chosen.choose(None, 100)
            assert one is chosen.all[1]
            one.limiter.busy += 1
            one.limiter.tokens += 100
        long.received(1)  # with the first token, the prompt has been computed
        assert chosen.all[0].limiter.tokens == 3999
        assert chosen.choose(None, 100) is chosen.all[0]
        long.received(3990)
        assert chosen.all[0].limiter.tokens == 9
        long.received(50)
        assert chosen.all[0].limiter.tokens == 0
    assert chosen.all[0].limiter.tokens == 0


def test_outstanding_tokens_end_with_their_request():
    limiter = ConcurrencyLimiter(4)
    with pytest.raises(RuntimeError), limiter.outstanding(100, 400) as outstanding:
        outstanding.received(3)
        raise RuntimeError
    assert limiter.tokens == 0


def test_affinity_yields_to_load():
    chosen = pool(2)
    own = chosen.choose("key", 10)
    own.limiter.tokens = SLACK * 10
    assert chosen.choose("key", 10) is own
    own.limiter.tokens = SLACK * 10 + 1
    assert chosen.choose("key", 10) is not own
    assert chosen.choose("key", 11) is own, "the more a request has to compute, the more it may wait for"
    own.limiter.busy = own.limiter.max_in_flight
    assert chosen.choose("key", 11) is not own


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=200), st.integers(2, 4))
def test_a_single_prompt_unbalances_endpoints_by_no_more_than_the_slack(sizes, number):
    chosen = pool(number, most=10_000)
    for tokens in sizes:
        chosen.choose("key", tokens).limiter.tokens += tokens
    loads = [one.limiter.tokens for one in chosen.all]
    assert max(loads) - min(loads) <= (SLACK + 1) * max(sizes)


def test_prompts_of_one_question_share_a_key():
    one = Prompt.user("why?", system="be brief")
    assert prompt_start_key(one) == prompt_start_key(one.with_prefix("Because"))
    assert prompt_start_key(one) != prompt_start_key(Prompt.user("how?", system="be brief"))
    assert prompt_start_key(Prompt(text="a" * 5000)) == prompt_start_key(Prompt(text="a" * 6000))


def test_questions_under_a_long_system_prompt_have_keys_of_their_own():
    system = "Rules. " * 1000
    one, other = Prompt.user("why?", system=system), Prompt.user("how?", system=system)
    assert prompt_start_key(one) == prompt_start_key(one.with_prefix("Because"))
    assert prompt_start_key(one) != prompt_start_key(other)
