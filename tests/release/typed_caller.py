"""A caller's program, with the types that it relies on; mypy reads it in strict mode against the installed wheel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, assert_type

from reason import (
    Answer,
    Budget,
    Candidate,
    Document,
    Event,
    Message,
    Models,
    Parameters,
    Prompt,
    Question,
    Reasoner,
    ReasonError,
    Request,
    RunFinished,
    SamplingParams,
    Settings,
    Solution,
    Strategy,
    TextDelta,
    TextVerification,
    __version__,
    aask,
    ask,
    astream,
    interrupted_run,
    verify_text,
)
from reason.core.registry import Stability
from reason.core.run import Run
from reason.reasoning.answers.extraction import ExtractedAnswer, answer_kind, extract_answer
from reason.serving.model import Feature

assert_type(__version__, str)


def asked_at_once(texts: Sequence[str]) -> list[str | None]:
    answers = [ask(text, strategy="cot", budget=Budget(tokens=200)) for text in texts]
    assert_type(answers, list[Answer])
    assert_type(answers[0].confidence, float | None)
    assert_type(answers[0].usage.completion_tokens, int)
    return [answer.answer for answer in answers]


async def asked_one_after_another(question: Question) -> int:
    documents = (Document(name="notes", text="Paris is the capital of France."),)
    try:
        async with Reasoner(strategy="self-consistency", parameters={"n": 4}, budget={"tokens": 500}) as reasoner:
            assert_type(reasoner, Reasoner)
            answer = await reasoner.aask(question, documents=documents, seed=1)
            again = await reasoner.areplay(answer.run_id)
    except ReasonError as error:
        assert_type(error.hint, str)
        return error.exit_code
    assert_type(again.candidates[0].answer, str | None)
    assert_type(await aask("2 + 2?", choices=("3", "4")), Answer)
    return 0


async def followed(text: str) -> AsyncIterator[str]:
    async for event in astream(text):
        assert_type(event, Event)
        match event:
            case TextDelta():
                yield event.text
            case RunFinished():
                assert_type(event.answer, Answer)
                yield event.answer.text


async def continued(reasoner: Reasoner, text: str) -> Answer:
    try:
        return await reasoner.aask(text)
    except asyncio.CancelledError as error:
        name = interrupted_run(error)
        assert_type(name, str | None)
        return await reasoner.aresume(name or "")


def checked(text: str) -> bool:
    found = verify_text(text, evidence=["notes/"], settings=Settings())
    assert_type(found, TextVerification)
    return all(report.verdict == "supported" for report in found.reports)


class EchoParameters(Parameters):
    """How often it says it."""

    times: int = 1


class Echo:
    """A strategy of a caller's own."""

    name: ClassVar[str] = "echo"
    summary: ClassVar[str] = "says what it was asked"
    paper: ClassVar[str] = ""
    confidence: ClassVar[str] = "It has none."
    stability: ClassVar[Stability] = "experimental"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)

    Config: ClassVar[type[Parameters]] = EchoParameters

    def __init__(self, config: EchoParameters) -> None:
        self._times = config.times

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        prompt = Prompt(messages=(Message(role="user", content=question.text),))
        [completions] = await models.main.generate([Request(prompt=prompt, sampling=SamplingParams(n=self._times))])
        texts = [completion.text for completion in completions if completion.ok]
        assert_type(texts, list[str])
        found = extract_answer(texts[0], question)
        assert_type(found, ExtractedAnswer | None)
        assert answer_kind(question)
        return Solution(candidates=tuple(Candidate(text=text) for text in texts), chosen=0)


OWN: type[Strategy] = Echo
