"""`fusion` on the default model: drafts, a streamed synthesis, its verification, a replay. Mechanics, not quality."""

from __future__ import annotations

import pytest
from reason.agents.reasoner import Reasoner
from reason.core.events import MemorySink
from reason.core.settings import load_settings

pytestmark = pytest.mark.real

QUESTION = "Why do leaves fall in autumn?"


@pytest.mark.nightly
@pytest.mark.parametrize("check", [False, True])
async def test_the_released_text_is_the_answer(smollm2_files, tmp_path, check):
    settings = load_settings(model="local/smollm2-135m", store=tmp_path / "runs.sqlite3", seed=7)
    options = {"verify": ["davinci"], "verify_parameters": {"davinci": {"judge": "lexical"}}} if check else {}
    if check:
        evidence = tmp_path / "leaves.md"
        evidence.write_text("Leaves fall in autumn because trees save water. Trees do not fall in spring.")
        options["evidence"] = [evidence]
    rule = {"rule": "first-finished", "finished": 2}
    parameters = {"n": 3, "max_tokens": 48, "synthesis_tokens": 64, "stopping": rule}
    sink = MemorySink()
    async with Reasoner(
        strategy="fusion", parameters=parameters, settings=settings, budget={"tokens": 600}, **options
    ) as reasoner:
        answer = await reasoner.aask(QUESTION, sinks=[sink], stream_text=True)
        again = await reasoner.areplay(answer.run_id)
    released = [event for event in sink.of_type("text.delta") if event.answer_start is not None]
    assert "".join(event.text for event in released) == ("" if check else answer.text)
    assert check or len(released) > 1
    assert answer.usage.completion_tokens <= 600
    (solved,) = sink.of_type("solution.finished")
    assert 2 <= len(solved.solution.notes["drafts"]) <= 3
    assert (again.text, again.verification) == (answer.text, answer.verification)
    assert (answer.verification is not None) is check
