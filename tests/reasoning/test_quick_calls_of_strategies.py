"""Verdicts, choices, triggers and scores of strategies on models that think: none of them waits for a thought."""

import math

import pytest
from reason.core.errors import UserError
from reason.core.messages import Prompt
from reason.core.types import Question
from reason.reasoning.json_answers import JSON_INSTRUCTION, with_json_answer
from reason.reasoning.prompts import fit_prompt
from reason.reasoning.self_evaluation import SelfEvaluator, evaluation_questions
from reason.routers.features import ENTROPY, extract_features
from reason.serving.metered.model import MeteredModel
from support.scripted_model import ALWAYS_THINKS, CLOSE, OPEN, THINKS, ScriptedModel, replies, thinking
from support.stored_runs import RunHarness

QUESTION = Question(text="What is 2 + 2?", kind="number")
RESTART, RIGHT = evaluation_questions(unfinished=False)


# -- the verdicts of self-evaluation


def verdicts(text):
    """Yes with probability 0.8 to "correct?", with 0.1 to "would a new one be better?"; the thought is of letters."""
    question, _, written = text.rpartition("\nassistant: ")
    if not written.endswith((CLOSE, f"{CLOSE}Answer:")):
        return thinking("ab", "")(text)
    yes = 0.1 if RESTART in question else 0.8
    return {"Y": yes, "N": 1 - yes}


@pytest.mark.parametrize("profile", [THINKS, ALWAYS_THINKS])
async def test_a_verdict_is_the_first_token_of_the_answer(store, profile):
    harness = RunHarness(store, ScriptedModel(verdicts, profile=profile))
    model = await harness.begin("r", strategy="x", question=QUESTION, seed=1)
    (made,) = await SelfEvaluator(model, QUESTION, harness.run).evaluate(["It is 4."])
    assert made.right == pytest.approx(math.log(0.8 / 0.2))
    assert made.restart == pytest.approx(math.log(0.1 / 0.9))
    assert made.coverage == pytest.approx(1)
    # a model that cannot skip its thought writes it four times, with both tags, and one token after each
    tokens = 0 if profile is THINKS else 4 * (4 + 1)
    assert (harness.spent.completion_tokens, harness.spent.thinking_tokens) == (tokens, 4 * tokens // 5)


@pytest.mark.parametrize(("context", "thought"), [(4000, 1024), (600, 300)])
async def test_a_prompt_leaves_room_for_a_thought_that_cannot_be_skipped(store, context, thought):
    harness = RunHarness(store, ScriptedModel(verdicts, profile=ALWAYS_THINKS, context_tokens=context))
    model = await harness.begin("r", strategy="x", question=QUESTION, seed=1)
    sampling = model.quick(max_tokens=4)
    assert sampling.thinking_tokens == 1024

    def make(texts):
        return Prompt.user(f"Is it right? {texts[0]}")

    prompt, kept = await fit_prompt(model, harness.run, make, ["x" * (context - 100)], sampling)
    assert kept is not None
    assert model.count_tokens(prompt) + 4 + thought <= context  # at most half of the context
    whole, kept = await fit_prompt(model, harness.run, make, ["x" * 100], sampling)
    assert (whole, kept) == (make(["x" * 100]), None)


# -- the choice of universal self-consistency


# -- cot


async def test_json_after_a_thinking_chain_is_written_without_a_thought(store):
    def script(text):
        if JSON_INSTRUCTION in text:
            return replies('{"answer": 4}')(text)
        return thinking("ab", "The answer is 4.")(text)

    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    profile = THINKS.model_copy(update={"refuses_while_thinking": frozenset({"json_schema"})})
    harness = RunHarness(store, ScriptedModel(script, profile=profile, json_schema=True))
    solution = await harness.solve("cot", QUESTION)
    question = QUESTION.model_copy(update={"answer_schema": schema})
    metered = MeteredModel(harness.model, "main", harness.run)
    solution = await with_json_answer(solution, question, metered, harness.run, max_tokens=64)
    assert solution.best.answer == '{"answer": 4}'
    assert harness.spent.thinking_tokens == 4
    assert harness.model.made[-1][0].endswith(f"{OPEN}{CLOSE}")


# -- adaptive


def pruning(text):
    question = text.rpartition("assistant: ")[0]
    if "Consider" in question:
        yes = 0.1 if "started over" in question.rpartition("user: ")[2] else 0.8
        return {"Y": yes, "N": 1 - yes}
    return thinking("ab", "Sum: the answer is 4.")(text)


async def test_partial_answers_are_continued_after_their_own_thoughts(store):
    harness = RunHarness(store, ScriptedModel(pruning, profile=THINKS))
    solution = await harness.solve("adaptive", QUESTION, n=4, prune_at=(5,), max_tokens=60, beta=0.9, auroc=0.7)
    assert [c.text for c in solution.candidates] == ["Sum: the answer is 4."] * 2
    assert all(c.thought == "ab" for c in solution.candidates)
    continued = [rendered for rendered, _ in harness.model.made if rendered.endswith(f"{OPEN}ab{CLOSE}Sum: ")]
    assert len(continued) == 2
    assert harness.spent.thinking_tokens == 4 * 4
    assert sum(c.tokens for c in solution.candidates) + 2 * (4 + 5) == harness.spent.completion_tokens


async def test_pruning_is_refused_where_thoughts_cannot_be_given(store):
    model = ScriptedModel(pruning, profile=ALWAYS_THINKS)
    with pytest.raises(UserError, match=r"prune_at=\[5\] continues partial answers after their thoughts"):
        await RunHarness(store, model).solve("adaptive", QUESTION, n=4, prune_at=(5,))
    assert model.generate_calls == []


# -- log-probabilities without generation


def letters(text):
    """The choices as answers: "A" is likelier after a closed thought, "B" in an open one."""
    return {"A": 0.7, "B": 0.3} if CLOSE in text else {"A": 0.1, "B": 0.9}


async def test_choices_are_scored_behind_a_closed_thought(store):
    question = Question(text="Which?", choices=("one", "two"))
    harness = RunHarness(store, ScriptedModel(letters, profile=THINKS))
    solution = await harness.solve("logprob", question, prompt="chat", choices_as="letter")
    assert solution.best.answer == "A"
    assert solution.confidence == pytest.approx(0.7)


async def test_choices_of_a_model_that_always_thinks_are_refused(store):
    question = Question(text="Which?", choices=("one", "two"))
    harness = RunHarness(store, ScriptedModel(letters, profile=ALWAYS_THINKS))
    with pytest.raises(UserError, match="cannot be given the end of one") as caught:
        await harness.solve("logprob", question, prompt="chat")
    assert "prompt=qa" in caught.value.hint


async def test_the_entropy_of_a_chain_is_that_of_its_first_token_and_never_of_a_tag(store):
    script = thinking(["ab", "cd"], "The answer is 4.", weights=[0.5, 0.5])
    harness = RunHarness(store, ScriptedModel(script, profile=THINKS))
    model = await harness.begin("r", strategy="auto", question=QUESTION, seed=1)
    signals = await extract_features(QUESTION, harness.run, model=model)
    assert signals.named[ENTROPY] == pytest.approx(math.log(2))
    harness = RunHarness(store, ScriptedModel(script, profile=ALWAYS_THINKS))
    model = await harness.begin("s", strategy="auto", question=QUESTION, seed=1)
    assert ENTROPY not in (await extract_features(QUESTION, harness.run, model=model)).named
