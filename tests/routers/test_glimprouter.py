"""`glimprouter` on scripted models: who writes what, what is asked, what is booked, and what the budget does to it."""

import asyncio
import json
import math

import pytest
from reason.core.budget import Budget
from reason.core.errors import BackendUnavailable, CapabilityMissing, UserError
from reason.core.messages import Thought
from reason.core.types import Solution
from reason.reasoning.conclude import conclude_run
from reason.reasoning.prompts import answer_trigger, question_prompt, steps_instruction
from reason.reasoning.strategy import create_strategy
from support.scripted_model import THINKS, ScriptedModel, replies, thinking
from support.two_models import QUESTION, Probed, TwoModels, booked, chain, entropy_after, texts


@pytest.fixture
def harness(store):
    return TwoModels(store)


def probes_of(model):
    return [
        r for call in model.generate_calls for r in call if (r.sampling.thinking_tokens or r.sampling.max_tokens) == 1
    ]


def steps_of(model):
    return [r for call in model.generate_calls for r in call if r.sampling.stop == ("\n\n",)]


async def test_extreme_thresholds_route_all_or_no_steps(harness):
    for who, threshold, share in (("large", 0, 1), ("small", math.log(50_000), 0)):
        notes = (await harness.solve(who, threshold=threshold)).notes
        assert notes["writers"] == [who] * notes["steps"]
        assert notes["intervention_rate"] == notes["large_share"] == share
    assert (notes["handovers"], notes["steps"]) == (0, 5)


async def test_first_token_entropy_decides(harness):
    made = await harness.solve(threshold=0.5)
    steps = [s.text for s in made.best.steps]
    for i, (who, entropy) in enumerate(zip(made.notes["writers"], made.notes["entropies"], strict=True)):
        assert entropy == pytest.approx(0 if i == 4 else entropy_after(0, steps[:i]))
        assert who == ("large" if entropy >= 0.5 else "small")
        assert steps[i].endswith(f"of {who}.") or i == 4
        assert made.best.steps[i].scores == {"entropy": entropy}
    assert set(made.notes["writers"]) == {"large", "small"}
    assert (made.notes["entropy_kind"], made.notes["k"], made.notes["ended"]) == ("top_k", 20, "answer")
    assert made.notes["masses"] == pytest.approx([1] * made.notes["steps"])
    assert made.best.answer == "4"


@pytest.mark.parametrize("think", [False, True])
async def test_probe_does_not_change_the_step_request(harness, think):
    if think:
        harness.think()
    made = await harness.solve(threshold=0.5)
    base = question_prompt(QUESTION, steps_instruction(QUESTION))

    def prompt_after(context):
        return base.with_thought(Thought(text=context, closed=False)) if think else base.with_prefix(context)

    steps = [s.text for s in made.best.steps]
    contexts = ["".join(s + "\n\n" for s in steps[:i]) for i in range(len(steps))]
    assert [p.prompt for p in probes_of(harness.small)] == [prompt_after(c) for c in contexts]
    asked = [(m, r.prompt) for m in (harness.small, harness.large) for r in steps_of(m)]
    for who, context in zip(made.notes["writers"], contexts, strict=True):
        model = harness.large if who == "large" else harness.small
        assert (model, prompt_after(context)) in asked


@pytest.mark.parametrize(
    ("think", "given"), [(False, {}), (True, {}), (False, {"answer": "writer"}), (False, {"max_step_tokens": 5})]
)
async def test_token_accounting_adds_up_to_the_ledger(harness, think, given):
    if think:
        harness.think()
    for name, threshold in (("a", 0), ("b", 0.5), ("c", 1e9)):
        made = await harness.solve(name, threshold=threshold, **given)
        assert booked(made) == harness.generated()
        rows = harness.spent.by_role
        assert sum(n for *_, n in made.notes["calls"]) == harness.spent.completion_tokens
        assert len(made.notes["calls"]) == sum(row.model_calls for row in rows.values())
        for who in ("large", "small"):
            assert made.notes["computed"][who] == sum(c for w, _, c, _ in made.notes["calls"] if w == who)
        kept = sum(row["steps"] + row["answer"] for row in made.notes["tokens"].values())
        assert made.best.tokens == kept


async def test_truncated_step_continues_with_the_same_model(harness):
    whole = await harness.solve("a", threshold=0.5)
    pieces = await harness.solve("b", threshold=0.5, max_step_tokens=4)
    assert texts(pieces) == texts(whole)
    assert len(probes_of(harness.small)) == 2 * whole.notes["steps"]


async def test_leading_blank_lines_are_dropped_and_an_empty_step_ends_thinking(harness):
    told = {"": "one.\n\n", "one.\n\n": "\ntwo.\n\n", "one.\n\ntwo.\n\n": "\n\n"}

    def script(text):
        written = text.rpartition("assistant: ")[2]
        if "Therefore" in written:
            return {"4": 1.0}
        context = max((c for c in told if written.startswith(c)), key=len)
        return {told[context][len(written) - len(context)]: 1.0}

    harness.small = ScriptedModel(script, name="small")
    made = await harness.solve(policy="small", answer="writer", max_step_tokens=30)
    assert [s.text for s in made.best.steps] == ["one.", "two."]
    assert made.notes["ended"] == "empty"
    assert [r.indices for r in steps_of(harness.small)[-2:]] == [(0,), (1,)]  # asked once more
    assert booked(made) == harness.generated()


async def test_end_of_text_ends_thinking_and_the_answer_is_requested(harness):
    harness.small = ScriptedModel(replies("one.\n\nand that is it."), name="small")
    made = await harness.solve(threshold=1e9)
    assert (made.notes["ended"], made.notes["steps"]) == ("end", 2)
    assert made.best.text == f"one.\n\nand that is it.\n\n{answer_trigger(QUESTION)} 4"
    assert made.best.answer == "4"
    assert made.notes["tokens"]["large"]["answer"] == 3


async def test_model_of_the_answer(harness):
    await harness.solve("a", threshold=1e9, answer="writer")
    assert harness.large.generate_calls == []
    by_large = await harness.solve("b", threshold=1e9)
    assert len(harness.large.generate_calls) == 1
    assert by_large.best.answer == "4"
    stated = await harness.solve("c", policy="large")
    assert stated.notes["tokens"]["large"]["answer"] == 0
    assert stated.notes["tokens"]["small"] == dict.fromkeys(stated.notes["tokens"]["small"], 0)


async def test_steps_are_those_of_the_thought_and_the_answer_follows_it(harness):
    harness.think()
    made = await harness.solve(threshold=1e9)
    assert made.notes["ended"] == "closed"
    assert [s.text for s in made.best.steps][-1] == "The answer is 4."  # in a thought it is no answer
    assert made.best.text == "The answer is 4."
    assert made.best.thought == "\n\n".join(s.text for s in made.best.steps)
    # the request that closes the thought also samples the first token of an answer, which is discarded
    assert (made.best.answer, made.best.thinking_tokens) == ("4", made.notes["tokens"]["small"]["steps"] - 1)
    (asked,) = [r for call in harness.large.generate_calls for r in call]
    assert asked.prompt.thought == Thought(text=made.best.thought, closed=True)
    assert (asked.sampling.max_tokens, asked.sampling.thinking_tokens) == (2048, 0)
    assert (asked.sampling.temperature, asked.sampling.default_temperature) == (None, 0.6)
    assert harness.spent.thinking_tokens == made.best.thinking_tokens + made.notes["tokens"]["small"]["probes"]
    assert harness.run.degraded == []


async def test_entropies_are_those_of_first_tokens_of_steps_of_the_thought(harness):
    """Never of the tag that opens it, whose entropy is 0."""
    harness.think()
    made = await harness.solve(threshold=0.5)
    steps = [s.text for s in made.best.steps]
    expected = [entropy_after(0, steps[:i]) for i in range(4)]
    assert made.notes["entropies"][:4] == pytest.approx(expected)
    assert max(expected) > 0.5
    assert len(set(made.notes["writers"])) == 2


async def test_a_stated_answer_does_not_end_a_thought(harness):
    harness.small = ScriptedModel(
        thinking("The answer is 3.\n\nNo: 4.\n\nYes.", "The answer is 4."), name="small", profile=THINKS
    )
    harness.large = ScriptedModel(thinking("", "The answer is 4."), name="large", profile=THINKS)
    made = await harness.solve(threshold=1e9)
    assert [s.text for s in made.best.steps] == ["The answer is 3.", "No: 4.", "Yes."]
    assert made.best.answer == "4"


async def test_without_effort_models_that_think_write_steps_of_text(harness):
    harness.think()
    made = await harness.solve(threshold=0.5, effort="none")
    assert made.notes["ended"] == "answer"
    assert made.best.thinking_tokens == harness.spent.thinking_tokens == 0


async def test_thinking_tokens_of_the_run_bound_all_steps(harness):
    harness.think()
    made = await harness.solve(threshold=0.5, effort_tokens=20)
    assert (made.notes["ended"], made.notes["steps"], made.best.answer) == ("tokens", 2, "4")


async def test_an_answer_that_is_wanted_now_is_not_read_from_the_thought_but_can_follow_it(harness):
    harness.think()
    written = []

    def conclude_after_two_steps():
        written.append(1)
        if len(written) == 32:
            harness.run.conclude()

    harness.small._step = conclude_after_two_steps
    made = await harness.solve(policy="small")
    assert (made.best.answer, made.best.text, made.stopped) == (None, "", "budget")
    assert made.best.thought.startswith("a0 of small.\n\nb1 of small.\n\n")
    partial = max((c for _, c in harness.run.partial_completions), key=lambda c: len(c.thought.text))
    assert partial.thought.text.strip() == made.best.thought
    concluded = await conclude_run(made, QUESTION, harness.models.small, harness.run)
    assert (concluded.best.answer, concluded.stopped) == ("4", "user")


async def test_most_exact_entropy_is_selected(harness):
    harness.small = Probed(chain("small"), name="small")
    made = await harness.solve(threshold=0.5)
    assert made.notes["entropy_kind"] == "full"
    assert made.notes["masses"] == pytest.approx([1] * made.notes["steps"])
    steps = [s.text for s in made.best.steps]
    assert made.notes["entropies"][:4] == pytest.approx([entropy_after(0, steps[:i]) for i in range(4)])


async def test_without_logprobs_first_tokens_are_sampled(harness):
    harness.small = ScriptedModel(chain("small"), name="small", changed={"top_logprobs": 0})
    made = await harness.solve(threshold=0.5)
    assert (made.notes["entropy_kind"], made.notes["k"]) == ("sampled", 8)
    assert made.notes["masses"] == [None] * made.notes["steps"]
    assert any("entropy=sampled(8)" in what for what in harness.run.degraded)
    first = probes_of(harness.small)[0]
    assert (first.sampling.temperature, first.indices) == (1.0, tuple(range(8)))
    assert made.notes["tokens"]["small"]["probes"] == 8 * made.notes["steps"]
    assert booked(made) == harness.generated()


async def test_default_threshold_is_compared_with_the_entropies_that_it_is_of(harness):
    harness.small = Probed(chain("small"), name="small")
    made = await harness.solve("a")
    assert (made.notes["entropy_kind"], made.notes["threshold"]) == ("top_k", 1.0)
    assert not any("threshold" in what for what in harness.run.degraded)
    assert (await harness.solve("b", threshold=1.0)).notes["entropy_kind"] == "full"


@pytest.mark.parametrize(("kind", "scale"), [("full", "full-vocabulary"), ("sampled", "8-sample")])
async def test_default_threshold_on_another_scale_is_reported(harness, kind, scale):
    harness.small = Probed(chain("small"), name="small")
    await harness.solve("a", entropy=kind)
    (note,) = [what for what in harness.run.degraded if what.startswith("threshold=1")]
    assert f"the default is of top-20 entropies, and those of this run are {scale} ones" in note
    await harness.solve("b", entropy=kind, threshold=1.0)
    assert not any(what.startswith("threshold=1") for what in harness.run.degraded)


@pytest.mark.parametrize("kind", ["full", "top_k"])
async def test_unavailable_entropy_is_rejected(harness, kind):
    harness.small = ScriptedModel(chain("small"), name="small", changed={"top_logprobs": 5})
    with pytest.raises(CapabilityMissing):
        await harness.solve(entropy=kind)


async def test_problem_is_routed_as_a_unit_without_prefix_support(harness):
    harness.small = ScriptedModel(chain("small"), name="small", changed={"prefix": False})
    hard = await harness.solve("a", threshold=0)
    assert (hard.notes["granularity"], hard.notes["ended"], hard.notes["writers"]) == ("problem", "whole", ["large"])
    assert any("complete responses were routed" in what for what in harness.run.degraded)
    assert hard.best.answer == "4"
    assert hard.best.text.count(" of large.") == 4
    easy = await harness.solve("b", threshold=1e9)
    assert easy.notes["writers"] == ["small"]
    assert harness.generated()["large"] == 0
    assert booked(easy) == harness.generated()


async def test_random_policy_has_its_rate_and_is_seeded(harness):
    harness.small = ScriptedModel(chain("small", steps=60), name="small")
    harness.large = ScriptedModel(chain("large", steps=60), name="large")
    made = await harness.solve("a", policy="random", rate=0.3)
    assert 0.15 < made.notes["intervention_rate"] < 0.45
    assert made.notes["entropies"] == [None] * 61
    again = await harness.solve("b", policy="random", rate=0.3)
    assert again == made
    assert probes_of(harness.small) == []


async def test_steps_are_emitted_as_events(harness):
    made = await harness.solve(threshold=0.5)
    told = harness.sink.of_type("step.routed")
    assert [e.index for e in told] == list(range(made.notes["steps"]))
    assert [e.role for e in told] == ["main" if w == "large" else "small" for w in made.notes["writers"]]
    assert [e.entropy for e in told] == made.notes["entropies"]
    assert {(e.threshold, e.kind, e.reason) for e in told} == {(0.5, "top_k", "entropy")}
    assert sum(e.tokens for e in told) == sum(row["steps"] for row in made.notes["tokens"].values())


# -- budgets, replays, cancelling


@pytest.mark.parametrize("think", [False, True])
async def test_token_budgets_hold_and_replay(harness, think, monkeypatch):
    monkeypatch.setattr("reason.routers.glimprouter.ANSWER_TOKENS", 40)
    if think:
        harness.think()
    given = {"threshold": 0.5, "max_step_tokens": 40}
    for limit in (1, 2, 3, 9, 17, 47, 90, 200):
        made = await harness.solve(f"t{limit}", budget=Budget(tokens=limit), **given)
        assert harness.spent.completion_tokens <= limit
        assert booked(made) == harness.generated()
        assert made.stopped == ("budget" if made.chosen is None else made.stopped)
        again = await harness.solve(f"t{limit}", budget=Budget(tokens=limit), replay=True, **given)
        assert again == made
    assert made.stopped == "done"


async def test_time_is_reserved_for_the_answer(harness, clock):
    async def slowly():
        await asyncio.sleep(2)

    harness.small = ScriptedModel(chain("small", steps=300), name="small", step=slowly)
    harness.large = ScriptedModel(chain("large", steps=300), name="large", step=slowly)
    budget = Budget(seconds=100)
    made = await clock.run(harness.solve(threshold=0.5, budget=budget))
    assert (made.stopped, made.notes["ended"]) == ("budget", "budget")
    again = await harness.solve(threshold=0.5, budget=budget, replay=True)
    assert (texts(again) if again.best else None) == (texts(made) if made.best else None)


async def test_cancelled_run_keeps_its_steps_and_resumes(harness):
    steps = []
    going = asyncio.Event()

    def count():
        steps.append(1)
        if len(steps) == 60:
            going.set()

    harness.small._step = harness.large._step = count
    task = asyncio.ensure_future(harness.solve(threshold=0.5))
    await going.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    best = harness.run.best
    assert (best.stopped, bool(best.best.steps)) == ("cancelled", True)
    assert harness.small.running == harness.large.running == 0
    made = await harness.solve(threshold=0.5)
    whole = await harness.solve("whole", threshold=0.5)
    assert texts(made) == texts(whole)
    assert made.best.steps[: len(best.best.steps)] == best.best.steps
    assert Solution.model_validate(json.loads(made.model_dump_json())) == made


async def test_steps_before_a_failure_are_kept(harness):
    made_calls = []

    def fail():
        made_calls.append(1)
        if len(made_calls) > 40:
            raise BackendUnavailable("gone")

    harness.small._step = fail
    made = await harness.solve(threshold=1e9)
    assert (made.notes["ended"], made.best.answer) == ("failed", "4")
    assert harness.run.degraded
    again = await harness.solve(threshold=1e9, replay=True)
    assert (texts(again), again.best) == (texts(made), made.best)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"policy": "random"}, "needs a rate"),
        ({"rate": 0.5}, "needs a router file"),
        ({"router": "x.json", "threshold": 1}, "either a threshold or a router file"),
        ({"router": "x.json", "policy": "small"}, "takes no router file"),
        ({"threshold": math.inf}, "finite"),
        ({"threshold": -1}, "greater than or equal"),
    ],
)
def test_contradictory_parameters_are_rejected(given, said):
    with pytest.raises(UserError, match=said):
        create_strategy("glimprouter", given)
