"""The self-evaluation signal on a model whose every probability is known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.budget import Budget
from reason.core.errors import BudgetExceeded
from reason.core.types import Question
from reason.reasoning.prompts import GAP, truncate_middle
from reason.reasoning.self_evaluation import (
    TAIL_CHARS,
    EvaluationConfig,
    SelfEvaluator,
    evaluation_questions,
)
from support.scripted_model import END, ScriptedModel
from support.stored_runs import RunHarness

RESTART, RIGHT = evaluation_questions(unfinished=False)


def script_of(opinions, otherwise=(0.5, 0.5)):
    """Verdicts: by response, the chances of "Y" about (restart, right); the rest is "N"."""

    def script(text):
        _, _, conversation = text.partition("assistant: ")
        response, _, last_question = conversation.partition("\nuser: ")
        restart, right = opinions.get(response, otherwise)
        yes = restart if "new response be better?" in last_question else right
        return {"Y": yes, "N": 1 - yes}

    return script


def odds(p):
    return math.log(p / (1 - p))


@pytest.fixture
def harness(store):
    begun = set()

    async def make(model, *, name=None, budget=None, **evaluating):
        runs = RunHarness(store, model)
        runs.begun = begun
        question = Question(text="What is 2 + 2?")
        metered = await runs.begin(name or f"r{len(begun)}", strategy="x", question=question, budget=budget, seed=1)
        return SelfEvaluator(metered, question, runs.run, EvaluationConfig(**evaluating)), runs.run

    return make


def shown_prompts(model):
    """The prompts for which the model is asked for its next token, in batches."""
    batches, ask = [], model.next_token

    async def noted(prompts, top=20):
        batches.append(list(prompts))
        return await ask(prompts, top)

    model.next_token = noted
    return batches


async def test_both_logits_the_prior_and_their_sum(harness):
    model = ScriptedModel(script_of({"It is 4.": (0.2, 0.9), "It is 5.": (0.7, 0.6), "": (0.4, 0.8)}))
    evaluator, run = await harness(model)
    good, bad = await evaluator.evaluate(["It is 4.", "It is 5."])
    prior = (odds(0.8) - odds(0.4)) / 2
    assert (good.restart, good.right) == (pytest.approx(odds(0.2)), pytest.approx(odds(0.9)))
    assert good.u == pytest.approx((odds(0.9) - odds(0.2)) / 2)
    assert good.prior == pytest.approx(prior)
    assert good.v == pytest.approx(good.u - prior)
    assert good.q == pytest.approx(1 / (1 + math.exp(-good.v)))
    assert (good.coverage, good.calibrated, good.sampled) == (pytest.approx(1), False, False)
    assert bad.v == pytest.approx((odds(0.6) - odds(0.7)) / 2 - prior)
    assert run.ledger.usage().model_calls == 6
    assert run.ledger.usage().completion_tokens == 0


async def test_one_batch_and_the_empty_response_once_for_each_form(harness):
    model = ScriptedModel(lambda text: {"Y": 0.5, "N": 0.5})
    batches = shown_prompts(model)
    evaluator, _ = await harness(model)
    await evaluator.evaluate(["a", "b", "a", "c"])
    await evaluator.evaluate(["d"])
    await evaluator.evaluate(["d"], unfinished=True)
    assert [len(batch) for batch in batches] == [8, 2, 4]  # 3 different and the empty one; 1; 1 and the empty one
    restart, right = batches[0][:2]
    assert [m.role for m in restart.messages] == ["user", "assistant", "user"]
    assert [m.content for m in right.messages] == ["What is 2 + 2?", "a", RIGHT]
    assert restart.messages[2].content == RESTART
    assert all("incomplete" in p.messages[2].content for p in batches[2])
    assert all(p.prefix == "Answer:" for batch in batches for p in batch)


async def test_swapping_yes_and_no_negates_the_score_before_the_prior(harness):
    opinions = {"It is 4.": (0.2, 0.9), "": (0.4, 0.8)}
    plain, _ = await harness(ScriptedModel(script_of(opinions)))
    swapped, _ = await harness(ScriptedModel(script_of(opinions)), words=("No", "Yes"))
    (one,), (other,) = await plain.evaluate(["It is 4."]), await swapped.evaluate(["It is 4."])
    assert other.u == -one.u != 0
    assert (other.restart, other.right) == (-one.restart, -one.right)


@pytest.mark.parametrize(("alpha", "beta", "calibrated"), [(-2.0, 0.5, True), (1.0, 3.0, True), (0.0, 1.0, False)])
async def test_calibration_keeps_the_order(harness, alpha, beta, calibrated):
    opinions = {"a": (0.3, 0.9), "b": (0.6, 0.5), "c": (0.01, 0.99), "d": (0.8, 0.7)}
    raw, fitted = [
        await (await harness(ScriptedModel(script_of(opinions)), **fit))[0].evaluate([*opinions])
        for fit in ({}, {"alpha": alpha, "beta": beta})
    ]
    assert [e.v for e in fitted] == [e.v for e in raw]
    assert [e.q for e in fitted] == pytest.approx([1 / (1 + math.exp(-(alpha + beta * e.v))) for e in raw])
    assert all(e.calibrated == calibrated for e in fitted)
    assert sorted(range(4), key=lambda i: fitted[i].q) == sorted(range(4), key=lambda i: raw[i].v)


async def test_without_a_verdict_there_is_no_signal(harness):
    def script(text):
        return {"H": 0.6, "Y": 0.3, "N": 0.1} if "vague" in text else {"Y": 0.6, "N": 0.4}

    evaluator, _ = await harness(ScriptedModel(script))
    vague, empty, clear = await evaluator.evaluate(["vague", " \n", "clear"])
    assert (vague, empty) == (None, None)
    assert clear.coverage == pytest.approx(1)


async def test_a_prior_without_a_verdict_is_not_taken_away(harness):
    def script(text):
        return {"Y": 0.8, "N": 0.2} if "It is 4." in text else {"T": 1.0}

    evaluator, _ = await harness(ScriptedModel(script))
    (made,) = await evaluator.evaluate(["It is 4."])
    assert (made.prior, made.v) == (None, made.u)


async def test_thoughts_are_not_shown_and_a_long_one_only_by_its_end(harness):
    model = ScriptedModel(lambda text: {"Y": 0.5, "N": 0.5})
    batches = shown_prompts(model)
    evaluator, _ = await harness(model)
    thought = "<think>" + "x" * 5000
    await evaluator.evaluate(["<think>hm</think>It is 4.", thought])
    shown = [p.messages[1].content for p in batches[0]]
    assert shown[0] == "It is 4."
    assert shown[2] == thought[-TAIL_CHARS:]


async def test_a_response_that_does_not_fit_loses_its_middle_and_replays_so(harness):
    model = ScriptedModel(lambda text: {"Y": 0.5, "N": 0.5}, context_tokens=400)
    batches = shown_prompts(model)
    evaluator, run = await harness(model)
    (made,) = await evaluator.evaluate(["a" * 300 + "b" * 300])
    assert made is not None
    for prompt in batches[0][:2]:
        assert model.count_tokens(prompt) == 400 - 4  # room for the verdict, and not a character less
        shown = prompt.messages[1].content
        assert shown.startswith("aaa")
        assert GAP in shown
        assert shown.endswith("bbb")
    before = len(batches)
    model.count_tokens = lambda prompt: None  # as in a replay
    again, _ = await harness(model, name=run.id)
    assert await again.evaluate(["a" * 300 + "b" * 300]) == [made]
    assert len(batches) == before


async def test_a_question_that_fills_the_context_leaves_no_signal(harness):
    evaluator, _ = await harness(ScriptedModel(lambda text: {"Y": 1.0}, context_tokens=60))
    assert await evaluator.evaluate(["It is 4."]) == [None]


async def test_an_exhausted_budget_is_reported(harness):
    evaluator, _ = await harness(ScriptedModel(lambda text: {"Y": 0.5, "N": 0.5}), budget=Budget(calls=3))
    with pytest.raises(BudgetExceeded):
        await evaluator.evaluate(["It is 4."])


async def test_verdicts_are_sampled_where_no_distribution_is_shown(harness, monkeypatch):
    def script(text):
        written = text.rpartition("assistant: Answer:")[2]
        word = "no" if RESTART in text else "Yes."
        return {word[len(written)]: 1.0} if len(written) < len(word) else {END: 1.0}

    model = ScriptedModel(script)
    can = model.capabilities.model_copy(update={"top_logprobs": 4})
    monkeypatch.setattr(ScriptedModel, "capabilities", can)
    evaluator, run = await harness(model)
    (made,) = await evaluator.evaluate(["It is 4."])
    expected = math.log(8.5 / 0.5)
    assert (made.restart, made.right) == (pytest.approx(-expected), pytest.approx(expected))
    assert (made.sampled, made.prior, made.coverage) == (True, None, 1.0)
    assert made.v == pytest.approx(expected)
    assert [len(r.indices) for (r1, r2) in model.generate_calls for r in (r1, r2)] == [8, 8]
    assert run.ledger.usage().model_calls == 2


@given(st.text(max_size=200), st.integers(len(GAP), 220))
def test_a_shortened_text_keeps_its_ends(text, most):
    short = truncate_middle(text, most)
    assert len(short) == min(len(text), most)
    if len(text) > most:
        start, _, end = short.partition(GAP)
        assert text.startswith(start) or GAP in text
        assert text.endswith(end) or GAP in text
