"""A jury of models that think: answers alone are read and shown; what was cut in a thought is concluded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from reason.core.budget import Budget
from reason.core.store.sqlite import SqliteStore
from reason.serving.profiles.profile import ModelProfile
from support.scripted_jury import JuryRuns, ScriptedJuror, kind_of, letter_of, model, prompts, rules, says
from support.scripted_model import ALWAYS_THINKS, THINKS, ScriptedModel

FAMILIES = ("a/one", "b/two", "c/three")


@pytest.fixture
async def store(tmp_path):
    opened = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield opened
    await opened.aclose()


def gold(text: str) -> tuple[int, int, int]:
    return (9, 8, 8) if "Canberra" in text else (3, 4, 5)


def jury(thought, profile: ModelProfile = THINKS, opinion=says, **options: Any) -> dict[str, ScriptedModel]:
    """Two jurors for Canberra, one for Sydney, and a chair for Canberra, who all think.

    Args:
        thought: What each thinks before it writes, a function of the kind of the prompt.
    """
    made = {
        "main": model(
            ScriptedJuror(chair=rules("Canberra it is.", "Canberra")),
            "m/chair",
            lambda prompt: thought(kind_of(prompt)),
            profile=profile,
            **options,
        )
    }
    for i, (name, option) in enumerate(zip(FAMILIES, ("Sydney", "Canberra", "Canberra"), strict=True), 1):
        juror = ScriptedJuror(opinion(option), gold)
        made[f"juror-{i}"] = model(juror, name, lambda prompt: thought(kind_of(prompt)), profile=profile, **options)
    return made


def requests_of(scripted: ScriptedModel, kind: str) -> list[Any]:
    calls = [request for call in scripted.generate_calls for request in call]
    return [request for request in calls if kind_of(scripted.render(request.prompt)) == kind]


def triggered(option: str):
    """An opinion that begins as the conclusion of a thought does."""
    return lambda prompt: f"Therefore, the letter of the correct choice is ({letter_of(prompt, option)})."


async def test_only_answers_are_read_shown_and_voted_on(store):
    runs = JuryRuns(store, jury(lambda kind: f"Zorvex thinks of {kind}: the answer is Perth."))
    solution = await runs.solve(early_exit=False)
    assert solution.best.answer == "B"
    assert [c.answer for c in solution.candidates] == ["A", "B", "B", "B"]
    thoughts = ["Zorvex thinks of opinion: the answer is Perth."] * 3 + ["Zorvex thinks of chair: the answer is Perth."]
    assert [c.thought for c in solution.candidates] == thoughts
    assert [c.thinking_tokens for c in solution.candidates] == [len(thought) + 2 for thought in thoughts]
    assert not any("Zorvex" in c.text for c in solution.candidates)
    assert not any("Zorvex" in p for scripted in runs.by_role.values() for p in prompts(scripted))
    assert runs.spent.thinking_tokens == sum(
        len(f"Zorvex thinks of {kind}: the answer is Perth.") + 2 for kind in [*["opinion", "review"] * 3, "chair"]
    )
    assert runs.spent.model_calls == 7
    again = await runs.solve(early_exit=False, replay=True)
    assert again.candidates == solution.candidates


async def test_calls_that_reason_think_and_have_no_prefix(store):
    runs = JuryRuns(store, jury(lambda kind: "So."))
    await runs.solve(early_exit=False)
    (review,), (chair,) = (
        requests_of(runs.by_role["juror-1"], "review"),
        requests_of(runs.by_role["main"], "chair"),
    )
    for request in (review, chair):
        assert request.prompt.prefix == ""
        assert (request.sampling.effort, request.sampling.temperature) == (None, None)
        assert request.sampling.thinking_tokens == 8192


async def test_opinions_cut_in_a_thought_are_concluded_after_it_and_reported(store):
    long = jury(lambda kind: "The seat is elsewhere. " * 10 if kind == "opinion" else "So.", opinion=triggered)
    runs = JuryRuns(store, long)
    solution = await runs.solve(early_exit=False, limit=40)
    assert [c.answer for c in solution.candidates[:3]] == ["A", "B", "B"]
    assert solution.best.answer == "B"
    first, second = requests_of(long["juror-1"], "opinion")
    assert (first.sampling.effort, first.sampling.thinking_tokens) == (None, 40)
    assert second.prompt.thought.closed
    assert second.prompt.thought.text.startswith("The seat is elsewhere.")
    assert second.sampling.effort == "none"
    assert [c.thinking_tokens for c in solution.candidates[:3]] == [40] * 3
    told = "3 of 3 jurors were cut while thinking; their answers were requested after the unfinished thoughts"
    assert f"edgejury: {told}" in runs.run.degraded
    again = await runs.solve(early_exit=False, limit=40, replay=True)
    assert again.candidates == solution.candidates


async def test_a_juror_that_cannot_be_concluded_has_no_opinion_and_that_is_reported(store):
    endless = "I wonder. " * 300
    made = jury(lambda kind: "So.")
    made["juror-1"] = model(ScriptedJuror(says("Sydney"), gold), "a/one", lambda prompt: endless, profile=ALWAYS_THINKS)
    runs = JuryRuns(store, made)
    solution = await runs.solve(early_exit=False, limit=50)
    opinion = runs.reports("jury.opinion")[0]
    assert (opinion["ok"], opinion["failure"]) == (False, "a thought but no answer")
    assert solution.best.answer == "B"
    assert any("1 of 3 jurors were cut while thinking and have no opinion" in note for note in runs.run.degraded)


async def test_a_jury_that_only_thinks_has_no_answer_and_says_why(store):
    runs = JuryRuns(store, jury(lambda kind: "I wonder. " * 300, ALWAYS_THINKS))
    solution = await runs.solve(limit=50)
    assert (solution.best, solution.candidates) == (None, ())
    assert any("3 of 3 jurors were cut while thinking and have no opinion" in note for note in runs.run.degraded)
    again = await runs.solve(limit=50, replay=True)
    assert again == solution


async def test_a_review_cut_in_its_thought_is_requested_again_without_one(store):
    runs = JuryRuns(store, jury(lambda kind: "I doubt it all. " * 10 if kind == "review" else "So."))
    await runs.solve(early_exit=False, limit=60)
    assert [review["ok"] for review in runs.reports("jury.review")] == [True] * 3
    first, second = requests_of(runs.by_role["juror-2"], "review")
    assert (first.sampling.effort, second.sampling.effort) == (None, "none")
    assert any("3 of 3 reviewers were cut while thinking" in note for note in runs.run.degraded)


async def test_a_chair_cut_in_its_thought_is_asked_again_without_one(store):
    chair = ScriptedJuror(
        chair=lambda prompt: (
            f"Canberra it is.\nAnswer: {letter_of(prompt, 'Canberra')}"
            if "No answer could be read from your reply" in prompt
            else "unreached"
        )
    )
    made = jury(lambda kind: "So.")
    made["main"] = model(chair, "m/chair", lambda prompt: "I weigh them. " * 10, profile=THINKS)
    runs = JuryRuns(store, made)
    solution = await runs.solve(early_exit=False, limit=60)
    assert solution.best.answer == "B"
    assert solution.best.text.startswith("Canberra it is.")
    assert (solution.best.thought, solution.best.thinking_tokens) == ("", 60)
    assert any("the chair was cut while thinking" in note for note in runs.run.degraded)


async def test_shares_of_a_budget_hold_for_thought_and_answer_together(store):
    runs = JuryRuns(store, jury(lambda kind: "I doubt it all. " * 100))
    solution = await runs.solve(early_exit=False, budget=Budget(tokens=900))
    assert solution.stopped == "budget"
    assert runs.spent.completion_tokens <= 900
    for i in (1, 2, 3):
        first = requests_of(runs.by_role[f"juror-{i}"], "opinion")[0]
        assert first.sampling.total_tokens <= 300


async def test_a_limit_of_thoughts_is_shared_by_the_jurors(store):
    runs = JuryRuns(store, jury(lambda kind: "I doubt it all. " * 100, opinion=triggered))
    solution = await runs.solve(early_exit=True, budget=Budget(thinking_tokens=300))
    assert runs.spent.thinking_tokens <= 300
    for i in (1, 2, 3):
        assert requests_of(runs.by_role[f"juror-{i}"], "opinion")[0].sampling.thinking_tokens == 100
    assert solution.best.answer == "B"


@pytest.mark.parametrize(("steps", "text"), [(10, ""), (120, "That is")])
async def test_the_user_may_want_the_answer_while_the_jurors_think_or_write(store, steps, text):
    made = []
    all_began = asyncio.Event()

    async def step() -> None:  # of all jurors, who share a model: none writes before the last has begun
        if only.running == len(FAMILIES):
            all_began.set()
        await all_began.wait()
        made.append(1)
        if len(made) == steps:
            runs.run.conclude()

    only = model(ScriptedJuror(says("Sydney")), "m/only", lambda prompt: "I wonder. " * 3, profile=THINKS, step=step)
    runs = JuryRuns(store, {"main": only})
    solution = await runs.solve(early_exit=False)
    assert solution.stopped == "budget"
    assert runs.run.ledger.exhausted == "user"
    assert len(runs.run.partial_completions) == runs.spent.model_calls == 3  # nothing begins afterwards
    assert {partial.text.strip()[:7] for _, partial in runs.run.partial_completions} == {text}
