"""Prompts of different salts share no keys and values in the embedded engine, in any method."""

from __future__ import annotations

import asyncio

from reason.core.messages import Completion, Prompt, Request, SamplingParams
from reason.core.run import Run
from reason.serving.local.engine import LocalModel
from reason.serving.metered.model import MeteredModel
from support.stored_runs import run_config

TEXT = "The old lighthouse keeper wrote down the height of every wave, the colour of every sail. "
PROMPT = Prompt(text=TEXT * 2)
FULL = len(PROMPT.text or "") - 1
"""Tokens that a second prompt reuses: all but the last, which is always computed; a token is a byte here."""


def request(prompt: Prompt, **sampling: object) -> Request:
    settings: dict[str, object] = {"max_tokens": 8, "seed": 1, "temperature": 0.0, "ignore_eos": True}
    return Request(prompt=prompt, sampling=SamplingParams(**({"logprobs": True} | settings | sampling)))


async def ask(model: LocalModel, salt: str) -> Completion:
    [[made]] = await model.generate([request(PROMPT.with_cache_salt(salt))])
    return made


async def test_a_tenant_shares_only_with_itself_and_gets_the_same_text(tiny):
    made = [await ask(tiny, salt) for salt in ("acme", "other", "", "acme", "other", "")]
    assert [c.usage.cached_tokens for c in made] == [0, 0, 0, FULL, FULL, FULL]
    assert len({c.text for c in made}) == 1
    assert len({c.logprobs for c in made}) == 1


async def test_scores_and_distributions_keep_to_the_salt_too(tiny):
    await ask(tiny, "acme")
    [other] = await tiny.score(PROMPT.with_cache_salt("other"), [" a"])
    [own] = await tiny.score(PROMPT.with_cache_salt("acme"), [" a"])
    assert other.usage.cached_tokens == 0
    assert own.usage.cached_tokens >= FULL - 1
    assert own.logprobs == other.logprobs
    third, first, none_of_them = await tiny.next_token([PROMPT.with_cache_salt(salt) for salt in ("third", "acme", "")])
    assert [t.usage.cached_tokens for t in (third, first, none_of_them)] == [0, FULL, 0]
    assert third.logprobs == first.logprobs


async def test_requests_of_one_call_and_calls_at_once_keep_apart(tiny):
    salts = ("acme", "other", "acme")
    made = await tiny.generate([request(PROMPT.with_cache_salt(salt)) for salt in salts])
    assert [c.usage.cached_tokens for [c] in made] == [0, 0, FULL]
    calls = await asyncio.gather(*(ask(tiny, salt) for salt in ("new", "newer", "new")))
    assert sorted(c.usage.cached_tokens for c in calls) == [0, 0, FULL]


async def test_runs_of_two_tenants_share_nothing_and_those_of_one_do(tiny, store):
    cached = []
    for number, tenant in enumerate(("acme", "other", "acme", "other")):
        config = run_config(models={"main": "local/tiny"}, reuse="none", tenant=tenant)
        await store.create_run(f"r{number}", {})
        metered = MeteredModel(tiny, "main", Run(f"r{number}", config, store))
        [[made]] = await metered.generate([request(PROMPT)])
        cached.append(made.usage.cached_tokens)
    assert cached == [0, 0, FULL, FULL]
