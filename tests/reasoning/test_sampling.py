"""Drawing samples: rounds, races, budgets, failures, replay."""

from __future__ import annotations

import asyncio

import pytest
from reason.core.budget import Budget
from reason.core.errors import BackendUnavailable, CapabilityMissing, InvalidResponse
from reason.core.messages import Prompt, SamplingParams
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.reasoning.sampling import sample_chains
from reason.reasoning.stopping import Agreement, Beta, OnlineConfidence, SelfEvaluated
from support.scripted_model import ScriptedModel, replies
from support.stored_runs import RunDesk

ALWAYS = replies("The answer is 4.")
QUICK_AND_SLOW = replies("The answer is 4.", "Let me think about it for very long. The answer is 5.", weights=[1, 1])
SCATTERED = replies(*(f"The answer is {i}." for i in range(10, 40)))
QUESTION = Question(text="What is 2 + 2?", kind="number")
PROMPT = Prompt.user("What is 2 + 2?")


@pytest.fixture
async def store(tmp_path):
    opened = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield opened
    await opened.aclose()


class Desk(RunDesk):
    async def draw(self, *, n=16, max_tokens=80, name="r", seed=3, budget=None, **options):
        model = await self.begin(name, strategy="self-consistency", question=QUESTION, budget=budget, seed=seed)
        sampling = SamplingParams(n=n, max_tokens=max_tokens, temperature=1.0)
        return await sample_chains(model, PROMPT, sampling, QUESTION, self.run, **options)


async def test_without_a_rule_all_samples_are_one_call(store):
    desk = Desk(store, ScriptedModel(SCATTERED))
    drawn = await desk.draw(n=12)
    assert len(desk.model.generate_calls) == drawn.num_calls == 1
    assert (drawn.num_requested, len(drawn.candidates), drawn.stopped_early, drawn.stopped) == (12, 12, False, "done")
    assert [c.sample_index for c in drawn.completions] == list(range(12))
    assert [c.text for c in drawn.candidates] == [c.text for c in drawn.completions]


async def test_rounds_take_no_sample_that_could_not_matter(store):
    desk = Desk(store, ScriptedModel(ALWAYS))
    drawn = await desk.draw(rule=Beta(), mode="rounds")
    assert drawn.stopped_early
    assert [len(r[0].indices) for r in desk.model.generate_calls] == [4]
    desk = Desk(store, ScriptedModel(SCATTERED))
    drawn = await desk.draw(rule=Agreement(window=3), mode="rounds", name="s")
    assert not drawn.stopped_early
    assert drawn.num_requested == len(drawn.candidates) == 16
    assert sum(len(r[0].indices) for r in desk.model.generate_calls) == 16


async def test_a_race_cancels_the_rest(store):
    desk = Desk(store, ScriptedModel(QUICK_AND_SLOW))
    drawn = await desk.draw(rule=Beta(), mode="race")
    assert drawn.stopped_early
    assert drawn.mode == "race"
    assert len(desk.model.generate_calls) == 1
    assert desk.model.running == 0
    assert drawn.cancelled
    assert drawn.num_requested == 16 == len(drawn.candidates) + len(drawn.cancelled)
    assert {c.answer for c in drawn.candidates} == {"4"}  # the slow ones never came to their answer
    spent = desk.run.ledger.usage().completion_tokens
    assert spent == sum(len(c.token_ids) for c in (*drawn.completions, *drawn.cancelled))
    whole = await Desk(store, ScriptedModel(QUICK_AND_SLOW)).draw(name="whole")
    assert spent < 0.7 * sum(len(c.token_ids) for c in whole.completions)
    assert {c.text for c in drawn.candidates} <= {c.text for c in whole.candidates}
    (note,) = [e for e in desk.sink.of_type("strategy.note") if e.name == "sampling.stopped"]
    assert note.data["cancelled"] == len(drawn.cancelled)


async def test_a_narrow_race_begins_a_sample_as_one_finishes(store):
    full, most = asyncio.Event(), 0  # nothing is written before all three are under way
    desk = Desk(store, ScriptedModel(SCATTERED, step=lambda: asyncio.ensure_future(full.wait())))
    step = desk.model.generate

    async def watched(requests, listener=None):
        nonlocal most
        most = max(most, desk.model.running + 1)
        if most == 3:
            full.set()
        return await step(requests, listener)

    desk.model.generate = watched
    drawn = await desk.draw(n=10, rule=Agreement(window=9), mode="race", width=3)
    plain = await Desk(store, ScriptedModel(SCATTERED)).draw(n=10, name="plain")
    assert most == 3
    assert drawn.num_calls == drawn.num_requested == 10
    assert drawn.completions == [
        c.model_copy(update={"usage": d.usage}) for c, d in zip(plain.completions, drawn.completions, strict=True)
    ]


async def test_a_narrow_race_begins_nothing_once_there_is_enough(store):
    desk = Desk(store, ScriptedModel(ALWAYS))
    drawn = await desk.draw(rule=Beta(), mode="race", width=2)
    assert drawn.stopped_early
    assert desk.model.running == 0
    assert len(desk.model.made) == drawn.num_requested <= 6  # four that agree, and at most two under way
    assert drawn.num_requested == len(drawn.candidates) + len(drawn.cancelled)
    made = len(desk.model.made)
    again = await desk.draw(rule=Beta(), mode="race", width=2)
    assert (again.completions, again.cancelled, again.stopped_early) == (drawn.completions, drawn.cancelled, True)
    assert len(desk.model.made) == made


async def test_a_race_replays_in_order_of_completion(store):
    # in order of asking the answers are 5 4 4 5 4 …, and no two in a row agree as early as in order of finishing
    desk = Desk(store, ScriptedModel(QUICK_AND_SLOW))
    for width in (None, 3, 5):
        drawn = await desk.draw(rule=Agreement(window=2), mode="race", width=width, name=f"w{width}")
        made = len(desk.model.made)
        again = await desk.draw(rule=Agreement(window=2), mode="race", width=width, name=f"w{width}")
        assert len(desk.model.made) == made
        assert again.completions == drawn.completions
        assert again.cancelled == drawn.cancelled
        assert again.stopped_early == drawn.stopped_early
        assert again.num_requested == drawn.num_requested


async def test_a_narrow_race_keeps_within_a_budget(store):
    desk = Desk(store, ScriptedModel(SCATTERED))
    drawn = await desk.draw(
        n=16, max_tokens=40, budget=Budget(tokens=100), rule=Agreement(window=9), mode="race", width=3
    )
    assert drawn.stopped == "budget"
    assert drawn.candidates
    assert desk.run.ledger.usage().completion_tokens <= 100


async def test_a_narrow_race_raises_a_backend_failure(store):
    def fail():
        raise BackendUnavailable("the engine is gone")

    desk = Desk(store, ScriptedModel(SCATTERED, step=fail))
    with pytest.raises(BackendUnavailable, match="is gone"):
        await desk.draw(rule=Beta(), mode="race", width=3)
    assert desk.model.running == 0


async def test_a_race_without_a_winner_equals_a_plain_call(store):
    desk = Desk(store, ScriptedModel(SCATTERED))
    drawn = await desk.draw(rule=Agreement(window=5), mode="race")
    plain = await desk.draw(name="plain")
    assert not drawn.stopped_early
    assert drawn.cancelled == []
    assert drawn.completions == plain.completions


async def test_a_race_replays_as_it_went(store):
    desk = Desk(store, ScriptedModel(QUICK_AND_SLOW))
    first = await desk.draw(rule=Beta(), mode="race")
    made = len(desk.model.made)
    again = await desk.draw(rule=Beta(), mode="race")
    assert len(desk.model.made) == made
    assert again.completions == first.completions
    assert again.cancelled == first.cancelled
    assert again.stopped_early


async def test_auto_races_where_tokens_cost_nothing(store):
    assert (await Desk(store, ScriptedModel(ALWAYS)).draw(rule=Beta())).mode == "race"
    assert (await Desk(store, ScriptedModel(ALWAYS, price=1e-6)).draw(rule=Beta(), name="p")).mode == "rounds"
    assert (await Desk(store, ScriptedModel(ALWAYS, price=None)).draw(rule=Beta(), name="q")).mode == "rounds"


async def test_a_small_budget_is_spent_in_waves_and_never_overspent(store):
    desk = Desk(store, ScriptedModel(SCATTERED))
    drawn = await desk.draw(n=16, max_tokens=40, budget=Budget(tokens=100), rule=Agreement(window=9), mode="race")
    assert drawn.stopped == "budget"
    assert drawn.candidates
    assert desk.run.ledger.usage().completion_tokens <= 100


async def test_failed_samples_neither_vote_nor_stop(store):
    desk = Desk(store, ScriptedModel(ALWAYS, failing=frozenset({0, 2})))
    drawn = await desk.draw(n=6, rule=Beta(), mode="rounds")
    assert [f.sample_index for f in drawn.failures] == [0, 2]
    assert len(drawn.candidates) == 4
    assert desk.run.degraded == ["2 of 6 samples failed and did not vote"]
    with pytest.raises(InvalidResponse, match="every sample failed"):
        await Desk(store, ScriptedModel(ALWAYS, failing=frozenset(range(4)))).draw(n=4, name="f", rule=Beta())


async def test_a_rule_that_needs_hooks_is_refused_without_them(store):
    desk = Desk(store, ScriptedModel(ALWAYS))
    with pytest.raises(CapabilityMissing, match="hooks"):
        await desk.draw(rule=OnlineConfidence())
    assert desk.model.made == []


async def test_quality_is_estimated_once_for_each_sample(store):
    desk, judged = Desk(store, ScriptedModel(SCATTERED)), []

    async def judge(candidates):
        judged.extend(c.text for c in candidates)
        return [0.9 if len(judged) >= 4 else 0.1 for _ in candidates]

    drawn = await desk.draw(rule=SelfEvaluated(threshold=0.8), mode="rounds", estimate_quality=judge)
    assert drawn.stopped_early
    assert [len(r[0].indices) for r in desk.model.generate_calls] == [1, 1, 2]
    assert judged == [c.text for c in drawn.candidates]


async def test_a_judge_that_fails_ends_the_race(store):
    desk = Desk(store, ScriptedModel(QUICK_AND_SLOW))

    async def judge(candidates):
        raise InvalidResponse("the judge is confused")

    with pytest.raises(InvalidResponse, match="confused"):
        await desk.draw(rule=SelfEvaluated(threshold=0.85), mode="race", estimate_quality=judge)
    assert desk.model.running == 0


async def test_a_cancelled_race_leaves_nothing_running(store):
    hold = asyncio.Event()
    desk = Desk(store, ScriptedModel(QUICK_AND_SLOW, step=lambda: asyncio.ensure_future(hold.wait())))
    task = asyncio.create_task(desk.draw(rule=Beta(), mode="race"))
    while not desk.model.running:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert desk.model.running == 0
    assert len(asyncio.all_tasks()) == 1


async def test_candidates_are_offered_as_they_come(store):
    seen = []
    desk = Desk(store, ScriptedModel(SCATTERED))
    drawn = await desk.draw(n=5, on_candidate=lambda found: seen.append(len(found)))
    assert seen == [1, 2, 3, 4, 5]
    assert len(desk.sink.of_type("candidate.added")) == len(drawn.candidates) == 5
