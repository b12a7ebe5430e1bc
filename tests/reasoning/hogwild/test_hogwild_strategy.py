"""`hogwild` with workers whose every word is known."""

import asyncio

import pytest
from reason.core.budget import Budget
from reason.core.errors import CapabilityMissing, UserError
from reason.core.events import StrategyNote
from reason.core.types import Question
from reason.reasoning.hogwild import hogwild
from reason.reasoning.hogwild.hogwild import Hogwild
from reason.reasoning.hogwild.prompts import CHECK, NAMES, OTHERS, OUT_OF_TIME, OWN, PAST, opener, step_prefix
from reason.reasoning.strategy import Models
from reason.serving.metered.replay import ReplayModel
from support.scripted_model import END, ScriptedModel
from support.scripted_workers import ScriptedWorkers, next_character
from support.stored_runs import RunHarness

QUESTION = Question(text="What is 2 + 2?", kind="number")
ADA, BEN = NAMES[:2]


def saying(steps, seen=None):
    """Workers with scripted steps: text after prefix and opener (and redundancy check) by worker and step number."""

    def script(worker, view):
        if seen is not None:
            seen.append((worker, view))
        return {next_character(steps, view): 1.0}

    return script


async def solve(store, model, *, name="r", budget=None, question=QUESTION, new=True, seed=3, **parameters):
    harness = RunHarness(store, model)
    if not new:
        harness.begun.add(name)
    metered = await harness.begin(name, strategy="hogwild", question=question, budget=budget, seed=seed)
    strategy = Hogwild(Hogwild.Config(any_model=True, **parameters))
    solution = await strategy.solve(question, Models({"main": metered}), harness.run)
    return solution, harness.run, [e for e in harness.sink.events if isinstance(e, StrategyNote)]


async def work(store, steps, *, seen=None, name="r", **parameters):
    """Workers with these steps: the solution, their group, its run and notes."""
    model = ScriptedWorkers(saying(steps, seen))
    solution, run, notes = await solve(store, model, name=name, **parameters)
    (group,) = model.groups
    return solution, group, run, notes


def noted(notes, name):
    return [note.data for note in notes if note.name == f"workers.{name}"]


async def test_steps_join_history_in_order_of_completion(store):
    steps = {
        (ADA, 1): " I add.\n\n",
        (BEN, 1): " Ok.\n\n",
        (BEN, 2): "I see that Ada adds.\n\n",
        (ADA, 2): "So it is \\boxed{4}.\n\n",
    }
    solution, group, run, notes = await work(store, steps)
    assert (solution.best.answer, solution.stopped) == ("4", "done")
    order = [(s["worker"], s["number"], s["pass"]) for s in noted(notes, "step")]
    assert order == [(1, 1, 6), (0, 1, 9), (1, 2, 28), (0, 2, 30)]
    # A step's separator is read with the next step, so the history has each step after the previous separator.
    assert group.history.partition(PAST)[2] == (
        f"{step_prefix(BEN, 1)}Hi, Ada! Ok.\n{step_prefix(ADA, 1)}{opener(0, NAMES[:2])} I add.\n"
        f"\n{step_prefix(BEN, 2)}I see that Ada adds.\n"
    )
    assert [p.moves for p in group.passes if p.moves] == [(1,), (0,), (1,)]
    assert solution.notes["answer_at"] == solution.notes["passes"] == 30 == len(group.passes)
    assert solution.notes["steps"] == [2, 2]
    assert run.ledger.usage().completion_tokens == 60
    assert group.closed


async def test_workers_finishing_in_one_pass_keep_index_order(store):
    same = " Go.\n\n"
    steps = {(ADA, 1): same, (BEN, 1): same, (ADA, 2): "\\boxed{4}.\n\n", (BEN, 2): "\\boxed{5}.\n\n"}
    solution, group, _, notes = await work(store, steps)
    assert [s["worker"] for s in noted(notes, "step")] == [0, 1, 0, 1]
    assert [p.moves for p in group.passes if p.moves] == [(0, 1)]
    assert solution.best.answer == "4"  # both answer in one pass: the first worker's counts


async def test_view_shows_others_unfinished_step_before_own(store):
    seen = []
    steps = {(ADA, 1): " x" * 20 + ".\n\n", (BEN, 1): " y" * 20 + ".\n\n"}
    await work(store, steps, seen=seen, max_passes=10)
    last = dict(seen)
    mine = f"{step_prefix(ADA, 1)}{opener(0, NAMES[:2])}" + " x" * 4 + " "
    others = f"{step_prefix(BEN, 1)}Hi, Ada!" + " y" * 4 + " "
    assert last[0].endswith(PAST + OTHERS + others + OWN + mine)
    assert last[1].endswith(PAST + OTHERS + mine + OWN + others)


@pytest.mark.parametrize("layout", ["interleaved", "contiguous"])
async def test_other_layouts(store, layout):
    steps = {(ADA, 1): " I add.\n\n", (ADA, 2): "So it is \\boxed{4}.\n\n", (BEN, 1): " y" * 40}
    seen = []
    solution, group, *_ = await work(store, steps, seen=seen, layout=layout)
    assert solution.best.answer == "4"
    moved = [p.moves for p in group.passes if p.moves]
    assert moved == ([(0,)] if layout == "interleaved" else [])
    ben = [view for worker, view in seen if worker == 1][-1]
    assert ("So it is" in ben) is (layout == "contiguous")
    assert "I add" in ben


async def test_confirmed_answer_needs_a_second_worker(store):
    steps = {
        (ADA, 1): " \\boxed{5}.\n\n",
        (ADA, 2): "Yes, \\boxed{5}.\n\n",
        (BEN, 1): " I think longer: \\boxed{4}.\n\n",
        (ADA, 3): "Ben is right, that is \\boxed{4.0}.\n\n",
        (BEN, 2): "No, not 5.\n\n",
        (BEN, 3): "Look again.\n\n",
    }
    first, *_ = await work(store, steps, name="first")
    assert (first.best.answer, first.notes["confirmed"]) == ("5", False)
    confirmed, *_, notes = await work(store, steps, name="confirmed", answer="confirmed")
    assert (confirmed.best.answer, confirmed.notes["confirmed"]) == ("4.0", True)
    assert [a["answer"] for a in noted(notes, "answer")] == ["5", "4", "5", "4.0"]
    cut, *_ = await work(store, steps, name="cut", answer="confirmed", max_passes=20)
    assert (cut.best.answer, cut.notes["ended"], cut.notes["finisher"]) == ("5", "passes", False)


async def test_next_step_gets_redundancy_check(store):
    steps = {(ADA, 1): " a" * 30 + ".\n\n", (BEN, 1): " b.\n\n", (BEN, 2): "c.\n\n"}
    steps |= {(ADA, 2): "no. I go on.\n\n", (BEN, 3): "c" * 60 + ".\n\n"}
    _, group, _, notes = await work(store, steps, check_every=160, max_passes=80)
    # Openers, prefixes and 2 tokens a pass: it is time while both are within a step, and Ada begins the next one.
    asked, *_ = [p for p in group.passes if any(f and CHECK in f.text for f in p.inputs)]
    assert asked.inputs[0].text == step_prefix(ADA, 2) + CHECK
    check, *_ = noted(notes, "check")
    assert (check["worker"], check["verdict"]) == (0, "no")


async def test_redundancy_checks_can_be_disabled(store):
    steps = {(name, n): "c.\n\n" if n > 1 else " c.\n\n" for name in (ADA, BEN) for n in range(1, 30)}
    _, group, *_ = await work(store, steps, check_every=0, max_passes=60)
    assert not any(f and CHECK in f.text for p in group.passes for f in p.inputs)


async def test_shorter_run_is_a_prefix_of_a_longer_one(store):
    def chances(worker, view):
        return {"a": 0.4, "b": 0.3, ".": 0.1, "\n": 0.2}

    made = []
    for passes in (120, 45):
        model = ScriptedWorkers(chances)
        solution, run, _ = await solve(store, model, name=str(passes), max_passes=passes)
        made.append(model.groups[0].passes)
        assert (len(made[-1]), solution.notes["ended"]) == (passes, "passes")
        assert run.ledger.usage().completion_tokens <= 2 * passes + 16
    assert made[0][:45] == made[1]


def finishing(steps, answer, asked):
    """The same workers, and a model that finishes their transcript."""

    def script(text):
        asked.append(text)
        return {(answer + END)[len(text.rpartition(OUT_OF_TIME)[2])]: 1.0}

    return ScriptedWorkers(saying(steps), script)


async def test_finisher_gets_the_complete_transcript(store):
    asked = []
    steps = {(ADA, 1): " I add.\n\n", (BEN, 1): " y" * 40, (ADA, 2): "x" * 40}
    solution, run, _ = await solve(store, finishing(steps, "4}", asked), max_passes=14)
    assert solution.best.answer == "4"
    assert (solution.notes["ended"], solution.notes["finisher"]) == ("passes", True)
    written = asked[0].partition("assistant: ")[2]
    assert written == (
        f"{PAST}{step_prefix(ADA, 1)}{opener(0, NAMES[:2])} I add.\n\n{step_prefix(ADA, 2)}xxxxx ...\n\n"
        f"{step_prefix(BEN, 1)}Hi, Ada! y y y y y y y ...\n\n{OUT_OF_TIME}"
    )
    assert solution.best.text == written.removeprefix(PAST) + "4}"
    assert run.ledger.usage().model_calls == 2


async def test_end_of_text_ends_the_run(store):
    steps = {(ADA, 1): " it is \\boxed{4}" + END, (BEN, 1): " y" * 40}
    for text, *expected in (
        (steps[ADA, 1], "4", "answer", False),
        (" I give up." + END, "5", "end of text", True),
    ):
        steps[ADA, 1] = text
        solution, _, _ = await solve(store, finishing(steps, "5}", []), name=text)
        assert [solution.best.answer, solution.notes["ended"], solution.notes["finisher"]] == expected


async def test_token_budget_covers_the_finisher(store, monkeypatch):
    monkeypatch.setattr(hogwild, "FINISHER_TOKENS", 8)
    steps = {(ADA, 1): " x" * 100, (BEN, 1): " y" * 100}
    solution, run, _ = await solve(store, finishing(steps, "4}", []), budget=Budget(tokens=41))
    assert (solution.best.answer, solution.stopped, solution.notes["passes"]) == ("4", "budget", 16)
    assert run.ledger.usage().completion_tokens <= 41


async def test_context_limit_ends_the_run(store):
    model = finishing({(ADA, 1): " x" * 900, (BEN, 1): " y" * 900}, "4}", [])
    model._context = 1900
    solution, _, _ = await solve(store, model)
    assert solution.notes["ended"] == "context"
    assert solution.best is not None


async def test_replay_without_model(store):
    steps = {(ADA, 1): " I add.\n\n", (BEN, 1): " y" * 40, (ADA, 2): "x" * 40}
    model = finishing(steps, "4}", [])
    solution, _, notes = await solve(store, model, max_passes=60)
    recorded = ReplayModel("scripted", "scripted@1", model.capabilities)
    again, run, shown = await solve(store, recorded, max_passes=60, new=False)
    assert again == solution
    assert [n.data for n in shown] == [n.data for n in notes]
    spent = run.ledger.usage()
    assert spent.replayed_calls == spent.model_calls == 2
    assert spent.replayed_tokens == spent.completion_tokens


async def test_single_worker(store):
    seen = []
    steps = {(ADA, 1): "I add.\n\n", (ADA, 2): "So \\boxed{4}.\n\n"}
    solution, *_ = await work(store, steps, seen=seen, workers=1, answer="confirmed")
    assert solution.best.answer == "4"
    assert OTHERS not in seen[-1][1]


# without a shared cache


def in_rounds(steps, asked):
    """A model that continues the partial step at the end of its prompt."""

    def script(text):
        asked.append(text)
        return {next_character(steps, text.rpartition("assistant: ")[2], "Hm.\n\n"): 1.0}

    return script


async def test_prefix_rounds_degrade_the_run(store):
    asked = []
    steps = {
        (ADA, 1): " I add.\n\n",
        (BEN, 1): " I look:\n\n2 and 2.\n\n",  # a blank line after a colon ends no step
        (ADA, 2): "So \\boxed{4}.\n\n",
    }
    solution, run, notes = await solve(store, ScriptedModel(in_rounds(steps, asked)))
    assert (solution.best.answer, solution.notes["level"]) == ("4", "interleaved")
    assert any("interleaved over prefixes" in what and "scripted" in what for what in run.degraded)
    assert [(s["worker"], s["number"]) for s in noted(notes, "step")] == [(0, 1), (0, 2), (1, 1)]
    assert solution.notes["rounds"] == 2
    first = f"{step_prefix(ADA, 1)}{opener(0, NAMES[:2])} I add.\n\n"
    assert any(text.endswith(PAST + first + step_prefix(ADA, 2)) for text in asked)
    assert any(text.endswith(f"{PAST}{first}{step_prefix(BEN, 1)}Hi, Ada! I look:\n\n") for text in asked)


async def test_rounds_reserve_time_for_the_answer(store, clock):
    """The final answer is requested with the transcript at that time."""
    written = []

    def script(text):
        if OUT_OF_TIME in text:
            return {"4}\n"[len(text.rpartition("{")[2])]: 1.0}
        written.append(text)
        return {"m": 1.0}  # a step without end

    async def slowly():
        await asyncio.sleep(2)

    model = ScriptedModel(script, step=slowly)
    solution, _, _ = await clock.run(solve(store, model, budget=Budget(seconds=300), max_passes=100_000))
    assert (solution.best.answer, solution.best.finish_reason) == ("4", "budget")
    assert solution.notes["ended"] == "budget"
    assert solution.best.text.count("m") > 20
    again, _, _ = await solve(store, ScriptedModel(script), budget=Budget(seconds=300), new=False, max_passes=100_000)
    assert again.best.text == solution.best.text


async def test_rounds_without_prefixes_use_messages(store):
    boards = []

    def script(text):
        board, _, written = text.rpartition("assistant: ")
        boards.append(board)
        reply = "I say \\boxed{4}." if f"You are {BEN}. Write your step 2" in board else "I think."
        return {(reply + END)[len(written)]: 1.0}

    solution, run, _ = await solve(store, ScriptedModel(script, changed={"prefix": False}))
    assert (solution.best.answer, solution.notes["level"]) == ("4", "blackboard")
    assert any("blackboard" in what for what in run.degraded)
    assert f"{step_prefix(ADA, 1)}{opener(0, NAMES[:2])}I think." in boards[-1]
    assert "(none yet)" in boards[0]


async def test_unsupported_level_raises(store):
    with pytest.raises(CapabilityMissing, match="kv_sharing"):
        await solve(store, ScriptedModel(lambda text: {END: 1.0}), level="full")


async def test_lower_level_can_be_requested(store):
    steps = {(ADA, 1): " So \\boxed{4}.\n\n"}
    model = ScriptedWorkers(saying({}), in_rounds(steps, []))
    solution, run, _ = await solve(store, model, level="interleaved")
    assert solution.notes["level"] == "interleaved"
    assert run.degraded == []
    assert model.groups == []


async def test_unlisted_model_raises_before_any_call(store):
    harness = RunHarness(store, ScriptedWorkers(saying({})))
    model = await harness.begin("r", strategy="hogwild", question=QUESTION, seed=1)
    with pytest.raises(UserError, match="not known to work with scripted"):
        await Hogwild(Hogwild.Config()).solve(QUESTION, Models({"main": model}), harness.run)
    assert harness.model.groups == []
