"""Stances of opinions on claims: by entailment over sentences, by a model, by words; and limits on calls."""

import math
import re

import pytest
from reason.core.budget import Budget
from reason.core.run import Run
from reason.verify.edgejury.jurors import family_of
from reason.verify.edgejury.jury import call_allowance
from reason.verify.edgejury.labels import choice_stances, collect_stances
from reason.verify.edgejury.types import Opinion
from reason.verify.entailment.judge import _MEANINGS
from reason.verify.types import Claim, Support
from support.scripted_entailment import ScriptedEntailment
from support.scripted_jury import OPEN, JuryRuns, ScriptedJuror, model
from support.scripted_model import ScriptedModel
from support.stored_runs import run_config

YES, NO, SILENT = Support(0.9, 0.05, 0.05), Support(0.05, 0.9, 0.05), Support(0.05, 0.05, 0.9)


def opinion(juror, text="It is so.", **more):
    return Opinion(juror=juror, model="m", text=text, ok=True, **more)


def claims(*texts):
    return [Claim(text=text, start=0, end=len(text)) for text in texts]


class Harness:
    """A run whose opinions are compared with claims by a judge."""

    def __init__(self, store, judge):
        self.run, self.judge = Run("r", run_config(strategy="edgejury"), store), judge

    async def stances(self, texts, opinions):
        return await collect_stances(claims(*texts), opinions, self.judge, self.run)


@pytest.fixture
async def begun(store):
    await store.create_run("r", {})
    return store


async def test_claims_are_compared_with_best_sentence_of_each_opinion(begun):
    judge = ScriptedEntailment(
        lambda pair: NO if ", no" in pair.evidence else YES if "yes" in pair.evidence else SILENT
    )
    runs = Harness(begun, judge)
    found = await runs.stances(
        ["The ferry sails daily.", "Tickets cost two pounds."],
        [opinion(0, "The ferry sails daily, yes. Tickets cost two pounds, no."), opinion(2, "Nothing of that.")],
    )
    assert found == [{0: "support", 2: "silent"}, {0: "contradict", 2: "silent"}]
    assert len(judge.calls) == 1


async def test_unparsed_verdict_is_no_stance(begun):
    runs = Harness(begun, ScriptedEntailment(lambda pair: None if "lost" in pair.evidence else YES))
    assert await runs.stances(["It is so."], [opinion(0), opinion(1, "All is lost.")]) == [{0: "support"}]


async def test_failed_judge_falls_back_to_words(begun):
    runs = Harness(begun, ScriptedEntailment(lambda pair: YES, failing=True))
    found = await runs.stances(
        ["Ada wrote the timetable."],
        [opinion(0, "Ada wrote the timetable."), opinion(1, "Ada never wrote the timetable.")],
    )
    assert found == [{0: "support", 1: "contradict"}]
    assert "compared by words" in runs.run.degraded[0]


def test_choices_are_stances_on_closed_answers():
    given = [opinion(0, choice="B"), opinion(1, choice="A"), opinion(2), Opinion(juror=3, model="m", ok=False)]
    assert choice_stances("B", given) == {0: "support", 1: "contradict", 2: "silent"}


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        (math.inf, (3, True, True, True)),
        (8, (3, True, True, True)),
        (7, (3, True, True, False)),
        (6, (3, False, True, False)),
        (5, (3, False, True, False)),
        (4, (3, False, False, False)),
        (2, (2, False, False, False)),
        (0, (1, False, False, False)),
    ],
)
def test_call_allowance(calls, expected):
    found = call_allowance(calls, 3)
    assert (found.jurors, found.review, found.chair, found.labels) == expected


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("local/Qwen2.5-Coder-0.5B", "qwen"),
        ("local/smollm2-135m", "smollm"),
        ("openai/gpt-4o", "gpt"),
        ("x/7", "7"),
        ("recorded/runs/pool.jsonl.gz:org/gpt-4o", "gpt"),
    ],
)
def test_family_of_model_name(name, family):
    assert family_of(name) == family


async def test_judge_model_gives_stances_within_the_call_limit(store):
    jury = {f"juror-{i}": model(ScriptedJuror("Ada wrote the timetable."), f"{i}/x") for i in (1, 2, 3)}
    chair = ScriptedJuror(chair=lambda prompt: '{"answer": "Ada wrote the timetable."}')

    def script(text):
        if "Which of these holds?" not in text:
            return chair.script(text)
        letter = re.search(rf"^(\w)\) {re.escape(_MEANINGS['supports'])}$", text, re.MULTILINE)[1]
        return {letter: 1.0}

    main = ScriptedModel(script, name="m/m")
    runs = JuryRuns(store, {"main": main, **jury})
    given = {"question": OPEN, "judge": "model"}
    await runs.solve("rich", **given)
    assert runs.spent.model_calls == 2 * 3 + 1 + 2  # equal opinions are judged once, in both orders of the letters
    assert runs.reports("jury.claim")[0]["support"] == [0, 1, 2]
    await runs.solve("poor", budget=Budget(calls=8), **given)
    assert runs.spent.model_calls == 2 * 3 + 1
    assert any("compared by words" in what for what in runs.run.degraded)
