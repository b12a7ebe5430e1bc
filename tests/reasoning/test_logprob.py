"""The strategy `logprob` on a model whose every probability is known."""

import math

import pytest
import reason.agents.reasoner as reasoner_module
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from reason.agents.reasoner import Reasoner
from reason.core.errors import CapabilityMissing, UserError
from reason.core.settings import Settings
from reason.core.types import Document, Question
from reason.reasoning.logprob import PROMPTS, LogProb, softmax
from reason.reasoning.strategy import create_strategy
from support.scripted_model import END, ScriptedModel

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
def model(monkeypatch):
    scripted = ScriptedModel(words)
    requests = []
    score = scripted.score

    async def noted(prompt, continuations):
        requests.append((prompt, list(continuations)))
        return await score(prompt, continuations)

    async def load_model(name, settings, *_):
        return scripted

    monkeypatch.setattr(scripted, "score", noted)
    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    scripted.requests = requests
    return scripted


@pytest.fixture
def settings(tmp_path):
    return Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5)


def choosing(settings, **parameters):
    budget = parameters.pop("budget", None)
    return Reasoner(strategy="logprob", parameters=parameters, settings=settings, budget=budget)


async def test_the_likeliest_choice_is_the_answer_and_its_share_the_confidence(model, settings):
    async with choosing(settings) as reasoner:
        answer = await reasoner.aask("Where?", choices=("north", "southward", "up"))
    assert answer.answer == "B"
    assert answer.text == "southward"
    assert answer.confidence == pytest.approx(0.5, abs=1e-12)
    assert [c.answer for c in answer.candidates] == ["A", "B", "C"]
    assert [math.exp(c.logprob) for c in answer.candidates] == pytest.approx([0.2, 0.5, 0.3])
    assert (answer.usage.model_calls, answer.usage.completion_tokens) == (1, 0)
    ((prompt, continuations),) = model.requests
    assert prompt.text == "Q: Where?\nA:"
    assert continuations == [" north", " southward", " up"]
    assert model.generate_calls == []


@pytest.mark.parametrize(
    ("per", "scores"),
    [
        ("choice", [math.log(0.2), math.log(0.5), math.log(0.3)]),
        ("token", [math.log(0.2) / 6, math.log(0.5) / 10, math.log(0.3) / 3]),  # a token is a character, blank included
        ("character", [math.log(0.2) / 5, math.log(0.5) / 9, math.log(0.3) / 2]),
    ],
)
async def test_length_normalisation(model, settings, per, scores):
    async with choosing(settings, per=per) as reasoner:
        answer = await reasoner.aask("Where?", choices=("north", "southward", "up"))
    assert [c.score for c in answer.candidates] == pytest.approx(scores)
    assert [c.logprob for c in answer.candidates] == pytest.approx([math.log(p) for p in (0.2, 0.5, 0.3)])
    assert answer.answer == "ABC"[max(range(3), key=scores.__getitem__)]
    assert answer.confidence == pytest.approx(max(softmax(scores)))


async def test_of_equal_choices_the_first_is_the_answer(model, settings):
    async with choosing(settings) as reasoner:
        answer = await reasoner.aask("Where?", choices=("nowhere", "elsewhere", "up there"))
        assert (answer.answer, answer.confidence) == ("A", pytest.approx(1 / 3))
        assert [c.logprob for c in answer.candidates] == [-math.inf] * 3
        answer = await reasoner.aask("Where?", choices=("elsewhere", "north"))
        assert (answer.answer, answer.confidence) == ("B", 1.0)


async def test_a_budget_without_a_call_left_gives_no_answer(model, settings):
    async with choosing(settings, budget={"calls": 1}) as reasoner:
        question = Question(text="Where?", choices=("north", "up"))
        answer = await reasoner.aask(question)
        assert answer.stopped == "done"
    async with choosing(settings, budget={"seconds": 1e-9}) as reasoner:
        answer = await reasoner.aask(question)
    assert (answer.answer, answer.stopped, answer.candidates) == (None, "budget", ())


async def test_what_cannot_be_done_is_refused(model, settings, monkeypatch):
    async with choosing(settings) as reasoner:
        with pytest.raises(UserError, match="needs a question with choices"):
            await reasoner.aask("Where?")
    for prompt in ("poem", "{question} {question}"):
        with pytest.raises(UserError, match="unknown logprob prompt"):
            create_strategy("logprob", {"prompt": prompt})
    able = model.capabilities.model_copy(update={"scoring": False})
    monkeypatch.setattr(ScriptedModel, "capabilities", able)
    async with choosing(settings) as reasoner:
        with pytest.raises(CapabilityMissing, match="scoring"):
            await reasoner.aask("Where?", choices=("north", "up"))


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


def test_the_preset_of_truthfulqa_has_six_examples_and_ends_with_the_question():
    prompt, _ = spoken(Question(text="Why?", choices=("x", "y")), prompt="truthfulqa")
    assert prompt.text.count("Q: ") == prompt.text.count("A:") == 7
    assert prompt.text.endswith("\n\nQ: Why?\nA:")
    assert set(PROMPTS) == {"qa", "truthfulqa"}


@given_settings(deadline=None)
@given(st.lists(st.floats(-1e6, 0) | st.just(-math.inf), min_size=1, max_size=30))
def test_shares_sum_to_one_and_keep_the_order(scores):
    shares = softmax(scores)
    assert math.fsum(shares) == pytest.approx(1, abs=1e-12)
    for a, p in zip(scores, shares, strict=True):
        for b, q in zip(scores, shares, strict=True):
            assert p >= q or a < b
