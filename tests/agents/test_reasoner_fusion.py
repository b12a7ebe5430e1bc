"""`fusion` with verifiers: an answer is checked and repaired while it is generated, and never taken back."""

from __future__ import annotations

import asyncio

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.planner import used_roles
from reason.agents.reasoner import Reasoner
from reason.core.errors import BackendUnavailable, NotVerified, UserError
from reason.core.events import MemorySink
from reason.core.types import Question
from support.scripted_model import ALWAYS_THINKS, ScriptedModel, answering, thinking

DRAFT = "Madrid is the capital of Spain."
WRONG = "Paris is the capital of France. Barcelona is the capital of Spain. Berlin is the capital of Germany."
RIGHT = WRONG.replace("Barcelona", "Madrid")
PARAMETERS = {"davinci": {"judge": "lexical", "verdicts": "none", "threshold": 0.5}}
ASKED = Question(text="What are capitals?", kind="text")


def author(prompt, before=WRONG, after=RIGHT):
    """A draft; then the synthesis, which is right once something was found wrong."""
    if "JSON" in prompt:
        return "{}"
    if "<answers>" not in prompt and "<check>" not in prompt:
        return DRAFT
    return after if "<check>" in prompt else before


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


def degraded(answer):
    """What is degraded besides the retrieval, which has no embedding model here."""
    return [what for what in answer.degraded if not what.startswith("evidence:")]


def stages(sink):
    return [e.stage for e in sink.of_type("stage.started")]


async def test_a_wrong_sentence_is_repaired_before_the_answer_ends(asking):
    answer, released, sink = await asking()
    assert answer.text == released == RIGHT
    assert answer.verification.verdict == "supported"
    assert stages(sink) == ["solve", "drafts", "synthesis", "verify"]  # it was not sent back
    main = asking.models["m/main"]
    (first,), (second,) = main.generate_calls
    assert second.prompt.prefix == "Paris is the capital of France."
    findings = second.prompt.messages[-1].content.partition("<check>")[2]
    assert "- wrong: Barcelona is the capital of Spain." in findings
    assert "evidence: Madrid is the capital of Spain." in findings
    assert first.prompt.prefix == ""
    assert degraded(answer) == []


async def test_what_was_checked_as_a_sentence_is_not_judged_again(asking, monkeypatch):
    from reason.verify.entailment.lexical import LexicalEntailment

    pairs = []
    judge = LexicalEntailment.judge

    async def counted(self, given):
        pairs.extend(given)
        return await judge(self, given)

    monkeypatch.setattr(LexicalEntailment, "judge", counted)
    _, _, sink = await asking()
    (ended,) = sink.of_type("verification.finished")
    assert len(ended.verification.claims) == 3
    run, replay = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
    assert run == replay
    assert len(run) == len(set(run))


async def test_a_sentence_that_stays_wrong_is_reported(asking):
    answer, released, sink = await asking(ScriptedModel(answering(lambda prompt: author(prompt, after=WRONG))))
    assert answer.text == released == WRONG
    assert answer.verification.verdict == "refuted"
    assert "repair" not in stages(sink)
    assert degraded(answer) == ["1 of the answer's sentences did not pass the check and is part of it all the same"]


async def test_a_model_that_continues_no_text_is_repaired_at_the_end(asking):
    main = ScriptedModel(
        thinking("Let me see.", answering(lambda prompt: author(prompt))), name="m/main", profile=ALWAYS_THINKS
    )
    answer, released, sink = await asking(main)
    assert (answer.text, released) == (RIGHT, "")
    assert stages(sink).count("repair") == 1
    assert "m/main cannot continue a given text: the answer is checked, and repaired, at its end" in answer.degraded


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


async def test_a_verifier_that_checks_no_parts_verifies_the_end(asking):
    answer, released, sink = await asking(
        verify=["edgejury"], verify_parameters={"edgejury": {"judge": "lexical", "davinci": {"threshold": 0.5}}}
    )
    assert released == ""
    assert answer.verification.verifiers == ("edgejury",)
    assert stages(sink).count("synthesis") == 1 + stages(sink).count("repair")


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
    reached = asyncio.Event()

    async def slow():
        if reached.is_set():
            await asyncio.sleep(0.001)

    main = ScriptedModel(answering(author), name="m/main", step=slow)
    asking.models["m/main"] = main
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


async def test_a_killed_run_resumes_without_paying_for_drafts_and_the_rejected_text_again(asking, settings, facts):
    class Held(ScriptedModel):
        """Blocks when it is told what was found, until `free` is set."""

        free, blocked = False, asyncio.Event()

        async def generate(self, requests, listener=None):
            if "<check>" in requests[0].prompt.messages[-1].content and not self.free:
                self.blocked.set()
                await asyncio.Event().wait()
            return await super().generate(requests, listener)

    main = asking.models["m/main"] = Held(answering(author), name="m/main")
    sink = MemorySink()
    checks = {"verify": ["davinci"], "verify_parameters": PARAMETERS, "evidence": [facts]}
    async with Reasoner(strategy="fusion", jurors=["a/one", "b/two"], settings=settings, **checks) as reasoner:
        work = asyncio.ensure_future(reasoner.aask(ASKED, sinks=[sink]))
        await main.blocked.wait()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        main.free = True
        (started,) = sink.of_type("run.started")
        answer = await reasoner.aresume(started.run_id)
    assert (answer.text, answer.verification.verdict) == (RIGHT, "supported")
    assert len(main.generate_calls) == 2  # the rejected text, and its continuation
    assert [len(asking.models[name].generate_calls) for name in ("a/one", "b/two")] == [1, 1]
    assert answer.usage.replayed_calls == 3


async def test_models_that_are_not_used_are_refused(settings):
    assert used_roles("fusion", (), {}) == {"main", "jury", "chair"}
    with pytest.raises(UserError, match="fusion") as e:
        Reasoner(strategy="cot", jurors=["a/one"], settings=settings)
    assert "fusion" in str(e.value.hint) + str(e.value)
