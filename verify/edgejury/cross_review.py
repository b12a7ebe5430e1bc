"""Stage 2: every juror reviews the others' answers, without knowing whose they are; all reviews as one round.

A reply that cannot be read is asked for once more, in the same stage; what still cannot be read says nothing.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 2. Differs: see `blinding` and `reviewing`; a reviewer whose
context the answers do not fit sees them shortened, all to the same length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...core.jury_events import ReviewGiven
from ...core.messages import Request
from ...core.question import Question
from ...core.run import Run
from ...reasoning.fitting import fit
from ...serving.metered import MeteredModel
from .asking import Asked
from .blinding import Blinding, blinding, show_answers
from .config import PanelConfig
from .opinions import Review
from .option_orders import OptionOrder
from .panel import Panel
from .panel_round import Ask, Reply
from .reviewing import read_review, repair_request, review_request

NO_ROOM = "the answers do not fit its context"


@dataclass(frozen=True)
class Reviewer:
    """Who reviews.

    Attributes:
        number: Its number; as a juror it has the same.
        model: Its model.
        order: The order in which it sees the options.
    """

    number: int
    model: MeteredModel
    order: OptionOrder


@dataclass(frozen=True)
class Shown:
    """What is shown of some answers.

    Attributes:
        texts: The answers by candidate, scrubbed.
        choices: The answer in normal form likewise, where the question is closed.
        names: Who wrote each; None where that is no reviewer's business.
    """

    texts: Mapping[int, str]
    choices: Mapping[int, str | None]
    names: Mapping[int, str] | None = None

    def as_seen(self, blind: Blinding, texts: Sequence[str], question: Question, order: OptionOrder) -> str:
        """The answers as one reader sees them.

        Args:
            blind: Its letters of the answers.
            texts: The answers in the order in which it sees them.
            question: The question in its own order.
            order: The order in which the reader sees the options.
        """
        turned = bool(question.choices)
        shown = {
            candidate: order.tell(text, question) if turned else text
            for candidate, text in zip(blind.jurors, texts, strict=True)
        }
        choices = {
            candidate: order.to_shown(choice) if turned and choice is not None else choice
            for candidate, choice in self.choices.items()
        }
        return show_answers(blind, shown, choices=choices, names=self.names)


@dataclass(frozen=True)
class _Sheet:
    """What one reviewer is given: the letters of the answers, and the request."""

    reviewer: Reviewer
    blind: Blinding
    asked: Asked


async def reviews_of(
    reviewers: Sequence[Reviewer],
    answers: Shown,
    question: Question,
    panel: Panel,
    config: PanelConfig,
    run: Run,
    *,
    exclude_self: bool,
) -> tuple[Review, ...]:
    """A review of each reviewer, in order; of those that failed too.

    Args:
        reviewers: Who reviews.
        answers: What is reviewed.
        question: What the answers answer.
        panel: The stage.
        config: Parameters.
        run: The run.
        exclude_self: Whether a reviewer does not see the answer that has its number.
    """
    sheets: dict[int, _Sheet] = {}
    found: dict[int, Review] = {}
    for reviewer in reviewers:
        own = reviewer.number if exclude_self else None
        seed = run.derive_seed("edgejury", "review", reviewer.number)
        blind = blinding(tuple(answers.texts), question, seed, shuffle=config.shuffle, without=own)
        asked = await _fitted(reviewer, blind, answers, question, config, run)
        if asked is None:
            found[reviewer.number] = Review(reviewer=reviewer.number, ok=False, failure=NO_ROOM)
        else:
            sheets[reviewer.number] = _Sheet(reviewer, blind, asked)
    replies = await panel.ask([_ask(sheet, config) for sheet in sheets.values()])
    unread: dict[int, Reply] = {}
    for reply in replies:
        review = found[reply.who] = _read(reply, sheets[reply.who], question)
        if reply.ok and not review.ok:
            unread[reply.who] = reply
    if unread and not panel.over:
        again = [_repaired(sheets[number], reply) for number, reply in unread.items()]
        for sheet, reply in zip(again, await panel.ask([_ask(sheet, config) for sheet in again]), strict=True):
            review = _read(reply, sheet, question)
            tokens = unread[reply.who].tokens + reply.tokens
            found[reply.who] = review.model_copy(update={"tokens": tokens})
    reviews = tuple(found[reviewer.number] for reviewer in reviewers)
    for review in reviews:
        run.emit(ReviewGiven(reviewer=review.reviewer, report=review.model_dump(mode="json")))
    return reviews


async def _fitted(
    reviewer: Reviewer, blind: Blinding, answers: Shown, question: Question, config: PanelConfig, run: Run
) -> Asked | None:
    """What a reviewer is asked, the answers shortened where they must be; None if they do not fit at all."""
    order = reviewer.order
    shown = order.shown(question) if question.choices else question

    def asked(texts: Sequence[str]) -> Asked:
        return review_request(
            shown,
            answers.as_seen(blind, texts, question, order),
            blind,
            form=config.form,
            begin=reviewer.model.capabilities.prefix,
            held=reviewer.model.capabilities.json_schema,
            own_left_out=reviewer.number in answers.texts and reviewer.number not in blind.jurors,
        )

    texts = [answers.texts[candidate] for candidate in blind.jurors]
    prompt, kept = await fit(reviewer.model, run, lambda cut: asked(cut).prompt, texts, config.review_tokens)
    if kept is not None:
        run.degrade(f"the answers do not fit the context of {reviewer.model.name}: it saw {kept} characters of each")
    return None if prompt is None else replace(asked(texts), prompt=prompt)


def _repaired(sheet: _Sheet, reply: Reply) -> _Sheet:
    """The same sheet with the request for a reply that can be read."""
    begin = sheet.reviewer.model.capabilities.prefix
    return replace(sheet, asked=repair_request(sheet.asked, sheet.asked.opening + reply.text, sheet.blind, begin=begin))


def _ask(sheet: _Sheet, config: PanelConfig) -> Ask:
    asked, reviewer = sheet.asked, sheet.reviewer
    sampling = asked.sampling(config.review_temperature, config.review_tokens)
    return Ask(reviewer.number, reviewer.model, Request(prompt=asked.prompt, sampling=sampling))


def _read(reply: Reply, sheet: _Sheet, question: Question) -> Review:
    number, blind = reply.who, sheet.blind
    cost = {"tokens": reply.tokens, "latency_ms": reply.latency_ms}
    if not reply.ok:
        return Review(reviewer=number, order=blind.jurors, ok=False, failure=reply.failure, **cost)
    order = sheet.reviewer.order if question.choices else None
    read = read_review(sheet.asked.opening + reply.text, blind, number, question=question, order=order)
    return read.model_copy(update=cost)
