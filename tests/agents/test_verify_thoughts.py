"""Thoughts never count against an answer; on request their claims are checked too, apart from the answer's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from reason.agents.pipeline import check_thought
from reason.agents.reasoner import Reasoner
from reason.core.errors import BackendError
from reason.core.settings import Settings
from reason.core.types import Answer, Candidate, ClaimCounts, Question, Verification
from support.injected_models import loaded_models
from support.scripted_model import ALWAYS_THINKS, HIDES_THOUGHTS, THINKS, ScriptedModel, thinking

FACTS = "Paris is the capital of France. Madrid is the capital of Spain."
THOUGHT = "Barcelona is the capital of Spain. No: Madrid is the capital of Spain. 17 * 23 = 400."
RIGHT = "Madrid is the capital of Spain."
PARAMETERS = {"davinci": {"judge": "lexical", "verdicts": "none", "threshold": 0.5}}


def notes(answer: Answer) -> list[str]:
    """What was degraded, apart from the missing embedding model."""
    return [note for note in answer.degraded if not note.startswith("evidence: passages are retrieved by their words")]


@pytest.fixture
def ask(tmp_path):
    """Asks a model that thinks; returns the answer, which a replay repeats."""
    settings = Settings(
        model="scripted", embedding_model="none", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5
    )
    facts = tmp_path / "facts.md"
    facts.write_text(FACTS)

    async def asked(thought=THOUGHT, text=RIGHT, profile=THINKS, **options) -> Answer:
        model = ScriptedModel(thinking(thought, text), profile=profile)
        given = {"verify": ["davinci"], "verify_parameters": PARAMETERS, "evidence": [facts], **options}
        with loaded_models({"scripted": model}):
            async with Reasoner(settings=settings, **given) as reasoner:
                answer = await reasoner.aask("What is the capital of Spain?")
                again = await reasoner.areplay(answer.run_id)
        assert (again.text, again.verification) == (answer.text, answer.verification)
        return answer

    return asked


async def test_what_only_the_thought_states_never_refutes_a_right_answer(ask):
    answer = await ask()
    assert (answer.text, answer.thought) == (RIGHT, THOUGHT)
    assert answer.verification.verdict == "supported"
    assert [(c.text, c.verdict) for c in answer.verification.claims] == [(RIGHT, "supported")]
    assert notes(answer) == []


async def test_a_sum_that_is_wrong_only_in_the_thought_never_refutes_a_right_answer(ask):
    answer = await ask("17 * 23 = 400, or 6 * 7 = 40.", "17 * 23 = 391.")
    assert answer.verification.verdict == "supported"
    assert answer.verification.counts == ClaimCounts(supported=1)


async def test_claims_of_the_thought_are_checked_on_request_and_change_no_verdict(ask):
    before, answer = await ask(), await ask(verify_thoughts=True)
    verification = answer.verification
    assert (verification.verdict, verification.support) == (before.verification.verdict, before.verification.support)
    assert verification.counts == before.verification.counts
    assert verification.answer_claims == before.verification.claims
    wrong, right, product = verification.thought_claims
    assert (wrong.verdict, right.verdict, product.verdict) == ("refuted", "supported", "refuted")
    assert [c.part for c in verification.claims] == ["answer", *["thought"] * 3]
    for claim in verification.thought_claims:
        assert answer.thought[claim.start : claim.end].rstrip(".").endswith(claim.text.rstrip(".")[-10:])
        assert claim.evidence
        assert claim.origins == ()
    assert wrong.evidence[0].text == RIGHT
    assert notes(answer) == []


async def test_refuted_claims_of_a_thought_cause_no_repair(ask):
    answer = await ask(verify_thoughts=True, repairs=3)
    assert answer.usage.model_calls == 1


async def test_the_part_is_in_the_json_only_where_it_is_the_thought(ask):
    verification = (await ask(verify_thoughts=True)).verification
    answer, *thought = verification.model_dump(mode="json")["claims"]
    assert "part" not in answer
    assert [claim["part"] for claim in thought] == ["thought"] * 3
    assert Verification.model_validate(verification.model_dump(mode="json")) == verification


async def test_a_hidden_thought_cannot_be_checked_and_that_is_said(ask):
    answer = await ask(profile=HIDES_THOUGHTS, verify_thoughts=True)
    assert answer.verification.thought_claims == ()
    assert notes(answer) == ["the claims of the thought were not checked: the model's provider hides it"]


async def test_a_shown_thought_of_a_model_that_always_thinks_is_checked(ask):
    answer = await ask(profile=ALWAYS_THINKS, verify_thoughts=True)
    assert len(answer.verification.thought_claims) == 3


async def test_without_a_thought_there_is_nothing_to_check(ask):
    answer = await ask(verify_thoughts=True, effort="none")
    assert (answer.thought, answer.verification.thought_claims, notes(answer)) == ("", (), [])


async def test_the_jury_checks_a_thought_by_evidence_alone(ask):
    parameters = {"edgejury": {"judge": "lexical", "davinci": PARAMETERS["davinci"]}}
    answer = await ask(verify=["edgejury"], verify_parameters=parameters, verify_thoughts=True)
    assert [c.verdict for c in answer.verification.thought_claims] == ["refuted", "supported", "refuted"]
    assert all("jurors" not in c.note for c in answer.verification.thought_claims)


class Whole:
    """A verifier that splits nothing into claims."""

    name = "whole"


class Failing:
    """A verifier whose model fails."""

    name = "failing"

    async def verify_thought(self, question, thought, context):
        raise BackendError("no such server")


@pytest.mark.parametrize(("verifier", "note"), [(Whole(), "whole cannot; davinci can"), (Failing(), "no such server")])
async def test_what_prevents_the_check_is_said_and_the_answer_stays(verifier, note):
    told: list[str] = []
    best = Candidate(text=RIGHT, thought=THOUGHT, thinking_tokens=9)
    run = SimpleNamespace(degrade=told.append)
    assert await check_thought(best, Question(text="q"), [(verifier, None)], run) == ()
    assert told == [f"the claims of the thought were not checked: {note}"]
