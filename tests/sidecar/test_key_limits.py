"""API keys, their verification and their limits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.budget import Budget
from reason.core.errors import AuthenticationError, KeyLimitExceeded, StoreError
from reason.sidecar.api_keys import KEY_PATTERN, digest_of, new_key, parse_key, verify_secret
from reason.sidecar.auth import CACHE_SIZE, CACHE_TTL_S, Caller, KeyVerifier
from reason.sidecar.key_limits import KeyLimiter, _format_seconds
from reason.sidecar.key_store import ApiKey, KeyLimits, Spending

NOON = 12 * 3600.0


class KeyShelf:
    """A store of keys and spending that counts its reads."""

    def __init__(self):
        self.keys, self.asked, self.tokens, self.usd, self.reserved = {}, [], 0, 0.0, {}

    def add(self, **fields):
        text, key_id, digest = new_key()
        about = {"name": "n", "tenant": "t", "scopes": frozenset({"ask"}), "created": 0.0, **fields}
        self.keys[key_id] = ApiKey(id=key_id, digest=digest, **about)
        return text, key_id

    def change(self, key_id, **fields):
        self.keys[key_id] = self.keys[key_id].model_copy(update=fields)

    async def find(self, key_id):
        self.asked.append(key_id)
        return self.keys.get(key_id)

    async def get_spending(self, tenant, since):
        assert (tenant, since) == ("t", NOON)
        return Spending(
            tokens=self.tokens,
            usd=self.usd,
            runs=1,
            reserved_tokens=sum(budget.tokens or 0 for budget in self.reserved.values()),
            reserved_usd=sum(budget.usd or 0.0 for budget in self.reserved.values()),
        )

    async def reserve_spending(self, name, tenant, budget, limits, at):
        before = await self.get_spending(tenant, at)
        reserved = limits.left_for(budget, before)
        if reserved is not None:
            self.reserved[name] = reserved
        return reserved, before

    async def release_spending(self, name):
        del self.reserved[name]


class Ring:
    def __init__(self):
        self.shelf, self.now = KeyShelf(), 100.0
        self.verifier = KeyVerifier(self.shelf, now=lambda: self.now)

    async def refuses(self, header):
        with pytest.raises(AuthenticationError) as refused:
            await self.verifier.caller(header)
        return refused.value


@pytest.fixture
def ring():
    return Ring()


def test_keys_are_256_bits_each_another_and_known_by_their_form():
    made = [new_key() for _ in range(50)]
    assert len({text for text, _, _ in made}) == len({i for _, i, _ in made}) == 50
    for text, key_id, digest in made:
        found_id, secret = parse_key(text)
        assert (found_id, len(secret) * 5 >= 256) == (key_id, True)
        assert digest == digest_of(secret)
        assert secret not in digest
        assert KEY_PATTERN.search(f"see {text}.")[0] == text


@given(text=st.text(max_size=80) | st.from_regex(r"reason-[a-z2-7]{0,9}-?[a-z2-7]{0,60}", fullmatch=True))
def test_no_text_but_a_key_is_one(text):
    parts = parse_key(text)
    assert parts is None or text == f"reason-{parts[0]}-{parts[1]}"


def test_a_secret_is_only_right_for_its_own_digest():
    assert verify_secret("a", digest_of("a"))
    assert not verify_secret("a", digest_of("b"))
    assert not verify_secret("", None)  # also not for the dummy digest of an unknown key


async def test_a_good_key_opens_and_tells_whose_it_is(ring):
    text, key_id = ring.shelf.add(tenant="lab", scopes=frozenset({"read"}), limits=KeyLimits(concurrency=2))
    caller = await ring.verifier.caller(f"bearer  {text} ")
    assert caller == Caller(key_id=key_id, tenant="lab", scopes={"read"}, limits=KeyLimits(concurrency=2))


async def test_whatever_is_wrong_with_a_key_the_answer_is_the_same(ring):
    good, _ = ring.shelf.add()
    other, _, _ = new_key()
    swapped = good[:16] + other[16:]
    expired, _ = ring.shelf.add(expires=100.0)
    revoked, _ = ring.shelf.add(revoked=1.0)
    told = {
        str(await ring.refuses(f"Bearer {key}"))
        for key in (other, swapped, expired, revoked, good.upper(), good + "a", "", "\ud800", "é" * 67)
    }
    assert told == {str(await ring.refuses(f"Basic {good}"))}
    assert "this server asks for a key" in str(await ring.refuses(None))
    assert not any(key in str(told) for key in (other, good))


async def test_keys_are_remembered_for_a_moment_and_a_revoked_one_no_longer(clock, ring):
    text, key_id = ring.shelf.add()
    for _ in range(3):
        await ring.verifier.caller(f"Bearer {text}")
    assert ring.shelf.asked == [key_id]
    ring.shelf.change(key_id, revoked=1.0)
    await clock.advance(CACHE_TTL_S)
    await ring.refuses(f"Bearer {text}")
    ring.shelf.change(key_id, revoked=None, expires=101.0)
    await clock.advance(CACHE_TTL_S)
    await ring.verifier.caller(f"Bearer {text}")
    ring.now = 101.0  # a cached key also expires
    await ring.refuses(f"Bearer {text}")


async def test_wrong_ids_are_remembered_too_and_not_without_end(ring):
    for _ in range(CACHE_SIZE + 10):
        await ring.refuses(f"Bearer {new_key()[0]}")
    assert len(ring.verifier._seen) == CACHE_SIZE
    text, _, _ = new_key()
    before = len(ring.shelf.asked)
    for _ in range(3):
        await ring.refuses(f"Bearer {text}")
    assert len(ring.shelf.asked) == before + 1


# -- usage


def caller(key="k", **limits):
    return Caller(key_id=key, tenant="t", scopes={"ask"}, limits=KeyLimits(**limits))


@pytest.fixture
def shelf():
    return KeyShelf()


@pytest.fixture
def use(shelf):
    return KeyLimiter(shelf, now=lambda: NOON)


async def refusal(use, key, match, **budget):
    """The error of a run that the limits of its key refuse."""
    with pytest.raises(KeyLimitExceeded, match=match) as refused:
        await use.hold(key, Budget(**budget)).__aenter__()
    return refused.value


DAILY = caller(tokens_per_day=1000)


async def test_requests_a_minute_are_each_keys_own(use):
    mine, other = caller("a", requests_per_minute=2), caller("b", requests_per_minute=2)
    standings = [await use.count(mine) for _ in range(3)]
    assert [s.refused is None for s in standings] == [True, True, False]
    assert [s.headers["x-ratelimit-remaining-requests"] for s in standings] == ["1", "0", "0"]
    assert standings[0].headers["x-ratelimit-limit-requests"] == "2"
    assert 1 <= standings[2].refused.retry_after_s <= 60
    assert (await use.count(other)).refused is None
    assert (await use.count(caller("c"))).headers == {}


async def test_runs_at_once_are_given_back_however_they_end(use):
    mine = caller(concurrency=1)
    async with use.hold(mine, Budget()):
        await refusal(use, mine, "1 runs of the key")
        async with use.hold(caller("other", concurrency=1), Budget()):
            pass
    with pytest.raises(ZeroDivisionError):
        async with use.hold(mine, Budget()):
            raise ZeroDivisionError
    async with use.hold(mine, Budget()):
        pass
    assert not +use._running


async def test_a_days_tokens_bound_the_run_and_those_beside_it(shelf, use):
    shelf.tokens = 100
    async with use.hold(DAILY, Budget(tokens=500, calls=3)) as first:
        assert first == Budget(tokens=500, calls=3)
        async with use.hold(DAILY, Budget(tokens=800)) as second:  # 1000 - 100 - 500 are left
            assert second.tokens == 400
            reserved = await refusal(use, DAILY, "1000 tokens per day is reserved")
            assert reserved.retry_after_s == 1.0  # runs in flight return what they do not spend
            standing = await use.count(DAILY)
            assert standing.headers == {
                "x-ratelimit-limit-tokens": "1000",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "12h0m0s",
            }
    shelf.tokens = 999
    async with use.hold(DAILY, Budget()) as last:
        assert last.tokens == 1
    shelf.tokens = 1000
    assert (await refusal(use, DAILY, "1000 tokens per day is spent")).retry_after_s == NOON
    assert not shelf.reserved


async def test_a_run_without_limits_reserves_all_that_is_left(use):
    async with use.hold(DAILY, Budget()) as free:
        assert free.tokens == 1000
        await refusal(use, DAILY, "is reserved", tokens=1)
    async with use.hold(DAILY, Budget(tokens=1)):
        pass


async def test_a_days_dollars_likewise(shelf, use):
    shelf.usd = 1.0
    mine = caller(usd_per_day=2.0)
    async with use.hold(mine, Budget(usd=0.75)) as first:
        assert first.usd == 0.75
        async with use.hold(mine, Budget()) as second:
            assert second.usd == 0.25
            await refusal(use, mine, "2 USD")


async def test_a_request_does_not_wait_for_a_day_that_is_spent(shelf, use):
    mine = replace(DAILY, request_id="r")
    async with use.hold(mine, Budget(tokens=10)):
        shelf.tokens = 1000
        await refusal(use, mine, "is spent", tokens=10)


async def test_a_reservation_is_released_later_if_the_store_fails(shelf, use):
    release, broken = shelf.release_spending, [StoreError("the disk is full")]

    async def failing(name):
        if broken:
            raise broken.pop()
        await release(name)

    shelf.release_spending = failing
    async with use.hold(DAILY, Budget(tokens=10)):
        pass
    assert len(shelf.reserved) == 1
    async with use.hold(DAILY, Budget(tokens=10)):
        pass
    assert not shelf.reserved


async def test_a_cancelled_reservation_is_released(shelf, use):
    reserve, reached = shelf.reserve_spending, asyncio.Event()

    async def slow(*args, **options):
        made = await reserve(*args, **options)
        reached.set()
        await asyncio.Event().wait()
        return made

    shelf.reserve_spending = slow
    holding = asyncio.create_task(use.hold(DAILY, Budget()).__aenter__())
    await reached.wait()
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert not shelf.reserved
    assert not +use._running


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, "0ms"), (0.12, "120ms"), (1.0, "1s"), (6.2, "7s"), (360.0, "6m0s"), (3661.0, "1h1m1s")]
)
def test_times_are_told_as_openai_tells_them(seconds, told):
    assert _format_seconds(seconds) == told
