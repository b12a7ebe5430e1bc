"""Claims of a thought never count against an answer."""

import pytest
from reason.agents.reasoner import Reasoner
from reason.core.settings import Settings
from support.injected_models import loaded_models
from support.scripted_model import THINKS, ScriptedModel, thinking

RIGHT = "Madrid is the capital of Spain."
PARAMETERS = {"davinci": {"judge": "lexical", "verdicts": "none", "threshold": 0.5}}


@pytest.mark.parametrize(
    ("thought", "text"),
    [
        ("Barcelona is the capital of Spain. No: Madrid is the capital of Spain. 17 * 23 = 400.", RIGHT),
        ("17 * 23 = 400, or 6 * 7 = 40.", "17 * 23 = 391."),
    ],
)
async def test_what_only_the_thought_states_never_refutes_a_right_answer(tmp_path, thought, text):
    settings = Settings(model="scripted", embedding_model="none", store=tmp_path / "runs.sqlite3", seed=5)
    facts = tmp_path / "facts.md"
    facts.write_text("Paris is the capital of France. " + RIGHT)
    given = {"verify": ["davinci"], "verify_parameters": PARAMETERS, "evidence": [facts]}
    with loaded_models({"scripted": ScriptedModel(thinking(thought, text), profile=THINKS)}):
        async with Reasoner(settings=settings, **given) as reasoner:
            answer = await reasoner.aask("What is the capital of Spain?")
    assert (answer.text, answer.thought) == (text, thought)
    assert answer.verification.verdict == "supported"
    assert [(c.text, c.verdict) for c in answer.verification.claims] == [(text, "supported")]
