"""`coat` and `mcts` on models that think: without thinking by default, or over the steps of the thought."""

import pytest
from reason.core.budget import Budget
from reason.core.messages import Thought
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.reasoning.coat.coat import CoAT
from reason.reasoning.coat.mcts import MonteCarloThoughts
from support.scripted_model import ALWAYS_THINKS, CLOSE, END, OPEN, THINKS, ScriptedModel, replies
from support.thought_model import ThoughtSearchRuns, World

QUESTION = Question(text="What is 2 + 2?", kind="number")
METHODS = pytest.mark.parametrize("method", [CoAT, MonteCarloThoughts])
RIGHT = ("2 + 2 = 4.", "So it is 4, I think.")
WRONG = ("2 + 2 = 5.", "So it is 5, I think.")


class Thoughtful(World):
    """What a model that thinks writes: nothing of the tree before an answer, everything inside its thought."""

    def steps(self, path, text):
        if path and path[0] == "Two and two.":
            return {"The answer is 4.": 1.0}
        return {"Two and two.": 1.0}

    def score(self, path, aspect):
        return 9 if "4" in path[-1] else 1

    def items(self, path, last):
        return [f"counting shows that {path[-1]}"]

    def script(self, text):
        written = text.rpartition("assistant: ")[2]
        if not written:
            return {OPEN: 1.0}
        if written.startswith(OPEN + CLOSE):  # without thinking
            head = text.rpartition("assistant: ")[0]
            return super().script(f"{head}assistant: {written.removeprefix(OPEN + CLOSE)}")
        if CLOSE in written:
            thought, _, answer = written.partition(CLOSE)
            told = "4" if "= 4" in thought else "5"
            opening = "Therefore, the answer (a number) is" if answer.startswith("Therefore") else "The answer is"
            return replies(f"{opening} {told}.")(f"assistant: {answer}")
        thought = written.removeprefix(OPEN)
        wholes = {"\n\n".join(RIGHT): 0.4, "\n\n".join(WRONG): 0.6}
        left = {t: w for t, w in wholes.items() if t.startswith(thought)}
        chances: dict[str, float] = {}
        for t, w in left.items():
            token = t[len(thought)] if len(thought) < len(t) else CLOSE
            chances[token] = chances.get(token, 0.0) + w / sum(left.values())
        return chances or {END: 1.0}


@pytest.fixture
async def store(tmp_path):
    opened = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield opened
    await opened.aclose()


def runs(store, profile=THINKS, world=None):
    harness = ThoughtSearchRuns(store, world or Thoughtful())
    harness.model = ScriptedModel(harness.world.script, profile=profile)
    return harness


def requests(harness):
    return [request for call in harness.model.generate_calls for request in call]


@METHODS
@pytest.mark.parametrize("judging", ["merged", "digits"])
async def test_steps_notes_and_scores_are_requested_without_thinking(store, method, judging):
    harness = runs(store)
    solution = await harness.solve(method, QUESTION, expansions=3, k=2, judging=judging)
    assert (solution.best.answer, solution.best.thought) == ("4", "")
    assert harness.run.ledger.usage().thinking_tokens == 0
    assert {request.sampling.effort for request in requests(harness)} == {"none"}


@METHODS
async def test_the_steps_of_a_thought_are_searched_and_the_answer_follows_the_closed_one(store, method):
    harness = runs(store)
    solution = await harness.solve(method, QUESTION, steps="thought", expansions=4, k=6)
    best = solution.best
    assert (best.text, best.answer, best.thought) == ("The answer is 4.", "4", "\n\n".join(RIGHT))
    assert [step.text for step in best.steps] == [RIGHT[0], f"{RIGHT[1]}\n\nThe answer is 4."]
    assert {c.answer for c in solution.candidates} <= {"4", "5"}
    thinking = [r for r in requests(harness) if r.prompt.thought is not None and not r.prompt.thought.closed]
    assert {r.prompt.thought.text for r in thinking} >= {"", f"{RIGHT[0]}\n\n"}
    others = [r for r in requests(harness) if r.prompt.thought is None]
    assert {r.sampling.effort for r in others} == {"none"}  # scores and notes
    assert best.thinking_tokens == len("\n\n".join(RIGHT)) + 1
    if method is CoAT:
        assert any("counting shows that 2 + 2" in r.prompt.messages[-1].content for r in thinking)


async def test_the_final_answer_of_a_search_over_a_thought_closes_it(store):
    harness = runs(store)
    solution = await harness.solve(MonteCarloThoughts, QUESTION, steps="thought", expansions=1, k=1, max_depth=5)
    assert solution.best.answer in ("4", "5")
    (request,) = [r for r in requests(harness) if r.prompt.prefix.startswith("Therefore")]
    text = request.prompt.thought.text
    assert request.prompt.thought == Thought(text=text, closed=True)
    assert text in (f"{RIGHT[0]}\n\n", f"{WRONG[0]}\n\n")
    assert solution.best.text.startswith("Therefore, the answer (a number) is")
    assert solution.best.thought == text.strip()


async def test_a_budget_bounds_a_search_over_a_thought(store):
    harness = runs(store)
    solution = await harness.solve(
        MonteCarloThoughts, QUESTION, steps="thought", expansions=9, k=4, budget=Budget(tokens=400)
    )
    assert harness.run.ledger.usage().completion_tokens <= 400
    assert solution.best.answer in ("4", "5")


async def test_a_judge_that_always_thinks_has_room_and_its_answer_alone_is_read(store):
    from reason.reasoning.coat.judge import ThoughtJudge
    from reason.reasoning.coat.prompts import Conversation, PathStep, instruction
    from reason.reasoning.memory.working_memory import WorkingMemory

    def script(text):
        written = text.rpartition("assistant: ")[2]
        position = len(written.replace(OPEN, "\x01").replace(CLOSE, "\x02"))
        tokens = [OPEN, *"Step: 2, I would say.", CLOSE, *'{"step": 9}', END]
        return {tokens[position]: 1.0}

    harness = runs(store)
    harness.model = ScriptedModel(script, profile=ALWAYS_THINKS)
    model = await harness.begin("judge", strategy="mcts", question=QUESTION, seed=1)
    conversation = Conversation(QUESTION, WorkingMemory(), instruction(QUESTION, notes=False))
    judge = ThoughtJudge(model, conversation, harness.run, "merged", 32)
    (scores,) = await judge.judge([(PathStep(1, "2 + 2 = 4."),)])
    assert scores.step == 0.9
    (request,) = requests(harness)
    assert (request.sampling.effort, request.sampling.thinking_tokens) == ("low", 1024)
    assert judge.max_tokens_per_thought(notes=False) == 1024 + 32
