"""Health and choice of endpoints, on a clock of the tests."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.messages import Prompt
from reason.serving.litellm.endpoints import (
    MAX_CONSECUTIVE_FAILURES,
    MAX_COOLDOWN_S,
    SLACK,
    Endpoint,
    EndpointHealth,
    EndpointPool,
    prompt_start_key,
)
from reason.serving.litellm.limiter import ConcurrencyLimiter

ERROR = RuntimeError("down")


def down(health: EndpointHealth, now: float = 0.0) -> EndpointHealth:
    for _ in range(MAX_CONSECUTIVE_FAILURES):
        health.failed(now, ERROR)
    return health


def endpoints(*weights: float, most: int = 64) -> EndpointPool:
    return EndpointPool(
        [Endpoint(f"http://{i}/v1", ConcurrencyLimiter(most), w) for i, w in enumerate(weights)], clock=lambda: 0.0
    )


def test_single_failure_does_not_trip():
    health = EndpointHealth()
    for _ in range(MAX_CONSECUTIVE_FAILURES - 1):
        health.failed(0, ERROR)
    assert health.usable(0)
    health.succeeded()
    for _ in range(MAX_CONSECUTIVE_FAILURES - 1):
        health.failed(0, ERROR)
    assert health.usable(0)
    health.failed(0, ERROR)
    assert not health.usable(0)


def test_consecutive_failures_double_the_pause():
    health = down(EndpointHealth(cooldown_s=2.0))
    now, rests = 0.0, []
    for _ in range(8):
        rest = health.due_s(now)
        assert not health.usable(now + rest * 0.999)
        now += rest
        rests.append(rest)
        assert health.usable(now)
        assert health.begin()
        assert not health.usable(now), "one request tries it, the others wait"
        assert health.due_s(now) is None
        health.failed(now, ERROR)
    assert rests == [2, 4, 8, 16, 32, MAX_COOLDOWN_S, MAX_COOLDOWN_S, MAX_COOLDOWN_S]
    health.begin()
    health.succeeded()
    assert health.usable(now)
    assert down(health, now).due_s(now) == 2.0, "it starts anew"


def test_requests_in_flight_at_the_trip_do_not_count():
    health = down(EndpointHealth(cooldown_s=1.0))
    for _ in range(100):
        health.failed(0.5, ERROR)
    assert health.due_s(0.5) == 0.5


def test_retry_after_sets_the_pause():
    health = EndpointHealth()
    health.failed(10, ERROR, rest_s=7)
    assert health.due_s(10) == 7
    health.failed(11, ERROR, rest_s=2)
    assert health.due_s(11) == 6
    other = EndpointHealth()
    other.failed(10, ERROR, rest_s=0)
    assert other.usable(10)


def test_one_rejected_key_trips():
    health = EndpointHealth(cooldown_s=3)
    health.failed(0, ERROR, hard=True)
    assert health.due_s(0) == 3


def test_cancelled_probe_allows_another():
    health = down(EndpointHealth())
    assert health.begin()
    health.abandoned()
    assert health.usable(1.0)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=5), st.integers(1, 300))
def test_requests_are_spread_by_weight(weights, number):
    chosen = endpoints(*weights, most=10_000)
    counts: Counter[str] = Counter()
    for _ in range(number):
        endpoint = chosen.choose(None, 10, ())
        endpoint.limiter.tokens += 10
        counts[endpoint.address] += 1
    for endpoint in chosen.all:
        assert counts[endpoint.address] == pytest.approx(number * endpoint.weight / sum(weights), abs=len(weights) + 1)


def test_full_endpoint_is_skipped():
    chosen = endpoints(100.0, 1.0, most=2)
    places = []
    for _ in range(4):
        endpoint = chosen.choose(None, 10, ())
        endpoint.limiter.busy += 1
        endpoint.limiter.tokens += 10
        places.append(endpoint.address)
    assert places == ["http://0/v1", "http://0/v1", "http://1/v1", "http://1/v1"]


def test_what_is_down_tried_or_excluded_is_not_chosen():
    chosen = endpoints(1, 1, 1)
    down(chosen.all[0].health)
    chosen.all[1].excluded = "another model"
    assert chosen.choose(None, 10, ()) is chosen.all[2]
    assert chosen.choose("key", 10, {chosen.all[2]: None}) is None
    assert "another model" in chosen.account()
    chosen.all[2].unready = "status 503"
    assert chosen.choose(None, 10, ()) is None
    assert "status 503" in chosen.account()


def test_an_endpoint_whose_health_page_is_silent_is_used_if_no_other_can_be():
    chosen = endpoints(1, 1)
    chosen.all[0].silent = True
    for _ in range(3):
        endpoint = chosen.choose(None, 10, ())
        endpoint.limiter.tokens += 10
        assert endpoint is chosen.all[1]
    assert chosen.choose(None, 10, {chosen.all[1]: None}) is chosen.all[0]


def test_few_trees_are_spread_and_stay_where_they_are():
    chosen = endpoints(1, 1, 1)
    places = {}
    for key in "abcdefghi":  # all begin at once, and then go on
        endpoint = chosen.choose(key, 100, ())
        endpoint.limiter.tokens += 100
        places[key] = endpoint
    assert max(Counter(e.address for e in places.values()).values()) <= 4
    for endpoint in chosen.all:
        endpoint.limiter.tokens = 0
    for key, endpoint in places.items():
        assert chosen.choose(key, 100, ()) is endpoint


def test_a_tree_whose_endpoint_is_lost_is_placed_again_and_stays_there():
    chosen = endpoints(1, 1, 1)
    before = chosen.choose("key", 100, ())
    before.unready = "status 503"
    after = chosen.choose("key", 100, ())
    assert after is not before
    before.unready = ""
    assert chosen.choose("key", 100, ()) is after


def test_outstanding_tokens_decide_and_not_requests():
    chosen = endpoints(1, 1)
    with chosen.all[0].limiter.outstanding(100, 4000) as long:
        for _ in range(40):  # forty short requests are less than a long one
            endpoint = chosen.choose(None, 100, ())
            assert endpoint is chosen.all[1]
            endpoint.limiter.busy += 1
            endpoint.limiter.tokens += 100
        long.received(1)  # with the first token, the prompt has been computed
        assert chosen.all[0].limiter.tokens == 3999
        assert chosen.choose(None, 100, ()) is chosen.all[0]
        long.received(3990)
        assert chosen.all[0].limiter.tokens == 9
        long.received(50)
        assert chosen.all[0].limiter.tokens == 0
    assert chosen.all[0].limiter.tokens == 0


def test_outstanding_tokens_end_with_their_request():
    limiter = ConcurrencyLimiter(4)
    with pytest.raises(RuntimeError), limiter.outstanding(100, 400) as outstanding:
        outstanding.received(3)
        raise ERROR
    assert limiter.tokens == 0


@given(st.sets(st.text(max_size=5), min_size=1, max_size=30), st.integers(0, 3))
def test_losing_an_endpoint_moves_only_its_keys(keys, lost):
    before, after = endpoints(1, 1, 1, 1), endpoints(1, 1, 1, 1)
    down(after.all[lost].health)
    for key in keys:
        place = before.choose(key, 10, ()).address
        assert before.choose(key, 10, ()).address == place
        if place != before.all[lost].address:
            assert after.choose(key, 10, ()).address == place


def test_keys_are_distributed_by_weight():
    chosen = endpoints(3, 1)
    counts = Counter(chosen.choose(str(i), 10, ()).address for i in range(4000))
    assert counts["http://0/v1"] == pytest.approx(3000, abs=120)


def test_affinity_yields_to_load():
    chosen = endpoints(1, 1)
    own = chosen.choose("key", 10, ())
    own.limiter.tokens = SLACK * 10
    assert chosen.choose("key", 10, ()) is own
    own.limiter.tokens = SLACK * 10 + 1
    assert chosen.choose("key", 10, ()) is not own
    assert chosen.choose("key", 11, ()) is own, "the more a request has to compute, the more it may wait for"
    own.limiter.busy = own.limiter.max_in_flight
    assert chosen.choose("key", 11, ()) is not own


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=200), st.integers(2, 4))
def test_a_single_prompt_unbalances_endpoints_by_no_more_than_the_slack(sizes, number):
    chosen = endpoints(*[1] * number, most=10_000)
    for tokens in sizes:
        chosen.choose("key", tokens, ()).limiter.tokens += tokens
    loads = [endpoint.limiter.tokens for endpoint in chosen.all]
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
