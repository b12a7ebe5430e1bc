"""`fusion` with verifiers: an answer is streamed only if nothing that follows can take it back."""

from __future__ import annotations

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.planner import used_roles
from reason.agents.reasoner import Reasoner
from reason.core.errors import BackendUnavailable, NotVerified, UserError
from reason.core.events import MemorySink
from reason.core.types import Question
from support.scripted_model import ScriptedModel, answering

DRAFT = "Madrid is the capital of Spain."
WRONG = "Paris is the capital of France. Barcelona is the capital of Spain. Berlin is the capital of Germany."
RIGHT = WRONG.replace("Barcelona", "Madrid")
PARAMETERS = {"davinci": {"judge": "lexical", "verdicts": "none", "threshold": 0.5}}
ASKED = Question(text="What are capitals?", kind="text")


def author(prompt, before=WRONG, after=RIGHT):
    """A draft; then the synthesis, which is right once something was found wrong."""
    if "JSON" in prompt:
        return "{}"
    if "<answers>" not in prompt:
        return DRAFT
    return after if "Earlier answer" in prompt else before


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"model": "m/main"})


@pytest.fixture
def asking(monkeypatch, settings, facts):
    """Asks models that answer by their prompts; returns the answer, the released text and the sink."""
    models = {}

    async def load_model(name, *_):
        if name not in models:
            models[name] = ScriptedModel(answering(author), name=name)
        return models[name]

    monkeypatch.setattr(reasoner_module, "load_model", load_model)

    async def ask(main=None, others=None, **options):
        models.clear()
        models.update(others or {})
        if main is not None:
            models["m/main"] = main
        sink = MemorySink()
        given = {
            "strategy": "fusion",
            "jurors": ["a/one", "b/two"],
            "verify": ["davinci"],
            "verify_parameters": PARAMETERS,
            "evidence": [facts],
            **options,
        }
        async with Reasoner(settings=settings, **given) as reasoner:
            answer = await reasoner.aask(ASKED, sinks=[sink], stream_text=True)
            again = await reasoner.areplay(answer.run_id)
        assert again.model_copy(update={"usage": answer.usage}) == answer
        text = ""
        for event in sink.of_type("text.delta"):
            if event.answer_start is not None:
                assert event.answer_start == len(text)  # nothing is taken back
                text += event.text
        return answer, text, sink

    ask.models = models
    return ask


def stages(sink):
    return [e.stage for e in sink.of_type("stage.started")]


async def test_an_answer_that_may_be_repaired_is_not_released(asking):
    answer, released, sink = await asking()
    assert (answer.text, released) == (RIGHT, "")
    assert answer.verification.verdict == "supported"
    assert stages(sink).count("repair") == 1


async def test_a_second_attempt_is_not_released_since_the_first_may_stay(asking):
    class NoSynthesis(ScriptedModel):
        """Fails at its first synthesis, so that the answer is a draft, which does not pass."""

        failures = 1

        async def generate(self, requests, listener=None):
            if "<answers>" in requests[0].prompt.messages[-1].content and self.failures:
                self.failures -= 1
                raise BackendUnavailable("no such host")
            return await super().generate(requests, listener)

    main = NoSynthesis(answering(lambda prompt: author(prompt, after=WRONG)), name="m/main")
    juror = ScriptedModel(answering(lambda prompt: "Barcelona is the capital of Spain."), name="a/one")
    answer, released, sink = await asking(main, others={"a/one": juror}, jurors=["a/one"])
    assert released == ""
    assert stages(sink).count("repair") == 1
    assert answer.text == WRONG  # it is better verified than the draft, though not right


async def test_another_strategy_that_calls_it_may_discard_its_answer(asking, settings):
    await asking(verify=[], verify_parameters={}, evidence=[])
    sink = MemorySink()
    cascade = {"strategy": "cascade", "parameters": {"first": "fusion"}, "small_model": "a/one"}
    async with Reasoner(settings=settings, **cascade) as reasoner:
        answer = await reasoner.aask(ASKED, sinks=[sink], stream_text=True)
    assert answer.text
    assert [e for e in sink.of_type("text.delta") if e.answer_start is not None] == []


async def test_without_repairs_the_answer_is_streamed_and_verified_at_its_end(asking):
    answer, released, sink = await asking(repairs=0)
    assert answer.text == released == WRONG
    assert answer.verification.verdict == "refuted"
    assert len([e for e in sink.of_type("text.delta") if e.answer_start is not None]) == len(WRONG)


async def test_a_required_verification_is_waited_for(asking, settings, facts):
    answer, released, _ = await asking(require_verified=True)
    assert (answer.text, released, answer.verification.verdict) == (RIGHT, "", "supported")
    wrong = ScriptedModel(answering(lambda prompt: author(prompt, after=WRONG)))
    with pytest.raises(NotVerified):
        await asking(wrong, require_verified=True)


async def test_without_verifiers_every_token_is_released(asking):
    answer, released, sink = await asking(verify=[], verify_parameters={}, evidence=[])
    assert answer.text == released == WRONG
    assert len([e for e in sink.of_type("text.delta") if e.answer_start is not None]) == len(WRONG)
    assert answer.verification is None


async def test_an_answer_in_a_schema_is_not_released(asking, settings):
    asked = Question(text="What?", kind="text", answer_schema={"type": "object", "properties": {}})
    await asking(verify=[], verify_parameters={}, evidence=[])
    sink = MemorySink()
    async with Reasoner(settings=settings, strategy="fusion", jurors=["a/one", "b/two"]) as reasoner:
        await reasoner.aask(asked, sinks=[sink], stream_text=True)
    assert [e for e in sink.of_type("text.delta") if e.answer_start is not None] == []


async def test_a_user_who_wants_the_answer_now_gets_what_was_released_and_its_end(asking, settings):
    asking.models["m/main"] = ScriptedModel(answering(author), name="m/main")
    sink = MemorySink()
    async with Reasoner(settings=settings, strategy="fusion", jurors=["a/one", "b/two"]) as reasoner:
        text = ""

        def conclude(event):
            nonlocal text
            if event.type == "text.delta" and event.answer_start is not None:
                text += event.text
                if len(text) == 40:
                    reasoner.conclude(event.run_id)

        answer = await reasoner.aask(ASKED, sinks=[sink, conclude], stream_text=True)
    assert answer.stopped == "user"
    assert answer.text.startswith(text)
    assert text == WRONG[: len(text)] != WRONG


async def test_models_that_are_not_used_are_refused(settings):
    assert used_roles("fusion", (), {}) == {"main", "jury"}
    with pytest.raises(UserError, match="fusion") as e:
        Reasoner(strategy="cot", jurors=["a/one"], settings=settings)
    assert "fusion" in str(e.value.hint) + str(e.value)
