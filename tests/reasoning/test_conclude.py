"""The answer of samples that were cut while the model thought, and of runs that were stopped before they had one."""

import pytest
from reason.core.budget import Budget
from reason.core.messages import Completion, Prompt, Thought, Usage
from reason.core.run import Run
from reason.core.types import Candidate, Question, Solution
from reason.reasoning.conclude import (
    conclude,
    conclude_run,
    conclusion_request,
    no_answer_reason,
    with_conclusion,
)
from reason.serving.metered.model import MeteredModel
from reason.serving.profiles.profile import ModelProfile
from support.scripted_model import ALWAYS_THINKS, HIDES_THOUGHTS, THINKS, ScriptedModel, thinking
from support.stored_runs import run_config

QUESTION = Question(text="What is 2 + 2?", kind="number")
PROMPT = Prompt.user("What is 2 + 2?")
TRIGGER = "Therefore, the answer (a number) is"
NOTED = ALWAYS_THINKS.model_copy(update={"efforts": {"none": {}, "low": {}}, "thinks": "default"})


def adds(text):
    """Thinks long; after the answer trigger, or when there is no time left, it answers at once."""
    written = text.rpartition("assistant: ")[2]
    if written.endswith(TRIGGER) or (written == "<think></think>" and "no time left" in text):
        return {" ": 1.0}
    if written.endswith(" "):
        return {"4": 1.0}
    if written.endswith("4"):
        return {"\n": 1.0}
    return thinking("two and two, slowly", "x")(text)


@pytest.fixture
async def store(store):
    await store.create_run("r", {})
    return store


def a_run(store, **budget):
    return Run("r", run_config(question=QUESTION, budget=Budget(**budget), seed=1), store)


def model_in(run, profile=THINKS):
    """A model that thinks, metered, and its unmetered form."""
    model = ScriptedModel(adds, profile=profile)
    return MeteredModel(model, "main", run), model


def cut(thought="two and", tokens=8, text=""):
    usage = Usage(completion_tokens=tokens + len(text), thinking_tokens=tokens)
    shown = Thought(text=thought, tokens=tokens, closed=bool(text))
    return Completion(text=text, thought=shown, finish_reason="thinking", usage=usage)


def request_of(store, profile, partial, prompt=PROMPT):
    metered, model = model_in(a_run(store), profile)
    request = conclusion_request(metered, prompt, partial, QUESTION)
    return request, model.render(request.prompt, request.sampling.effort)


async def test_a_thought_that_can_be_continued_is_closed_and_the_answer_begun(store):
    request, shown = request_of(store, THINKS, cut())
    assert shown == f"user: What is 2 + 2?\nassistant: <think>two and</think>{TRIGGER}"
    assert (request.sampling.effort, request.sampling.max_tokens, request.sampling.stop) == ("none", 48, ("\n",))


async def test_an_answer_that_was_begun_is_kept(store):
    _, shown = request_of(store, THINKS, cut(text="It is "))
    assert shown == f"user: What is 2 + 2?\nassistant: <think>two and</think>It is\n\n{TRIGGER}"
    _, shown = request_of(store, ModelProfile(), Completion(text="It is ", finish_reason="budget"))
    assert shown == f"user: What is 2 + 2?\nassistant: It is\n\n{TRIGGER}"


async def test_a_prompts_open_thought_is_part_of_the_closed_one(store):
    inside = PROMPT.with_thought(Thought(text="two ", closed=False))
    _, shown = request_of(store, THINKS, cut("and"), inside)
    assert shown == f"user: What is 2 + 2?\nassistant: <think>two and</think>{TRIGGER}"


@pytest.mark.parametrize("profile", [NOTED, NOTED.model_copy(update={"prefix": "answer"})])
async def test_a_thought_that_cannot_be_continued_is_quoted(store, profile):
    request, shown = request_of(store, profile, cut())
    assert "Your notes so far, cut short:\n\ntwo and\n\nThere is no time left." in shown
    assert shown.endswith(f"{TRIGGER}\nassistant: <think></think>")
    assert len(request.prompt.messages) == 1


async def test_of_a_hidden_thought_only_the_question_is_left(store):
    request, shown = request_of(store, HIDES_THOUGHTS, cut(thought=""))
    assert "notes" not in shown
    assert shown.startswith("user: What is 2 + 2?\n\nThere is no time left.")
    assert (request.sampling.effort, request.sampling.thinking_tokens) == ("low", 1024)


def test_the_conclusion_is_stated_after_the_trigger():
    end = Completion(text=" 4", finish_reason="stop", usage=Usage(completion_tokens=2))
    joined = with_conclusion(cut(text="So."), end, QUESTION)
    assert (joined.text, joined.finish_reason) == (f"So.\n\n{TRIGGER} 4", "stop")
    assert joined.thought == Thought(text="two and", tokens=8, closed=True)
    assert (joined.usage.completion_tokens, joined.usage.thinking_tokens) == (8 + 3 + 2, 8)
    repeated = Completion(text=f"{TRIGGER} 4", finish_reason="stop")
    assert with_conclusion(cut(), repeated, QUESTION).text == f"{TRIGGER} 4"


async def test_cut_samples_are_concluded_in_one_call_and_reported(store):
    run = a_run(store)
    metered, model = model_in(run)
    done = Completion(text="It is 4.", finish_reason="stop")
    samples = [(PROMPT, cut()), (PROMPT, done), (PROMPT, cut("two"))]
    first, second, third = await conclude(metered, samples, QUESTION, run)
    assert (first.text, second, third.text) == (f"{TRIGGER} 4", done, f"{TRIGGER} 4")
    assert len(model.generate_calls) == 1
    assert run.degraded == [
        "2 of 3 samples were cut while the model thought; their answers were requested after the unfinished thoughts"
    ]


async def test_what_the_budget_does_not_cover_stays_without_an_answer_and_is_reported(store):
    run = a_run(store, tokens=100)
    samples = [(PROMPT, cut("two" + " and" * i)) for i in range(5)]
    results = await conclude(model_in(run)[0], samples, QUESTION, run)
    assert [c.finish_reason for c in results] == ["stop"] * 2 + ["thinking"] * 3
    assert len(run.degraded) == 2
    assert run.degraded[1].startswith(
        "3 of 5 samples ended while the model thought and have no answer: raise the budget"
    )
    poor = a_run(store, tokens=500)
    hidden, _ = model_in(poor, HIDES_THOUGHTS)
    assert await conclude(hidden, samples[:1], QUESTION, poor) == [samples[0][1]]
    assert poor.degraded[0].startswith("1 of 1 samples ended while the model thought")


async def concluded(store, had, partial=()):
    """The solution of a run whose answer is wanted now, the run and its model."""
    run = a_run(store)
    run.partial_completions += partial
    run.conclude()
    metered, model = model_in(run)
    return await conclude_run(had, QUESTION, metered, run), run, model


async def test_a_finished_answer_stays_when_the_user_wants_it(store):
    had = Solution(chosen=0, candidates=(Candidate(text="It is 4.", answer="4"), Candidate(text="", answer=None)))
    solution, _, model = await concluded(store, had)
    assert (solution.stopped, solution.best.answer) == ("user", "4")
    assert solution.notes["based_on"] == "2 finished samples"
    assert model.generate_calls == []


async def test_an_answer_read_from_the_middle_of_a_chain_is_replaced_by_a_conclusion(store):
    middle = Candidate(text="First 2 is 2.", answer="2", tokens=14, finish_reason="budget")
    solution, _, model = await concluded(store, Solution(chosen=0, candidates=(middle,), confidence=0.75))
    assert solution.confidence is None  # 0.75 was of the answer 2
    assert (solution.best.answer, solution.best.text) == ("4", f"First 2 is 2.\n\n{TRIGGER} 4")
    assert solution.notes["based_on"] == "an unfinished sample of 14 tokens of an answer and 0 of a thought"
    assert model.made[0][0].endswith(f"<think></think>First 2 is 2.\n\n{TRIGGER}")


async def test_the_longest_unfinished_attempt_is_concluded(store):
    partial = [(PROMPT, cut("two")), (PROMPT, cut("two and two", tokens=12)), (PROMPT, cut("t"))]
    solution, run, _ = await concluded(store, None, partial)
    assert (solution.best.answer, solution.best.thought, solution.stopped) == ("4", "two and two", "user")
    assert solution.notes["based_on"] == "an unfinished sample of 0 tokens of an answer and 12 of a thought"
    assert run.degraded == [
        "the answer was requested before the strategy had one; it rests on an unfinished sample of 0 tokens of an "
        "answer and 12 of a thought"
    ]


async def test_without_any_attempt_the_question_is_answered_at_once(store):
    solution, *_ = await concluded(store, None)
    assert solution.best.answer == "4"
    assert solution.notes["based_on"] == "no sample: the question was answered at once"


async def test_a_spent_budget_leaves_no_answer(store):
    run = a_run(store, calls=1)
    metered, _ = model_in(run)
    await metered.generate([conclusion_request(metered, PROMPT, cut(), QUESTION)])
    before = Solution(chosen=None, stopped="budget")
    assert await conclude_run(before, QUESTION, metered, run) == before
    assert run.ledger.exhausted == "calls"


@pytest.mark.parametrize(
    ("solution", "reason"),
    [
        (Solution(chosen=None), "no answer: no sample was finished"),
        (Solution(chosen=None, stopped="budget"), "no answer: the budget was spent before a sample was finished"),
        (Solution(chosen=None, stopped="user"), "no answer: the user wanted it before a sample was finished"),
        (
            Solution(chosen=0, candidates=(Candidate(text="", finish_reason="thinking", thinking_tokens=9),) * 3),
            "no answer: 3 of 3 samples ended while the model thought; raise the budget or lower --effort",
        ),
        (Solution(chosen=0, candidates=(Candidate(text=""),)), "no answer: 1 sample has no text"),
        (Solution(chosen=0, candidates=(Candidate(text="Hm."),) * 2), "no answer could be read from 2 samples"),
    ],
)
def test_a_missing_answer_has_a_reason(solution, reason):
    assert no_answer_reason(solution) == reason
