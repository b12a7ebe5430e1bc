"""An answer that is released while it is generated, and checked before that."""

from __future__ import annotations

import asyncio

import pytest
from reason.core.budget import Budget
from reason.core.errors import BackendUnavailable
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.types import Question
from reason.reasoning.checked_stream import ReleasedText, generate_answer
from support.scripted_model import ScriptedModel, answering, replies
from support.stored_runs import RunHarness

QUESTION = Question(text="What are capitals?", kind="text")
TEXT = "Paris is a capital. Barcelona is a capital. Rome is one too."


class WordChecker:
    """Rejects a sentence that has one of the words; `checked` has what it was given."""

    def __init__(self, *words, error_at=None):
        self.words, self.error_at, self.checked = words, error_at, []

    async def findings(self, text, start):
        await asyncio.sleep(0)
        self.checked.append(text[start:])
        if len(self.checked) == self.error_at:
            raise BackendUnavailable("the judge is away")
        return tuple(f"- wrong: {word}" for word in self.words if word in text[start:])


corrected = answering(lambda prompt: TEXT.replace("Barcelona", "Madrid") if "- wrong: Barcelona" in prompt else TEXT)
"""Says something wrong first; told so, it continues with what is right."""


class Writing(RunHarness):
    async def write(self, *, name="r", checker=None, repairs=1, final=True, budget=None, stream=True, max_tokens=200):
        model = await self.begin(name, strategy="fusion", question=QUESTION, budget=budget, seed=3)
        self.run.stream_text = stream
        self.released = ReleasedText(self.run, is_final=final)
        request = Request(prompt=Prompt.user(QUESTION.text), sampling=SamplingParams(max_tokens=max_tokens))
        return await generate_answer(
            model, request, self.released, QUESTION, self.run, checker=checker, repairs=repairs
        )

    @property
    def pieces(self):
        return [(e.answer_start, e.text) for e in self.sink.of_type("text.delta") if e.answer_start is not None]


def joined(pieces):
    """The released text; every piece begins where the one before it ended."""
    text = ""
    for start, piece in pieces:
        assert start == len(text)
        text += piece
    return text


async def test_without_a_checker_every_token_is_released_as_it_comes(store):
    writing = Writing(store, ScriptedModel(replies(TEXT)))
    answer = await writing.write()
    assert joined(writing.pieces) == answer.completion.text == TEXT
    assert len(writing.pieces) == len(TEXT)  # a token is a character
    assert answer.completion.logprobs is not None  # it is one sample, as it was generated
    assert (answer.repairs, answer.rejected) == (0, 0)


async def test_sentences_are_released_after_their_check(store):
    writing, checker = Writing(store, ScriptedModel(replies(TEXT))), WordChecker()
    answer = await writing.write(checker=checker)
    assert [text for _, text in writing.pieces] == [
        "Paris is a capital.",
        " Barcelona is a capital.",
        " Rome is one too.",
    ]
    assert checker.checked == [text for _, text in writing.pieces]
    assert answer.completion.text == joined(writing.pieces) == TEXT


async def test_a_rejected_sentence_is_replaced_by_a_continuation_of_what_was_released(store):
    model = ScriptedModel(corrected)
    writing, checker = Writing(store, model), WordChecker("Barcelona")
    answer = await writing.write(checker=checker)
    right = TEXT.replace("Barcelona", "Madrid")
    assert answer.completion.text == joined(writing.pieces) == right
    assert (answer.repairs, answer.rejected, writing.run.degraded) == (1, 0, [])
    first, second = (call[0] for call in model.generate_calls)
    assert second.prompt.prefix == "Paris is a capital."
    assert "- wrong: Barcelona" in second.prompt.messages[-1].content
    assert second.prompt.messages[-1].content.startswith(first.prompt.messages[-1].content)
    assert second.sampling.max_tokens < first.sampling.max_tokens
    assert model.running == 0
    (note,) = [e for e in writing.sink.of_type("strategy.note") if e.name == "sentence.rejected"]
    assert note.data == {"start": len("Paris is a capital."), "findings": ["- wrong: Barcelona"]}


async def test_a_rejected_sentence_stops_the_generation(store):
    endless = TEXT + " And so on" * 1000 + "."
    model = ScriptedModel(replies(endless), context_tokens=10**6)
    writing = Writing(store, model)
    await writing.write(checker=WordChecker("Barcelona"), max_tokens=20_000, repairs=1, budget=Budget(calls=1))
    assert writing.run.ledger.usage().completion_tokens < len(endless) / 2


async def test_after_the_repairs_a_rejected_sentence_is_released_and_reported(store):
    writing = Writing(store, ScriptedModel(replies(TEXT)))
    answer = await writing.write(checker=WordChecker("Barcelona"), repairs=1)
    assert answer.completion.text == joined(writing.pieces) == TEXT
    assert (answer.repairs, answer.rejected) == (1, 1)
    assert writing.run.degraded == ["1 of the answer's sentences did not pass the check and is part of it all the same"]


async def test_a_repair_that_the_budget_does_not_cover_leaves_the_text_and_says_so(store):
    writing = Writing(store, ScriptedModel(replies(TEXT)))
    answer = await writing.write(checker=WordChecker("Barcelona"), budget=Budget(calls=1))
    assert answer.completion.text.startswith("Paris is a capital. Barcelona is a capital.")
    assert answer.completion.text == joined(writing.pieces)
    assert (answer.repairs, answer.rejected, answer.completion.finish_reason) == (0, 1, "budget")
    assert "a sentence that the check rejected could not be repaired" in writing.run.degraded


async def test_a_first_sentence_is_repaired_too(store):
    script = answering(lambda prompt: "It is Madrid." if "- wrong" in prompt else "It is Barcelona.")
    writing = Writing(store, ScriptedModel(script))
    answer = await writing.write(checker=WordChecker("Barcelona"))
    assert answer.completion.text == joined(writing.pieces) == "It is Madrid."


async def test_a_check_that_fails_leaves_the_rest_unchecked_and_says_so(store):
    writing, checker = Writing(store, ScriptedModel(replies(TEXT))), WordChecker("Barcelona", error_at=2)
    answer = await writing.write(checker=checker)
    assert answer.completion.text == TEXT
    assert len(checker.checked) == 2
    assert writing.run.degraded == ["the rest of the answer was not checked while it was written: the judge is away"]


async def test_no_client_gets_text_that_is_not_final(store):
    writing = Writing(store, ScriptedModel(replies(TEXT)))
    answer = await writing.write(final=False)
    assert (writing.pieces, writing.released.is_seen, answer.completion.text) == ([], False, TEXT)
    writing = Writing(store, ScriptedModel(replies(TEXT)))
    answer = await writing.write(name="s", stream=False)
    assert (writing.pieces, writing.released.is_seen, answer.completion.text) == ([], False, TEXT)


async def test_a_resumed_answer_repeats_no_call(store):
    writing = Writing(store, ScriptedModel(corrected))
    first = await writing.write(checker=WordChecker("Barcelona"))
    spent = writing.run.ledger.usage()
    again = Writing(store, ScriptedModel(corrected))
    again.begun.add("r")
    second = await again.write(checker=WordChecker("Barcelona"))
    assert second == first
    assert again.model.generate_calls == []
    usage = again.run.ledger.usage()
    assert (usage.model_calls, usage.replayed_calls) == (spent.model_calls, spent.model_calls)
    assert usage.completion_tokens == spent.completion_tokens


async def test_an_error_of_the_model_is_raised(store):
    writing = Writing(store, ScriptedModel(replies(TEXT), failing=frozenset({0})))
    with pytest.raises(Exception, match="scripted to fail"):
        await writing.write(checker=WordChecker())
