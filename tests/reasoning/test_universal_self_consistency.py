"""`universal-self-consistency` on the scripted model, and the parsing of its choice."""

import math
import re

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.reasoner import Reasoner
from reason.core.errors import InvalidResponse
from reason.core.events import MemorySink
from reason.core.messages import Completion, TopToken
from reason.core.settings import Settings
from reason.core.types import Question
from reason.reasoning.prompts import GAP
from reason.reasoning.voting.universal_self_consistency import (
    CHOICE_PREFIX,
    ResponseChoice,
    comparison_prompt,
    parse_choice,
)
from support.scripted_model import END, ScriptedModel, replies

CHAINS = ("It lies there. The answer is Paris.", "The answer is Lyon.", "Paris it is. The answer is Paris.")
QUESTION = Question(text="What is the capital of France?")


def choosing(numbers, chains=CHAINS, weights=None):
    """Chains for the question, and for the comparison one of the numbers, each with its chance."""
    written, named = (
        replies(*chains, weights=weights),
        replies(*(f" {n}." for n in numbers), weights=[*numbers.values()]),
    )

    def script(text):
        return (
            named(text.replace("assistant: " + CHOICE_PREFIX, "assistant: "))
            if "independently" in text
            else written(text)
        )

    return script


@pytest.fixture
def settings(tmp_path):
    return Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5)


@pytest.fixture
def clients(monkeypatch):
    models = {}

    async def load_model(name, settings, *_):
        return models["model"]

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return models


async def ask(settings, *, budget=None, replay=True, **parameters):
    sink = MemorySink()
    parameters = {"n": 4, "max_tokens": 60, **parameters}
    async with Reasoner(
        strategy="universal-self-consistency", parameters=parameters, settings=settings, budget=budget
    ) as reasoner:
        answer = await reasoner.aask(QUESTION, sinks=[sink])
        if replay:
            again = await reasoner.areplay(answer.run_id)
            assert again.model_dump(exclude={"usage"}) == answer.model_dump(exclude={"usage"})
    return answer, sink


def chosen_by(sink):
    (note,) = [e for e in sink.of_type("strategy.note") if e.name == "response.chosen"]
    return note.data


async def test_the_model_names_a_response_and_its_share_is_the_confidence(clients, settings):
    clients["model"] = model = ScriptedModel(choosing({3: 0.5, 1: 0.25, 2: 0.05, 9: 0.2}))
    answer, sink = await ask(settings)
    assert answer.text == answer.candidates[2].text
    assert answer.confidence == pytest.approx(0.5 / 0.8)  # 9 is no response
    assert answer.usage.model_calls == 2
    assert (answer.degraded, answer.stopped) == ((), "done")
    assert chosen_by(sink) == {"index": 2, "chosen_by": "model"}
    request = model.generate_calls[1][0]
    assert (request.sampling.default_temperature, request.prompt.prefix) == (0, CHOICE_PREFIX)
    shown = request.prompt.messages[-1].content
    for i, candidate in enumerate(answer.candidates, 1):
        assert f"Response {i}:\n{candidate.text}" in shown
    assert shown.startswith(QUESTION.text)


async def test_a_choice_that_names_no_response_falls_back_to_the_majority(clients, settings):
    clients["model"] = ScriptedModel(choosing({17: 1.0}, weights=[1, 8, 1]))
    answer, sink = await ask(settings, n=6)
    share = sum(c.answer == "Lyon" for c in answer.candidates) / 6
    assert (answer.answer, answer.confidence) == ("Lyon", pytest.approx(share))
    assert answer.degraded == ("the model named no most consistent response; the answer of the majority was taken",)
    assert chosen_by(sink)["chosen_by"] == "majority"


async def test_where_there_is_no_answer_either_the_first_is_taken(clients, settings):
    clients["model"] = ScriptedModel(choosing({0: 1.0}, chains=("", " ")))
    answer, sink = await ask(settings)
    assert (answer.text, answer.confidence) == (answer.candidates[0].text, None)
    assert "the first response was taken" in answer.degraded[0]
    assert chosen_by(sink) == {"index": 0, "chosen_by": "first"}


async def test_one_response_is_not_compared(clients, settings):
    clients["model"] = ScriptedModel(choosing({1: 1.0}))
    answer, _ = await ask(settings, n=1)
    assert (answer.usage.model_calls, answer.confidence) == (1, None)


async def test_without_a_prefix_the_complete_form_is_parsed(clients, settings, monkeypatch):
    def script(text):
        return replies(CHOICE_PREFIX + " 2")(text) if "independently" in text else replies(*CHAINS)(text)

    clients["model"] = model = ScriptedModel(script)
    can = model.capabilities.model_copy(update={"prefix": False, "top_logprobs": 0})
    monkeypatch.setattr(ScriptedModel, "capabilities", can)
    answer, _ = await ask(settings)
    assert (answer.text, answer.confidence) == (answer.candidates[1].text, None)
    assert model.generate_calls[1][0].prompt.prefix == ""


async def test_responses_that_do_not_fit_lose_their_middle(clients, settings):
    long = "Because " + "x" * 300 + " the answer is Paris."
    clients["model"] = model = ScriptedModel(
        choosing({2: 1.0}, chains=(long, "The answer is Lyon."), weights=[2, 1]), context_tokens=900
    )
    answer, _ = await ask(settings, n=6, max_tokens=400)
    assert sum(c.text == long for c in answer.candidates) > 1
    request = model.generate_calls[1][0]
    assert model.count_tokens(request.prompt) + request.sampling.max_tokens <= 900
    shown = request.prompt.messages[-1].content
    assert "The answer is Lyon." in shown
    assert GAP in shown
    parts = re.findall(r"Response \d:\n(.*?)\n\n(?=Response \d:|Compare)", shown, re.DOTALL)
    lengths = {len(part) for part in parts if GAP in part}
    assert len(lengths) == 1  # all to the same length
    assert answer.degraded == (
        f"the responses do not fit the model's context: they were truncated to {lengths.pop()} characters each",
    )
    assert answer.text == answer.candidates[1].text


async def test_a_question_that_fills_the_context_leaves_it_to_the_majority(clients, settings):
    clients["model"] = ScriptedModel(choosing({1: 1.0}), context_tokens=240)
    answer, _ = await ask(settings)
    assert answer.answer is not None
    assert answer.degraded[-1].startswith("the model named no most consistent response")


async def test_spent_budgets(clients, settings):
    clients["model"] = ScriptedModel(choosing({1: 1.0}, weights=[1, 8, 1]))
    answer, _ = await ask(settings, n=6, budget={"calls": 1})
    assert (answer.answer, answer.stopped, answer.usage.model_calls) == ("Lyon", "budget", 1)
    answer, _ = await ask(settings, n=6, budget={"tokens": 70})
    assert answer.stopped == "budget"
    assert answer.candidates
    answer, _ = await ask(settings, budget={"seconds": 1e-9}, replay=False)
    assert (answer.answer, answer.stopped) == (None, "budget")


async def test_failures(clients, settings):
    clients["model"] = model = ScriptedModel(choosing({1: 1.0}))
    model._failing = frozenset({1})
    answer, _ = await ask(settings, replay=False)
    assert len(answer.candidates) == 3
    model._failing = frozenset(range(9))
    with pytest.raises(InvalidResponse):
        await ask(settings)


def reply(text, *tops):
    """A greedy completion, token by token with the alternatives at each."""
    shown = tuple(
        tuple(TopToken(token_id=hash(t) % 1000, token=t, logprob=math.log(p)) for t, p in top.items()) for top in tops
    )
    return Completion(
        text=text, finish_reason="stop", token_ids=tuple(top[0].token_id for top in shown), top_logprobs=shown or None
    )


@pytest.mark.parametrize(
    ("text", "opening", "expected"),
    [
        (" 3", CHOICE_PREFIX, 2),
        (": 12", CHOICE_PREFIX, 11),
        ("The most consistent response is Response 2.", "", 1),
        ("Response 1 and Response 4 agree. The most consistent response is **Response 4**", "", 3),
        ("Response #2", "", 1),
        ("I would say 2", "", 1),
        ("0", CHOICE_PREFIX, None),
        ("Response 13", "", None),
        ("The first one.", "", None),
        ("", CHOICE_PREFIX, None),
        ("99999999999999999999", CHOICE_PREFIX, None),
    ],
)
def test_choices_are_parsed(text, opening, expected):
    choice = parse_choice(reply(text), 12, opening)
    assert (None if choice is None else choice.index) == expected


def test_the_share_is_read_at_the_number():
    first = {" 2": 0.6, " 3": 0.2, "\u01201": 0.1, " the": 0.1}
    assert parse_choice(reply(" 2", first), 3, CHOICE_PREFIX) == ResponseChoice(1, pytest.approx(0.6 / 0.9))
    tokens = ({"Of": 1.0}, {" 2": 1.0}, {" Response": 1.0}, {" ": 1.0}, {"2": 0.5, "1": 0.5})
    assert parse_choice(reply("Of 2 Response 2", *tokens), 3) == ResponseChoice(1, pytest.approx(0.5))
    assert parse_choice(reply(" 2", first), 10, CHOICE_PREFIX) == ResponseChoice(
        1, None
    )  # 2 may be the beginning of a larger number
    assert parse_choice(reply(" 2"), 3, CHOICE_PREFIX) == ResponseChoice(1, None)


def test_the_comparison_is_numbered_from_one():
    prompt = comparison_prompt(Question(text="Q?", choices=("a", "b")), ["x", "y"], system="S", prefix="O")
    assert [m.role for m in prompt.messages] == ["system", "user"]
    assert "A) a\nB) b" in prompt.messages[1].content
    assert "Response 1:\nx\n\nResponse 2:\ny" in prompt.messages[1].content
    assert prompt.prefix == "O"
    assert END not in prompt.messages[1].content
