"""Drawing samples: rounds, races, budgets, failures, replay."""

import asyncio

import pytest
from reason.core.budget import Budget
from reason.core.errors import BackendUnavailable, InvalidResponse
from reason.core.messages import Prompt, SamplingParams
from reason.core.types import Question
from reason.reasoning.sampling import sample_chains
from reason.reasoning.stopping import Agreement, Beta, FirstFinished, Lead
from support.scripted_model import ScriptedModel, replies
from support.stored_runs import RunHarness
from support.waiting import wait_until

ALWAYS = replies("The answer is 4.")
QUICK_AND_SLOW = replies("The answer is 4.", "Let me think about it for very long. The answer is 5.", weights=[1, 1])
SCATTERED = replies(*(f"The answer is {i}." for i in range(10, 40)))
QUESTION = Question(text="What is 2 + 2?", kind="number")
PROMPT = Prompt.user("What is 2 + 2?")


class Harness(RunHarness):
    def __init__(self, store, script, **options):
        super().__init__(store, ScriptedModel(script, **options))

    async def draw(self, *, n=16, max_tokens=80, name="r", seed=3, budget=None, **options):
        model = await self.begin(name, strategy="self-consistency", question=QUESTION, budget=budget, seed=seed)
        sampling = SamplingParams(n=n, max_tokens=max_tokens, temperature=1.0)
        return await sample_chains(model, PROMPT, sampling, QUESTION, self.run, **options)


async def test_without_a_rule_all_samples_are_one_call(store):
    harness = Harness(store, SCATTERED)
    sample_set = await harness.draw(n=12)
    assert len(harness.model.generate_calls) == 1
    assert sample_set.num_requested == len(sample_set.candidates) == 12
    assert (sample_set.stopped_early, sample_set.stopped) == (False, "done")
    assert [c.sample_index for c in sample_set.completions] == list(range(12))
    assert [c.text for c in sample_set.candidates] == [c.text for c in sample_set.completions]


async def test_rounds_take_no_sample_that_could_not_matter(store):
    harness = Harness(store, ALWAYS)
    sample_set = await harness.draw(rule=Beta(), mode="rounds")
    assert sample_set.stopped_early
    assert [len(r[0].indices) for r in harness.model.generate_calls] == [4]
    harness = Harness(store, SCATTERED)
    sample_set = await harness.draw(rule=Agreement(window=3), mode="rounds", name="s")
    assert not sample_set.stopped_early
    assert sample_set.num_requested == len(sample_set.candidates) == 16
    assert sum(len(r[0].indices) for r in harness.model.generate_calls) == 16


async def test_a_race_cancels_the_rest(store):
    harness = Harness(store, QUICK_AND_SLOW)
    sample_set = await harness.draw(rule=Beta(), mode="race")
    assert (sample_set.stopped_early, sample_set.mode) == (True, "race")
    assert len(harness.model.generate_calls) == 1
    assert harness.model.running == 0
    assert sample_set.cancelled
    assert sample_set.num_requested == 16 == len(sample_set.candidates) + len(sample_set.cancelled)
    assert {c.answer for c in sample_set.candidates} == {"4"}  # the slow ones never came to their answer
    spent = harness.run.ledger.usage().completion_tokens
    assert spent == sum(len(c.token_ids) for c in (*sample_set.completions, *sample_set.cancelled))
    uninterrupted = await Harness(store, QUICK_AND_SLOW).draw(name="whole")
    assert spent < 0.7 * sum(len(c.token_ids) for c in uninterrupted.completions)
    assert {c.text for c in sample_set.candidates} <= {c.text for c in uninterrupted.candidates}
    (note,) = [e for e in harness.sink.of_type("strategy.note") if e.name == "sampling.stopped"]
    assert note.data["cancelled"] == len(sample_set.cancelled)


async def test_a_narrow_race_begins_a_sample_as_one_finishes(store):
    full, peak = asyncio.Event(), 0  # no sample proceeds until all three are running
    harness = Harness(store, SCATTERED, step=lambda: asyncio.ensure_future(full.wait()))
    step = harness.model.generate

    async def watched(requests, listener=None):
        nonlocal peak
        peak = max(peak, harness.model.running + 1)
        if peak == 3:
            full.set()
        return await step(requests, listener)

    harness.model.generate = watched
    sample_set = await harness.draw(n=10, rule=Agreement(window=9), mode="race", width=3)
    plain = await Harness(store, SCATTERED).draw(n=10, name="plain")
    assert (peak, sample_set.num_requested) == (3, 10)
    assert sample_set.completions == [
        c.model_copy(update={"usage": d.usage}) for c, d in zip(plain.completions, sample_set.completions, strict=True)
    ]


@pytest.mark.parametrize("rule", [Agreement(window=3), Beta(), Lead(), Lead(lead=4)], ids=lambda rule: rule.rule)
async def test_a_race_of_any_width_counts_what_rounds_would(store, rule):
    # in order of completion the short samples, which all say 4, would come first
    harness = Harness(store, QUICK_AND_SLOW)
    rounds = await harness.draw(rule=rule, mode="rounds", seed=7)
    assert {c.answer for c in rounds.candidates} == {"4", "5"}
    for width in (None, 1, 2, 5, 16):
        race = await harness.draw(rule=rule, mode="race", width=width, name=f"w{width}", seed=7)
        assert [c.sample_index for c in race.completions] == [c.sample_index for c in rounds.completions]
        assert [c.answer for c in race.candidates] == [c.answer for c in rounds.candidates]
        assert race.stopped_early == rounds.stopped_early
        assert race.num_requested == len(race.candidates) + len(race.cancelled)
        spent = harness.run.ledger.usage().completion_tokens
        assert spent == sum(c.usage.completion_tokens for c in (*race.completions, *race.cancelled))


async def test_the_first_to_finish_win_a_race_that_counts_by_completion(store):
    harness = Harness(store, QUICK_AND_SLOW)
    rule = FirstFinished(finished=3)
    race = await harness.draw(rule=rule, mode="race", seed=7)
    assert race.stopped_early
    assert [c.answer for c in race.candidates] == ["4"] * 3
    rounds = await harness.draw(rule=rule, mode="rounds", name="rounds")
    assert [c.sample_index for c in rounds.completions] == [0, 1, 2]


async def test_a_race_does_not_wait_for_a_sample_that_failed(store):
    harness = Harness(store, ALWAYS, failing=frozenset({0, 2}))
    for width in (None, 2):
        race = await harness.draw(rule=Lead(unanimous=2), mode="race", width=width, name=f"w{width}")
        assert race.stopped_early
        assert [c.sample_index for c in race.completions] == [1, 3]


async def test_a_rule_weighs_the_votes_that_it_counted(store):
    harness = Harness(store, QUICK_AND_SLOW)
    samples = await harness.draw(rule=Lead(lead=4, short_weight=0.5), mode="rounds", seed=7)
    weight_of = {"4": 0.5, "5": 1.0}
    assert samples.weights == [weight_of[c.answer] for c in samples.candidates]
    assert (await harness.draw(n=4, name="plain")).weights == [1.0] * 4


async def test_a_race_is_replayed_from_its_record(store):
    harness = Harness(store, QUICK_AND_SLOW)
    for width in (None, 3, 5):
        sample_set = await harness.draw(rule=Agreement(window=2), mode="race", width=width, name=f"w{width}")
        made = len(harness.model.made)
        again = await harness.draw(rule=Agreement(window=2), mode="race", width=width, name=f"w{width}")
        assert len(harness.model.made) == made
        assert again.completions == sample_set.completions
        assert again.cancelled == sample_set.cancelled
        assert again.stopped_early == sample_set.stopped_early
        assert again.num_requested == sample_set.num_requested


async def test_a_narrow_race_raises_a_backend_failure(store):
    def fail():
        raise BackendUnavailable("the engine is gone")

    harness = Harness(store, SCATTERED, step=fail)
    with pytest.raises(BackendUnavailable, match="is gone"):
        await harness.draw(rule=Beta(), mode="race", width=3)
    assert harness.model.running == 0


async def test_auto_races_where_tokens_cost_nothing(store):
    assert (await Harness(store, ALWAYS).draw(rule=Beta())).mode == "race"
    assert (await Harness(store, ALWAYS, price=1e-6).draw(rule=Beta(), name="p")).mode == "rounds"
    assert (await Harness(store, ALWAYS, price=None).draw(rule=Beta(), name="q")).mode == "rounds"


@pytest.mark.parametrize("width", [None, 3])
async def test_a_small_budget_is_spent_in_waves_and_never_overspent(store, width):
    harness = Harness(store, SCATTERED)
    sample_set = await harness.draw(
        n=16, max_tokens=40, budget=Budget(tokens=100), rule=Agreement(window=9), mode="race", width=width
    )
    assert sample_set.stopped == "budget"
    assert sample_set.candidates
    assert harness.run.ledger.usage().completion_tokens <= 100


async def test_failed_samples_neither_vote_nor_stop(store):
    harness = Harness(store, ALWAYS, failing=frozenset({0, 2}))
    sample_set = await harness.draw(n=6, rule=Beta(), mode="rounds")
    assert [f.sample_index for f in sample_set.failures] == [0, 2]
    assert len(sample_set.candidates) == 4
    assert harness.run.degraded == ["2 of 6 samples failed and did not vote"]
    with pytest.raises(InvalidResponse, match="every sample failed"):
        await Harness(store, ALWAYS, failing=frozenset(range(4))).draw(n=4, name="f", rule=Beta())


async def test_a_cancelled_race_leaves_nothing_running(store):
    hold = asyncio.Event()
    harness = Harness(store, QUICK_AND_SLOW, step=lambda: asyncio.ensure_future(hold.wait()))
    task = asyncio.create_task(harness.draw(rule=Beta(), mode="race"))
    await wait_until(lambda: harness.model.running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert harness.model.running == 0
    assert len(asyncio.all_tasks()) == 1


async def test_candidates_are_offered_as_they_come(store):
    lengths = []
    harness = Harness(store, SCATTERED)
    sample_set = await harness.draw(n=5, on_candidate=lambda candidates: lengths.append(len(candidates)))
    assert lengths == [1, 2, 3, 4, 5]
    assert len(harness.sink.of_type("candidate.added")) == len(sample_set.candidates) == 5
