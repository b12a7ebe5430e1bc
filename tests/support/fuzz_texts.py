"""Fuzz targets of the parsers of model output: any text gives a valid result and no exception.

A target is a function of bytes. A promise that does not hold is an `AssertionError`; any other exception is one that
the reader does not have in its contract.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from reason.core.messages import Completion, canonical_calls, is_canonical_calls, parse_json
from reason.core.types import Candidate, Question
from reason.reasoning.anonymity import Blinding
from reason.reasoning.answers.equivalence import equal_without_algebra, is_heavy, normalize_formula, normalize_text
from reason.reasoning.answers.extraction import complete_sentences, extract_answer, read_candidate, restatement
from reason.reasoning.answers.normalization import visible_text
from reason.reasoning.coat.association import read_items
from reason.reasoning.coat.judge import read_scores
from reason.reasoning.rlot.assessment import read_assessment
from reason.reasoning.rlot.block_runner import read_list, read_number, read_step, read_yes_no
from reason.reasoning.segmentation import sentence_spans, split_steps
from reason.serving.output_schemas import find_object
from reason.serving.tool_calls import ToolCallParser, parse_call_json, parse_tool_calls
from reason.verify.claims import parse_entries, split_claims
from reason.verify.edgejury.answering import read_opinion
from reason.verify.edgejury.chair import read_chair
from reason.verify.edgejury.jurors import OptionOrder
from reason.verify.edgejury.panel import find_text
from reason.verify.edgejury.review import read_review
from reason.verify.entailment.judge import parse_vote

Target = Callable[[bytes], None]

QUESTIONS = (
    Question(text="What is 6 * 7?", kind="number"),
    Question(text="Simplify x + x.", kind="math"),
    Question(text="Is 7 prime?", kind="yes_no"),
    Question(text="Which city is the capital?", choices=("Rome", "Paris", "Bern", "Oslo")),
    Question(text="Who wrote Hamlet?", kind="text"),
    Question(text="What share is it, in percent?"),
)
BLIND = Blinding(letters=("A", "B", "C"), jurors=(2, 0, 1))
TOOLS = ("look_up", "add")


def text_of(data: bytes) -> str:
    """The bytes as text, possibly with lone surrogates, which JSON can contain; other invalid UTF-8 becomes "?"."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def answer_extraction(data: bytes) -> None:
    """An extracted answer is at its stated position, and candidates are parsed for every kind of question."""
    question, text = QUESTIONS[data[0] % len(QUESTIONS)] if data else QUESTIONS[0], text_of(data[1:])
    found = extract_answer(text, question)
    assert found == extract_answer(text, question)
    if found is not None:
        assert found.value
        assert 0 <= found.start < found.end <= len(text)
        assert not question.choices or found.value in "ABCD"
    candidate = read_candidate(Completion(text=text, finish_reason="stop"), question)
    assert isinstance(candidate, Candidate)
    assert text.startswith(complete_sentences(text))
    assert len(visible_text(text).text) <= len(text)


def equality(data: bytes) -> None:
    """Plain equality is symmetric and every answer equals itself, whatever blanks stand around it."""
    a, _, b = text_of(data[1:]).partition("\n")
    kind = ("auto", "number", "math", "yes_no", "choice", "text")[data[0] % 6] if data else "auto"
    assert equal_without_algebra(a, a, kind) is True
    assert equal_without_algebra(a, b, kind) == equal_without_algebra(b, a, kind)
    if not a.endswith("\\"):  # before a blank, it is a blank of TeX's
        assert equal_without_algebra(a, f" {a} ", kind) is not False
    for form in (normalize_text, normalize_formula):
        assert isinstance(form(a), str)
    assert isinstance(is_heavy(a), bool)


def sentence_splitting(data: bytes) -> None:
    """Sentences and claims lie in order within the text, and steps are the text cut up."""
    text = text_of(data)
    at = 0
    for start, end in sentence_spans(text):
        assert at <= start < end <= len(text)
        assert text[start:end] == text[start:end].strip()
        at = end
    assert not text[at:].strip()
    steps = split_steps(text)
    assert "".join(steps) == text
    assert all(step.strip() for step in steps) or not text.strip()
    question, _, answer = text.partition("\n")
    claims = split_claims(answer, question)
    assert len({claim.text.casefold() for claim in claims}) == len(claims) <= 20
    for claim in claims:
        assert claim.text.strip()
        assert 0 <= claim.start < claim.end <= len(answer)
    restatement(answer, question)


def json_from_text(data: bytes) -> None:
    """JSON found in a text can be serialized again."""
    text = text_of(data)
    found = find_object(text, lambda value: bool(value))
    if found is not None:
        json.dumps(found, ensure_ascii=False)
    said = find_text(text, "answer")
    assert said is None or said[0].strip()
    for claim, quote in parse_entries(text):
        assert isinstance(claim, str)
        assert isinstance(quote, str)
    items, _ = read_items(text)
    assert all(item.text.strip() for item in items)
    scores = read_scores(text, ("accuracy", "novelty"))
    assert len(scores) == 2
    assert all(score is None or 0 <= score <= 1 for score in scores)
    try:
        json.dumps(parse_json(text), ensure_ascii=False, allow_nan=False).encode()
    except ValueError:  # it is no JSON, and said so
        assert not is_canonical_calls(text)


def tool_calls(data: bytes) -> None:
    """However a reply is cut into pieces, the same text and calls come of it; calls have a canonical text."""
    whole, text = bool(data[:1] and data[0] & 1), text_of(data[2:])
    rest, calls = parse_tool_calls(text, TOOLS, whole_response=whole)
    reader, told, step = ToolCallParser(TOOLS, whole_response=whole), "", 1 + (data[1] if len(data) > 1 else 0) % 7
    for at in range(0, len(text), step):
        told += reader.push(text[at : at + step])
    told += reader.finish()
    assert (told, tuple(reader.calls)) == (rest, calls)
    assert all(call.name in TOOLS and call.parsed_arguments is not None for call in calls)
    assert not calls or is_canonical_calls(canonical_calls(calls))
    parse_call_json(text, TOOLS)


def judgements(data: bytes) -> None:
    """Reviews, syntheses, opinions, votes and choices are parsed, or reported as unparsed."""
    question, text = QUESTIONS[data[0] % len(QUESTIONS)] if data else QUESTIONS[0], text_of(data[1:])
    order = OptionOrder((2, 0, 1, 3)) if question.choices else OptionOrder()
    review = read_review(text, BLIND, 1)
    assert review.ok == bool(review.scores)
    assert all(1 <= mark <= 10 for one in review.scores for mark in (one.accuracy, one.insight, one.clarity))
    synthesis = read_chair(text, question, BLIND)
    assert synthesis is None or synthesis.answer.strip()
    told, _ = read_opinion(text, question, order)
    assert isinstance(told, str)
    parse_vote(text)
    read_yes_no(text)
    assert len(read_list(text, 4)) <= 4
    assert read_number(text, 4) in (None, *range(1, 5))
    completion = Completion(text=text, finish_reason="stop")
    read_step(completion)
    assert 0 <= read_assessment(text).missing <= 7


TEXT_TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (answer_extraction, equality, sentence_splitting, json_from_text, tool_calls, judgements)
}
