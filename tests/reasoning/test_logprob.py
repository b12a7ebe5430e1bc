"""The strategy `logprob` on a model whose every probability is known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.budget import Budget
from reason.core.errors import UserError
from reason.core.types import Document, Question
from reason.reasoning.logprob import LogProb, softmax
from reason.reasoning.strategy import create_strategy
from support.scripted_model import END, ScriptedModel
from support.stored_runs import RunHarness

CHANCES = {"north": 0.2, "southward": 0.5, "up": 0.3}


def words(text):
    """After "A:", a space and one of three words, with fixed probabilities for any prompt."""
    written = text.rpartition("A:")[2]
    if not written:
        return {" ": 1.0}
    left = {w + END: p for w, p in CHANCES.items() if (w + END).startswith(written[1:])}
    total = sum(left.values())
    chances = {}
    for word, p in left.items():
        chances[word[len(written) - 1]] = chances.get(word[len(written) - 1], 0.0) + p / total
    return chances or {END: 1.0}


@pytest.fixture
def harness(store):
    return RunHarness(store, ScriptedModel(words))


async def choose(harness, choices=("north", "southward", "up"), **parameters):
    return await harness.solve("logprob", Question(text="Where?", choices=choices), **parameters)


async def test_the_likeliest_choice_is_the_answer_and_its_share_the_confidence(harness):
    solution = await choose(harness)
    assert (solution.best.answer, solution.best.text) == ("B", "southward")
    assert solution.confidence == pytest.approx(0.5, abs=1e-12)
    assert [c.answer for c in solution.candidates] == ["A", "B", "C"]
    assert [math.exp(c.logprob) for c in solution.candidates] == pytest.approx([0.2, 0.5, 0.3])
    assert (harness.spent.model_calls, harness.spent.completion_tokens) == (1, 0)
    assert harness.model.generate_calls == []


@pytest.mark.parametrize(
    ("per", "scores"),
    [
        ("choice", [math.log(0.2), math.log(0.5), math.log(0.3)]),
        ("token", [math.log(0.2) / 6, math.log(0.5) / 10, math.log(0.3) / 3]),  # a token is a character, blank included
        ("character", [math.log(0.2) / 5, math.log(0.5) / 9, math.log(0.3) / 2]),
    ],
)
async def test_length_normalisation(harness, per, scores):
    solution = await choose(harness, per=per)
    assert [c.score for c in solution.candidates] == pytest.approx(scores)
    assert [c.logprob for c in solution.candidates] == pytest.approx([math.log(p) for p in (0.2, 0.5, 0.3)])
    assert solution.best.answer == "ABC"[max(range(3), key=scores.__getitem__)]
    assert solution.confidence == pytest.approx(max(softmax(scores)))


async def test_of_equal_choices_the_first_is_the_answer(harness):
    solution = await choose(harness, ("nowhere", "elsewhere", "up there"))
    assert (solution.best.answer, solution.confidence) == ("A", pytest.approx(1 / 3))
    assert [c.logprob for c in solution.candidates] == [-math.inf] * 3
    solution = await choose(harness, ("elsewhere", "north"), name="other")
    assert (solution.best.answer, solution.confidence) == ("B", 1.0)


async def test_a_budget_without_a_call_left_gives_no_answer(harness):
    solution = await choose(harness, budget=Budget(seconds=1e-9))
    assert (solution.best, solution.stopped, solution.candidates) == (None, "budget", ())


async def test_what_cannot_be_done_is_refused(harness):
    with pytest.raises(UserError, match="needs a question with choices"):
        await choose(harness, ())
    for prompt in ("poem", "{question} {question}"):
        with pytest.raises(UserError, match="unknown logprob prompt"):
            create_strategy("logprob", {"prompt": prompt})
    assert "scoring" in LogProb.requires


def spoken(question, **config):
    return LogProb(LogProb.Config(**config)).prompt_and_continuations(question)


def test_what_is_put_to_the_model():
    question = Question(text="Which {way}?", choices=("x", "y"), documents=(Document(name="d", text="T"),))
    prompt, texts = spoken(question)
    assert prompt.text == "Document «d»:\nT\n\nQ: Which {way}?\nA:"
    assert texts == [" x", " y"]
    prompt, texts = spoken(question, choices_as="letter")
    assert prompt.text.endswith("Q: Which {way}?\nA) x\nB) y\nA:")
    assert texts == [" A", " B"]
    prompt, texts = spoken(question, prompt="{question} It is ")
    assert prompt.text.endswith("Which {way}? It is ")
    assert texts == ["x", "y"]
    prompt, texts = spoken(question, prompt="chat", system="S")
    assert [m.role for m in prompt.messages] == ["system", "user"]
    assert "A)" not in prompt.messages[1].content
    assert texts == ["x", "y"]
    prompt, texts = spoken(question, prompt="chat", choices_as="letter")
    assert "A) x\nB) y" in prompt.messages[0].content
    assert texts == ["A", "B"]


@given(st.lists(st.floats(-1e6, 0) | st.just(-math.inf), min_size=1, max_size=30))
def test_shares_sum_to_one_and_keep_the_order(scores):
    shares = softmax(scores)
    assert math.fsum(shares) == pytest.approx(1, abs=1e-12)
    for a, p in zip(scores, shares, strict=True):
        for b, q in zip(scores, shares, strict=True):
            assert p >= q or a < b
