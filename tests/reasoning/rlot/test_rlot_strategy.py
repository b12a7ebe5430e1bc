"""`rlot` on a scripted model, end to end: budgets, replays, cancellation, votes, failures and notes."""

import asyncio

import pytest
from reason.core.budget import Budget
from reason.core.errors import BackendError, BackendUnavailable, ContextTooLong, UserError
from reason.core.events import StrategyNote
from reason.core.files import question_digest
from reason.core.types import Question, Solution
from reason.reasoning.rlot.attempts import ATTEMPT_FAILED, BLOCK_FAILED
from reason.reasoning.rlot.navigator import NavigatorCard, load_navigator
from reason.reasoning.strategy import create_strategy
from support.block_model import BlockRuns, BlockWorld
from support.navigators import stored
from support.waiting import wait_until

SHORT = {
    "step_tokens": 24,
    "plan_tokens": 40,
    "pick_tokens": 24,
    "subtask_tokens": 12,
    "summary_tokens": 24,
    "answer_tokens": 12,
    "subtasks": 2,
}


@pytest.fixture
def navigator(tmp_path):
    """Reasons until C1 is 3: R R R Ga in the plain world."""
    return stored(tmp_path / "n.safetensors", [1, 0, 0, 0, -1], ends_at=3)


class Wide(BlockWorld):
    """Answers differ from attempt to attempt."""

    def reason(self, steps):
        n = len(steps) + 1
        return {f"Step {n}: thought {word}.": 1.0 for word in ("north", "south")}

    def answer(self, steps):
        first = steps[0] if steps else ""
        return "7." if "north" in first else "8."


def settings_of(policy, navigator):
    own = {"sequence": ["R", "D", "Db", "Rf"]} if policy == "fixed" else {"navigator": navigator}
    return {"policy": policy, "limits": SHORT, **own}


def test_run_requires_its_navigator_weights(tmp_path, navigator):
    _, complete = create_strategy("rlot", {"navigator": navigator})
    assert complete["weights"] == load_navigator(navigator).digest
    assert create_strategy("rlot", complete)[1] == complete
    stored(tmp_path / "n.safetensors", [0, 1, 0, 0, -1])  # retrained under the same name
    with pytest.raises(UserError, match="weights of the navigator .* have changed"):
        create_strategy("rlot", complete)
    _, anew = create_strategy("rlot", {"navigator": navigator})
    assert anew["weights"] == load_navigator(navigator).digest != complete["weights"]
    assert create_strategy("rlot", {"policy": "fixed"})[1]["weights"] == ""
    assert create_strategy("rlot", {"navigator": str(tmp_path / "none")})[1]["weights"] == ""


async def test_solution_contents(store, navigator):
    runs = BlockRuns(store, BlockWorld())
    made = await runs.solve(navigator=navigator)
    assert made.best.text == (
        "Step 1: reasoned 1.\n\nStep 2: reasoned 2.\n\nStep 3: reasoned 3.\n\nTherefore, the answer (a number) is 7."
    )
    steps = [*(f"reasoned {i}." for i in (1, 2, 3)), "Therefore, the answer (a number) is 7."]
    assert [step.text for step in made.best.steps] == steps
    assert made.best.tokens == runs.run.ledger.used("tokens")
    assert made.confidence is None
    assert made.stopped == "done"
    assert Solution.model_validate_json(made.model_dump_json()) == made
    (end,) = runs.notes("navigated")
    assert end == {"vote": 0, **{name: made.notes[name] for name in end if name != "vote"}}
    assert all(StrategyNote.model_validate_json(e.model_dump_json()) for e in runs.sink.of_type("strategy.note"))
    assert [e.answer for e in runs.sink.of_type("candidate.added")] == ["7"]


# -- budgets


async def test_a_budget_without_room_for_assessments_is_spent_on_steps(store, navigator):
    runs = BlockRuns(store, Wide())
    made = await runs.solve(budget=Budget(tokens=200), navigator=navigator)
    assert set(made.notes["chain"][:-1]) == {"R"}
    assert made.best.answer is not None
    (note,) = runs.run.degraded
    assert note.startswith("all blocks were steps of reasoning, not chosen by the navigator")
    again, run = await runs.replay(navigator=navigator)
    assert (again, run.degraded) == (made, [note])


@pytest.mark.parametrize("votes", [1, 2])
async def test_price_limit_is_never_exceeded(store, navigator, votes):
    runs = BlockRuns(store, BlockWorld(), price=0.001)
    answers = set()
    for cents in (5, 20, 50, 100, 400, 2_000, 20_000):
        budget = Budget(usd=cents / 100)
        made = await runs.solve(f"{cents}", budget=budget, navigator=navigator, limits=SHORT, n_votes=votes)
        assert runs.run.ledger.used("usd") <= cents / 100
        answers.add((made.stopped, None if made.best is None else made.best.answer))
    assert answers == {("budget", None), ("budget", "7"), ("done", "7")}


async def test_time_is_reserved_for_the_answer(store, navigator, clock):
    runs = BlockRuns(store, BlockWorld())
    runs.model.before = lambda _: asyncio.sleep(20)
    made = await clock.run(runs.solve(budget=Budget(seconds=100), navigator=navigator, limits=SHORT))
    assert clock.elapsed == 80  # the problem's assessment, a step, its assessment, the answer
    assert (made.notes["chain"], made.notes["ended"]) == (["R", "Ga"], "budget")
    assert (made.best.answer, made.stopped) == ("7", "budget")
    again, _ = await runs.replay(navigator=navigator, limits=SHORT)
    assert again.candidates == made.candidates
    assert again.stopped == "budget"


# -- replays, resumed runs, cancelling


@pytest.mark.parametrize(
    ("policy", "after", "answer"),
    [
        ("learned", 2, "5"),
        ("learned", 4, "5"),
        ("fixed", 2, "5"),
        ("fixed", 6, None),
        ("llm", 3, "5"),
    ],
)
async def test_cancelled_run_keeps_best_solution(store, navigator, policy, after, answer):
    config = settings_of(policy, navigator)

    runs = BlockRuns(store, BlockWorld(reason=lambda steps: "the answer is 5."))
    calls = 0

    async def hang(_):
        nonlocal calls
        calls += 1
        if calls > after:
            await asyncio.Event().wait()

    runs.model.before = hang
    work = asyncio.ensure_future(runs.solve(**config))
    await wait_until(lambda: calls > after)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    best = runs.run.best
    assert best.best.steps
    assert (best.stopped, best.best.answer, best.best.finish_reason) == ("cancelled", answer, "budget")
    assert runs.model.running == 0


async def test_self_assessment_in_flight_is_never_what_a_wanted_answer_continues(store, navigator):
    runs = BlockRuns(store, BlockWorld())
    cut = []

    async def conclude(requests):
        kinds = [kind for kind, _ in requests]
        if "assess" in kinds and any(steps for _, steps in requests):
            cut.append(kinds)
            runs.run.conclude()
            await asyncio.Event().wait()

    runs.model.before = conclude
    made = await runs.solve(policy="learned", navigator=navigator, limits=SHORT)
    assert cut == [["assess", "finished"]]
    assert made.best.steps
    assert runs.run.partial_completions == []


async def test_stopped_attempt_uses_answer_of_last_step(store, clock):
    runs = BlockRuns(store, BlockWorld(reason=lambda steps: "so the answer is 5." if steps else "about 5."))
    ask, calls = runs.model.generate, 0

    async def generate(requests, listener=None):
        nonlocal calls
        calls += 1
        made = await ask(requests, listener)
        clock.skip(1 if calls < 6 else 1000)
        return made

    runs.model.generate = generate
    made = await clock.run(runs.solve(budget=Budget(seconds=100), policy="fixed", sequence=["R"] * 5))
    assert (made.stopped, made.best.answer, made.best.finish_reason) == ("budget", "5", "budget")
    assert made.notes["forced"] is False


# -- votes


async def test_attempts_vote_with_share_as_confidence(store, navigator):
    runs = BlockRuns(store, Wide())
    made = await runs.solve(navigator=navigator, n_votes=7)
    answers = [c.answer for c in made.candidates]
    assert sorted(set(answers)) == ["7", "8"]
    winner = max(set(answers), key=answers.count)
    assert made.best.answer == winner
    assert made.confidence == pytest.approx(answers.count(winner) / 7)
    assert made.notes["votes"] == 7
    assert made.notes["chains"] == [["R", "R", "R", "Ga"]] * 7
    assert made.notes["scores_requested"] == 7 * 7 * 4
    assert {note["vote"] for note in runs.notes("block.run")} == set(range(7))
    asked = [request for call in runs.model.generate_calls for request in call]
    assert {request.sample_indices for request in asked} == {(i,) for i in range(7)}
    assert {request.sampling.default_temperature for request in asked} == {0.0, 0.7}


async def test_attempts_run_concurrently_without_limits(store, navigator):
    runs = BlockRuns(store, BlockWorld())
    runs.model.meeting = asyncio.Barrier(4)  # hangs unless four calls are in flight at once
    await runs.solve("wide", navigator=navigator, n_votes=4)
    assert runs.model.most == 4
    runs.model.most = 0
    await runs.solve("narrow", navigator=navigator, n_votes=4, budget=Budget(calls=500))
    assert runs.model.most == 1


async def test_unaffordable_attempts_do_not_vote(store, navigator):
    runs = BlockRuns(store, BlockWorld())
    one = await runs.solve("one", navigator=navigator, limits=SHORT)
    calls = one.notes["calls"]
    made = await runs.solve("three", navigator=navigator, limits=SHORT, n_votes=5, budget=Budget(calls=2 * calls + 1))
    assert made.notes["votes"] == 3
    assert made.notes["chains"] == [["R", "R", "R", "Ga"]] * 2 + [["Ga"]]
    assert made.stopped == "budget"
    assert made.confidence == 1.0


# -- failures


def failing(store, failed, error):
    """Runs whose calls that contain a request of one of these kinds fail."""

    async def fail(requests):
        if any(kind in failed for kind, _ in requests):
            raise error

    runs = BlockRuns(store, BlockWorld())
    runs.model.before = fail
    return runs


@pytest.mark.parametrize("error", [BackendUnavailable("gone"), ContextTooLong("too long", tokens=9, limit=8)])
async def test_failing_block_forces_the_answer(store, error):
    runs = failing(store, {"plans"}, error)
    config = {"policy": "fixed", "sequence": ["R", "Db", "R"]}
    made = await runs.solve(**config)
    assert (made.best.answer, made.notes["chain"], made.notes["ended"]) == ("7", ["R", "Ga"], "failed")
    assert runs.run.degraded == [BLOCK_FAILED]
    (note,) = runs.notes("block.failed")
    assert note["code"] == error.code
    assert made.stopped == "done"
    again, run = await runs.replay(**config)
    assert (again, run.degraded) == (made, [BLOCK_FAILED])


async def test_failing_answer_raises(store):
    runs = failing(store, {"plans", "answer"}, BackendUnavailable("gone"))
    with pytest.raises(BackendUnavailable):
        await runs.solve(policy="fixed", sequence=["R", "Db"])


async def test_failing_attempt_does_not_fail_others(store, navigator):
    runs = BlockRuns(store, Wide())
    runs.model._failing = frozenset({1})  # every request of the second attempt
    made = await runs.solve(navigator=navigator, n_votes=3)
    assert made.notes["votes"] == 2
    assert ATTEMPT_FAILED in runs.run.degraded
    runs.model._failing = frozenset({0, 1, 2})
    with pytest.raises(BackendError, match="no sample"):
        await runs.solve("all", navigator=navigator, n_votes=3)


# -- notes and events


async def test_training_question_degrades_the_run(store, tmp_path):
    card = NavigatorCard(name="own", trained_on=(question_digest("how  MANY apples are left?"),))
    file = stored(tmp_path / "own.safetensors", [1, 0, 0, 0, -1], ends_at=3, card=card)
    runs = BlockRuns(store, BlockWorld())
    await runs.solve(navigator=file)
    assert [what for what in runs.run.degraded if "trained on this question" in what]
    await runs.solve("other", question=Question(text="Another one?", kind="number"), navigator=file)
    assert runs.run.degraded == []


@pytest.mark.parametrize(("aspects", "told"), [(7, False), (6, True), (0, True)])
async def test_missing_scores_degrade_the_run(store, navigator, aspects, told):
    names = ("A1", "A2", "A3", "B1", "B2", "C1", "C2")[:aspects]
    text = '{"A1":' + ("2" if aspects else "") + "".join(f', "{name}": 2' for name in names[1:]) + "}"
    runs = BlockRuns(store, BlockWorld(assess=lambda steps: text))
    made = await runs.solve(f"{aspects}", navigator=navigator)
    asked, missing = made.notes["scores_requested"], made.notes["scores_missing"]
    assert missing == asked * (7 - aspects) // 7
    assert bool(runs.run.degraded) == told
    if told:
        assert runs.run.degraded[0].startswith(f"{missing} of {asked} scores")
