"""Health and choice of endpoints, on a clock of the tests."""

from __future__ import annotations

from collections import Counter

import pytest
from reason.core.errors import RateLimited, UserError
from reason.core.messages import Prompt
from reason.serving.litellm.errors import FailedAttempt
from reason.serving.litellm.limiter import ConcurrencyLimiter
from reason.serving.litellm.prompt_cache import prompt_start_key
from reason.serving.servers.endpoints import (
    COOLDOWN_S,
    MAX_CONSECUTIVE_FAILURES,
    MAX_COOLDOWN_S,
    SLACK,
    Endpoint,
    EndpointPool,
)

FAULT = FailedAttempt(RuntimeError("down"), retryable=True)


def endpoint(number: int = 0) -> Endpoint:
    return Endpoint(f"http://{number}/v1", ConcurrencyLimiter(64))


def pool(number: int) -> EndpointPool:
    return EndpointPool([endpoint(i) for i in range(number)])


def limited(seconds: float) -> FailedAttempt:
    return FailedAttempt(RateLimited("slow down", retry_after_s=seconds), retryable=True)


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
    one.failed(10, limited(7))
    one.failed(11, limited(2))
    assert (one.is_usable(16.9), one.is_usable(17)) == (False, True)


def test_one_rejected_key_trips():
    one = endpoint()
    one.failed(0, FailedAttempt(RuntimeError("wrong key"), fatal=True))
    assert one.is_down


def test_full_endpoint_is_skipped():
    chosen = pool(2)
    for one, busy, limit in zip(chosen.all, (2, 5), (2, 9), strict=True):
        one.limiter.busy, one.limiter.max_in_flight = busy, limit
    assert chosen.choose(None) is chosen.all[1]


def test_what_is_down_or_tried_is_not_chosen():
    chosen = pool(3)
    down(chosen.all[0])
    chosen.all[1].is_down, chosen.all[1].last_error = True, UserError("another model")
    assert chosen.choose(None) is chosen.all[2]
    assert chosen.choose("key", {chosen.all[2]}) is None
    assert "http://0/v1: down; http://1/v1: another model" in chosen.describe_errors()


def test_few_trees_are_spread_and_stay_where_they_are():
    chosen = pool(3)
    places = {}
    for key in "abcdefghi":
        places[key] = chosen.choose(key)
        places[key].limiter.busy += 1
    assert set(Counter(e.address for e in places.values()).values()) == {3}
    for one in chosen.all:
        one.limiter.busy = 0
    assert all(chosen.choose(key) is one for key, one in places.items())
    places["a"].is_down = True
    after = chosen.choose("a")
    assert after is not places["a"]
    places["a"].is_down = False
    assert chosen.choose("a") is after


def test_affinity_yields_to_load():
    chosen = pool(2)
    own = chosen.choose("key")
    own.limiter.busy = SLACK
    assert chosen.choose("key") is own
    own.limiter.busy = SLACK + 1
    assert chosen.choose("key") is not own
    own.limiter.busy = own.limiter.max_in_flight = 4
    assert chosen.choose("key") is not own


@pytest.mark.parametrize("system", ["be brief", "Rules. " * 1000])
def test_prompts_of_one_question_share_a_key_and_others_have_their_own(system):
    one = Prompt.user("why?", system=system)
    assert prompt_start_key(one) == prompt_start_key(one.with_prefix("Because"))
    assert prompt_start_key(one) != prompt_start_key(Prompt.user("how?", system=system))
    assert prompt_start_key(Prompt(text="a" * 5000)) == prompt_start_key(Prompt(text="a" * 6000))
