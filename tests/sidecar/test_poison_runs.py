"""Requests that once froze every process of a store, and what a server does with such ones now."""

import asyncio

import httpx
import pytest
from reason.core.budget import Budget
from reason.core.errors import UserError
from reason.sidecar.policy import check_samples
from reason.sidecar.server import frozen_heap
from support.instant_model import InstantModel
from support.loop_lag import LoopWatchdog
from support.run_manager import ANNE, abandoned_run, config_of, running_manager
from support.sidecar_server import serving, settings_for
from support.stored_runs import run_config
from support.waiting import wait_until

POISON = {"question": "x", "strategy": "beam", "parameters": {"k": 1000, "width": 1000}, "budget": {"seconds": 5}}
MAX_BLOCK_S = 2.0
"""Ten times what is allowed: the machine may be busy. What these tests repeat took ten seconds and more."""


def step(prompt, index):
    return f"Consider case {index} of it."


def answer(prompt, index):
    return f"The answer is {index}."


def config(strategy, **parameters):
    return run_config(strategy=strategy, parameters=parameters)


def test_the_poison_request_is_refused_with_its_remedy(tmp_path, models):
    models["scripted"] = InstantModel(step)
    with serving(settings_for(tmp_path)) as server:
        reply = httpx.post(f"{server.url}/v1/runs", json=POISON, timeout=60)
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert "width 1,000 * k 1,000 * max_depth 40 = 40,000,000 samples, more than 65,536" in error["message"]
        assert httpx.get(f"{server.url}/v1/runs", timeout=60).json()["data"] == []


def test_the_server_has_a_maximum_of_its_own():
    check_samples(config("beam", width=5, k=5, max_depth=40, score="auto"))
    with pytest.raises(UserError) as caught:
        check_samples(config("beam", width=15, k=15, max_depth=40, score="auto"))
    assert "width 15 * k 15 * max_depth 40 = 9,000 samples, more than 8,192" in caught.value.message
    assert caught.value.hint == "lower width, k or max_depth"
    assert caught.value.param == "parameters.max_depth"
    with pytest.raises(UserError) as caught:
        check_samples(config("self-consistency", n=10_000), param="reason.parameters")
    assert caught.value.param == "reason.parameters.n"
    check_samples(config("given", answer="x"))


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("strategy", "parameters", "text", "stop"),
    [
        ("beam", {"width": 128, "k": 128, "max_depth": 2, "score": "arithmetic"}, step, "\n\n"),
        ("beam", {"diverse": True, "width": 2048, "k": 4, "max_depth": 2, "score": "arithmetic"}, step, "\n\n"),
        ("beam", {"width": 64, "k": 64, "max_depth": 4, "score": "arithmetic", "select": "vote"}, answer, "\n\n"),
        ("self-consistency", {"n": 4096}, answer, ""),
    ],
    ids=["beam", "beam-diverse", "different-answers", "chains"],
)
async def test_a_long_run_leaves_the_event_loop_to_others(path, models, strategy, parameters, text, stop):
    async with running_manager(path, models) as run_manager, asyncio.timeout(120):
        models["scripted"] = InstantModel(text, stop_reason=stop, logprobs=True)
        asked = config_of(run_manager, strategy=strategy, parameters=parameters)
        with frozen_heap(), LoopWatchdog() as watchdog:
            run = await run_manager.start(asked, ANNE)
            await run.result()
        assert models["scripted"].num_samples >= 4096
        assert watchdog.longest_s < MAX_BLOCK_S, watchdog.stack


async def test_the_time_of_a_budget_ends_a_search_whose_model_answers_at_once(path, models):
    async with running_manager(path, models) as run_manager, asyncio.timeout(60):
        models["scripted"] = InstantModel(step, stop_reason="\n\n", logprobs=True)
        parameters = {"width": 16, "k": 16, "max_depth": 200, "score": "arithmetic"}
        asked = config_of(run_manager, strategy="beam", parameters=parameters, budget=Budget(seconds=0.5))
        run = await run_manager.start(asked, ANNE)
        assert (await run.result()).stopped == "budget"


async def test_a_long_run_is_cancelled_in_the_middle_of_its_work(path, models):
    async with running_manager(path, models) as run_manager, asyncio.timeout(60):
        models["scripted"] = InstantModel(step, stop_reason="\n\n", logprobs=True)
        parameters = {"width": 128, "k": 128, "max_depth": 4, "score": "arithmetic"}
        run = await run_manager.start(config_of(run_manager, strategy="beam", parameters=parameters), ANNE)
        await wait_until(lambda: models["scripted"].num_samples >= 2000)
        record = await run_manager.cancel(run.id, ANNE)
        assert record.status == "interrupted"
        assert models["scripted"].num_samples < 65_536


async def test_a_poison_run_that_is_stored_already_fails_where_it_is_adopted(path, models):
    async with running_manager(path, models) as run_manager, asyncio.timeout(60):
        plain = config_of(run_manager, strategy="beam")
        poison = plain.model_copy(update={"parameters": plain.parameters | POISON["parameters"], "tenant": "anne"})
        run_id = await abandoned_run(path, run_manager, config=poison)
        assert await run_manager.adopt() == 1
        await wait_until(lambda: not run_manager.in_flight)
        record = await run_manager.record(run_id, ANNE)
        assert (record.status, record.error["code"]) == ("failed", "user_error")
        assert await run_manager.adopt() == 0
