"""`hogwild` on models that think: the workers write one thought, and the answer follows it once it is closed."""

from reason.core.budget import Budget
from reason.core.messages import Thought
from reason.core.types import Question
from reason.reasoning.hogwild.hogwild import Hogwild
from reason.reasoning.hogwild.prompts import BOX, NAMES, PAST, opener, step_prefix
from reason.reasoning.strategy import Models
from support.scripted_model import CLOSE, END, OPEN, THINKS, ScriptedModel, replies
from support.scripted_workers import ScriptedWorkers, next_character
from support.stored_runs import RunHarness

QUESTION = Question(text="What is 2 + 2?", kind="number")
ADA, BEN = NAMES[:2]


def concluding(text):
    """What samples write: the answer in the box after the closed thought."""
    if text.endswith(CLOSE):  # of a worker: the first token of an answer, which is discarded
        return {"T": 1.0}
    assert f"{CLOSE}{BOX}" in text
    return replies(f"{BOX}4}}.")(text)


def workers(steps, profile=THINKS, closing=0.5):
    """Workers that think, with scripted steps by worker and number."""

    def script(worker, view):
        return {next_character(steps, view): 0.5} | ({CLOSE: closing} if closing else {})

    return ScriptedWorkers(script, concluding, profile=profile)


async def solve(store, model, *, budget=None, thinking_tokens=None, **parameters):
    harness = RunHarness(store, model)
    limits = {"budget": budget, "thinking_tokens": thinking_tokens}
    metered = await harness.begin("r", strategy="hogwild", question=QUESTION, seed=3, **limits)
    strategy = Hogwild(Hogwild.Config(any_model=True, **parameters))
    return await strategy.solve(QUESTION, Models({"main": metered}), harness.run), harness.run


STEPS = {
    (ADA, 1): " I add.\n\n",
    (BEN, 1): " Ok.\n\n",
    (BEN, 2): "I see that Ada adds.\n\n",
    (ADA, 2): "So it is \\boxed{5}.\n\n",
}


async def test_workers_share_an_open_thought_whose_closing_tag_is_banned(store):
    model = workers(STEPS)
    solution, run = await solve(store, model)
    (group,) = model.groups
    assert group.config.prompt.thought == Thought(text=PAST, closed=False)
    assert group.config.prompt.prefix == ""
    assert group.config.banned_texts == (CLOSE,)
    assert group.history.partition("assistant: ")[2].startswith(OPEN + PAST)
    assert CLOSE not in group.history
    assert solution.notes["ended"] == "answer"
    usage = run.ledger.usage()
    assert usage.thinking_tokens == 2 * solution.notes["passes"] == solution.best.thinking_tokens
    assert usage.completion_tokens == usage.thinking_tokens + len("4}.") + 1
    assert run.degraded == []


async def test_a_budget_of_thinking_tokens_ends_the_work_and_leaves_the_answer(store):
    solution, run = await solve(store, workers({}), budget=Budget(thinking_tokens=60))
    assert (solution.notes["ended"], solution.best.answer) == ("budget", "4")
    assert run.ledger.usage().thinking_tokens == 60


async def test_the_answer_is_that_after_the_closed_thought_and_never_one_in_it(store):
    model = workers(STEPS)
    solution, _ = await solve(store, model)
    assert [a["answer"] for a in solution.notes["answers"]] == ["5"]
    best = solution.best
    assert (best.answer, best.text, solution.notes["finisher"]) == ("4", f"{BOX}4}}.", True)
    assert "So it is \\boxed{5}." in best.thought
    ((request,),) = model.generate_calls
    assert request.prompt.thought == Thought(text=f"{PAST}{best.thought}\n\n", closed=True)
    assert request.prompt.prefix == BOX
    assert request.sampling.thinking_tokens == 0


async def test_a_tag_of_several_tokens_ends_the_work_when_it_is_written(store):
    steps = {(ADA, 1): " I add. [/T] and so", (BEN, 1): " y" * 40}
    profile = THINKS.model_copy(update={"close_tag": "[/T]"})
    solution, _ = await solve(store, workers(steps, profile, closing=0))
    assert (solution.notes["ended"], solution.best.answer) == ("end of text", "4")
    assert " I add. " in solution.best.thought
    assert "[/T" not in solution.best.thought


def rounds(steps, step=None):
    """A model without a shared cache: what a worker writes after its own beginning, then the answer in the box."""

    def script(text):
        if CLOSE in text.rpartition("assistant: ")[2]:
            return concluding(text)
        character = next_character(steps, text.rpartition("assistant: ")[2])
        return {CLOSE if character == END else character: 1.0}

    return ScriptedModel(script, profile=THINKS, step=step)


async def test_rounds_of_steps_continue_one_thought(store):
    steps = {**STEPS, (BEN, 2): "Yes.\n\n", (BEN, 3): "Done.\n\n"}
    model = rounds(steps)
    solution, run = await solve(store, model)
    assert (solution.notes["level"], solution.notes["ended"]) == ("interleaved", "answer")
    assert (solution.best.answer, solution.best.text) == ("4", f"{BOX}4}}.")
    asked = [request for call in model.generate_calls for request in call]
    assert all(not r.prompt.thought.closed and r.prompt.thought.text.startswith(PAST) for r in asked[:-1])
    assert all((r.sampling.thinking_tokens, r.sampling.max_tokens) == (256, 1) for r in asked[:-1])
    first = f"{step_prefix(ADA, 1)}{opener(0, NAMES[:2])} I add."
    assert asked[2].prompt.thought.text.startswith(f"{PAST}{first}\n\n{step_prefix(BEN, 1)}")
    assert solution.best.thinking_tokens == run.ledger.usage().thinking_tokens


async def test_the_limit_of_a_thought_holds_for_all_workers_together(store):
    model = rounds({(ADA, 1): " x" * 99, (BEN, 1): " y" * 99})
    solution, run = await solve(store, model, thinking_tokens=40)
    assert (solution.notes["ended"], solution.best.answer) == ("passes", "4")
    assert run.ledger.usage().thinking_tokens == 40


async def test_a_worker_that_closes_the_thought_ends_the_work(store):
    solution, _ = await solve(store, rounds({**STEPS, (ADA, 2): "I am done"}))
    assert (solution.notes["ended"], solution.best.answer) == ("end of text", "4")
    assert "I am done" in solution.best.thought


async def test_messages_request_steps_without_thinking(store):
    """The blackboard shows finished steps in messages: there is no thought to be shared."""

    def script(text):
        written = text.rpartition("assistant: ")[2]
        assert written.startswith(OPEN + CLOSE)
        return replies("It is \\boxed{4}.")(text)

    model = ScriptedModel(script, profile=THINKS)
    solution, run = await solve(store, model, level="blackboard")
    assert (solution.best.answer, solution.best.thought) == ("4", "")
    assert run.ledger.usage().thinking_tokens == 0


async def test_a_model_without_prefixes_is_shown_the_steps_for_its_answer(store):
    def script(text):
        if "There is no time left" in text:
            return replies("Therefore, the answer (a number) is 4.")(text)
        return replies("", "Hm.", weights=[0.4, 0.6])(text)

    model = ScriptedModel(script, changed={"prefix": False})
    solution, _ = await solve(store, model, max_passes=12)
    assert solution.notes["level"] == "blackboard"
    assert solution.best.answer == "4"
    assert "Hm." in model.generate_calls[-1][0].prompt.messages[-1].content


async def test_an_answer_that_is_wanted_now_follows_what_the_workers_have_written(store):
    harness = RunHarness(store, None)
    written = []

    def conclude():
        written.append(1)
        if len(written) == 20:
            harness.run.conclude()

    steps = {(ADA, 1): " I add.\n\n", (ADA, 2): "x" * 99, (BEN, 1): " y" * 99}
    harness.model = rounds(steps, conclude)
    metered = await harness.begin("r", strategy="hogwild", question=QUESTION, budget=Budget(), seed=3)
    solution = await Hogwild(Hogwild.Config(any_model=True)).solve(QUESTION, Models({"main": metered}), harness.run)
    assert (solution.best.answer, solution.best.text) == (None, "")
    partial = max((c for _, c in harness.run.partial_completions), key=lambda c: len(c.thought.text))
    assert partial.thought.text == PAST + solution.best.thought
