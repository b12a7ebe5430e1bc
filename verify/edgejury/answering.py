"""Stage 1: every juror answers, in its own role and with the options in its own order; all of them at once.

A juror whose text states no answer is asked for it once more, alone, with its text as the beginning: small models run
on to their last token. With `distribution` that question is put to all, and the probability of every letter is read
instead of one letter.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 1. Differs: a failed call leaves no text, where the public
implementation passes its error message on as an answer; asking for the answer again is our own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...core.errors import InvalidResponse
from ...core.events import OpinionGiven
from ...core.messages import Completion, Message, Prompt, Request, SamplingParams
from ...core.run import Run
from ...core.types import Question
from ...reasoning.answers.extraction import extract_answer
from ...reasoning.answers.kinds import ResolvedKind, answer_kind
from ...reasoning.answers.normalization import visible_text
from ...reasoning.candidates import complete_sentences
from ...reasoning.prompts import LETTERS
from ...reasoning.self_evaluation import MIN_COVERAGE, MIN_TOP_LOGPROBS, TOP_LOGPROBS
from ...reasoning.voting.answer_classes import answer_classes
from .anonymity import OptionOrder
from .config import PanelConfig
from .jurors import Seat, answer_prompt
from .panel import Ask, Panel, Reply
from .types import Opinion

LEAD, CHOICE_LEAD = "Answer:", "Answer: ("
"""Beginnings of the answer that is asked for once more."""
_CONCLUDING_TOKENS = 24
_STATE_IT = 'State your final answer and nothing else, as a line that begins with "Answer:".'


async def opinions_of(
    seats: Sequence[Seat],
    question: Question,
    panel: Panel,
    config: PanelConfig,
    run: Run,
    *,
    distribution: bool = False,
) -> tuple[Opinion, ...]:
    """The opinions, by juror, failed ones too.

    Args:
        seats: The jurors.
        question: What is asked.
        panel: The stage.
        config: Parameters.
        run: The run.
        distribution: Whether jurors are asked how sure they are of each option, where their models can tell.

    Raises:
        BackendError: No juror gave an opinion, and no budget is the reason.
    """
    asks = [_first(seat, question, config, len(seats)) for seat in seats]
    replies = await panel.ask(asks, needs="somebody")
    said = {seat.juror: _Said(seat, question, reply) for seat, reply in zip(seats, replies, strict=True)}
    if closed_kind(question) is not None and not panel.over:
        await _conclude(said, {ask.who: ask for ask in asks}, panel, config, distribution=distribution)
    found = [one.opinion() for one in said.values()]
    classes = await answer_classes([opinion.choice for opinion in found], question)
    written = canonical([opinion.choice for opinion in found], classes)
    opinions = tuple(
        opinion if choice == opinion.choice else opinion.model_copy(update={"choice": choice})
        for opinion, choice in zip(found, written, strict=True)
    )
    for opinion in opinions:
        run.emit(OpinionGiven(juror=opinion.juror, report=opinion.model_dump(mode="json")))
    if not any(opinion.ok for opinion in opinions) and not panel.limited:
        raise InvalidResponse(f"no juror gave an opinion: {opinions[0].failure}")
    return opinions


class _Said:
    """What one juror has said so far."""

    def __init__(self, seat: Seat, question: Question, reply: Reply) -> None:
        self.seat, self._question, self._reply = seat, question, reply
        self.shown = seat.order.shown(question) if question.choices else question
        self.raw = reply.text
        self.finished = reply.completion is not None and reply.completion.finish_reason == "stop"
        self.probs: dict[str, float] = {}
        self.tokens, self.latency_ms = reply.tokens, reply.latency_ms

    @property
    def ok(self) -> bool:
        """Whether there is an answer; thoughts alone are none."""
        return self._reply.ok and bool(visible_text(self.raw).text.strip())

    @property
    def choice(self) -> str | None:
        """The answer that the text states, in normal form."""
        return self._read()[1] if self.ok else None

    def beginning(self, lead: str) -> str:
        """The text up to where its answer stands, or with a lead to it behind what was written."""
        found = extract_answer(self.raw, self.shown) if self.finished else None
        if found is not None and found.how == "marker":
            return self.raw[: found.start].rstrip()
        return f"{self.raw.rstrip()}\n\n{lead}"

    def add(self, lead: str, reply: Reply) -> None:
        """Put the answer that was asked for behind the text, if it is one."""
        self.tokens += reply.tokens
        self.latency_ms = max(self.latency_ms, reply.latency_ms)
        line = reply.text.strip().splitlines()[0] if reply.text.strip() else ""
        stated = line if line.casefold().startswith(LEAD.casefold()) else f"{lead}{line}"
        found = extract_answer(stated, self.shown)
        if found is not None:
            self.raw, self.finished = f"{self.raw.rstrip()}\n\n{LEAD} {found.value}", True

    def weigh(self, reply: Reply) -> None:
        """Take how sure it is of each letter; the surest is the answer of a text that states none."""
        self.tokens += reply.tokens
        self.latency_ms = max(self.latency_ms, reply.latency_ms)
        shares = {} if reply.completion is None or not reply.ok else letter_shares(reply.completion, self.shown)
        order = self.seat.order
        told = {order.to_question(letter) if order.order else letter: share for letter, share in shares.items()}
        self.probs = {letter: share for letter, share in told.items() if letter is not None}
        if shares and self.choice is None:
            self.raw = f"{self.raw.rstrip()}\n\n{LEAD} {max(shares, key=lambda letter: shares[letter])}"
            self.finished = True

    def opinion(self) -> Opinion:
        """The opinion as it stands."""
        seat, reply = self.seat, self._reply
        told = {"juror": seat.juror, "model": seat.model.name, "role": seat.role_name}
        cost = {"tokens": self.tokens, "latency_ms": self.latency_ms}
        if not self.ok:
            said = "it gave thoughts and no answer" if self.raw.strip() else "it said nothing"
            return Opinion(**told, **cost, ok=False, failure=reply.failure or said)
        text, choice = self._read()
        return Opinion(**told, **cost, ok=True, text=text, choice=choice, probs=self.probs)

    def _read(self) -> tuple[str, str | None]:
        order = self.seat.order if self._question.choices else None
        return read_opinion(self.raw, self._question, order, finished=self.finished)


def _first(seat: Seat, question: Question, config: PanelConfig, jurors: int) -> Ask:
    shown = seat.order.shown(question) if question.choices else question
    sampling = SamplingParams(
        temperature=config.answer_temperature, max_tokens=config.answer_tokens, n=jurors, logprobs=False
    )
    # jurors who are asked the very same still give samples of their own
    request = Request(prompt=answer_prompt(seat.role, shown), sampling=sampling, samples=(seat.juror,))
    return Ask(seat.juror, seat.model, request)


async def _conclude(
    said: Mapping[int, _Said], first: Mapping[int, Ask], panel: Panel, config: PanelConfig, *, distribution: bool
) -> None:
    """Ask for the answer alone: those that stated none, or with `distribution` all whose models can weigh letters."""
    given = [one for one in said.values() if one.ok]
    weighing = [one for one in given if distribution and one.shown.choices and _weighs(one)]
    asks = [_last(first[one.seat.juror], one, CHOICE_LEAD, weigh=True) for one in weighing]
    for one, reply in zip(weighing, await panel.ask(asks), strict=True):
        one.weigh(reply)
    mute = [one for one in given if config.conclude and one.choice is None]
    if not mute or panel.over:
        return
    leads = [CHOICE_LEAD if one.shown.choices else LEAD for one in mute]
    asks = [_last(first[one.seat.juror], one, lead, weigh=False) for one, lead in zip(mute, leads, strict=True)]
    for one, lead, reply in zip(mute, leads, await panel.ask(asks), strict=True):
        one.add(lead, reply)


def _weighs(one: _Said) -> bool:
    can = one.seat.model.capabilities
    return can.prefix and can.top_logprobs >= max(MIN_TOP_LOGPROBS, len(one.shown.choices))


def _last(ask: Ask, one: _Said, lead: str, *, weigh: bool) -> Ask:
    """The request for the answer alone: the reply goes on behind the text, or where that cannot be, in a new turn."""
    prompt, can = ask.request.prompt, ask.model.capabilities
    if can.prefix:
        prompt = prompt.with_prefix(one.beginning(lead))
    else:
        turns = (Message(role="assistant", content=one.raw), Message(role="user", content=_STATE_IT))
        prompt = Prompt(messages=(*prompt.messages, *turns))
    sampling = (
        SamplingParams(temperature=0.0, max_tokens=1, top_logprobs=min(TOP_LOGPROBS, can.top_logprobs))
        if weigh
        else SamplingParams(temperature=0.0, max_tokens=_CONCLUDING_TOKENS, stop=("\n",), logprobs=False)
    )
    return Ask(ask.who, ask.model, Request(prompt=prompt, sampling=sampling))


def letter_shares(completion: Completion, question: Question) -> dict[str, float]:
    """How probable each letter is as the first token of a reply, of all letters that name an option.

    Args:
        completion: The reply, with alternatives of its first token.
        question: The question as its author saw it.

    Returns:
        Shares by letter, which sum to 1; empty if less than half of the probability is on letters, or it is not known.
    """
    if not completion.top_logprobs:
        return {}
    letters = LETTERS[: len(question.choices)]
    masses: dict[str, list[float]] = {}
    for top in completion.top_logprobs[0]:
        token = top.token.strip(" \u2581\u0120()[].*:")
        if len(token) == 1 and token in letters:
            masses.setdefault(token, []).append(math.exp(top.logprob))
    sums = {letter: math.fsum(masses[letter]) for letter in letters if letter in masses}
    total = math.fsum(sums.values())
    return {letter: mass / total for letter, mass in sums.items()} if total >= MIN_COVERAGE else {}


def closed_kind(question: Question) -> ResolvedKind | None:
    """What the question's one short answer is; None if it is open, so that its answers are texts."""
    kind = answer_kind(question)
    return None if kind == "text" else kind


def read_opinion(
    text: str, question: Question, order: OptionOrder | None = None, *, finished: bool = True
) -> tuple[str, str | None]:
    """A juror's reply in the question's terms.

    Args:
        text: The reply.
        question: The question in its own order.
        order: The order of the options in which the juror saw them; None if they were shown as they are.
        finished: Whether the reply came to its end; of one cut short the last whole sentence is the end.

    Returns:
        The text with the question's letters, and the answer in normal form; None if there is none or the question is
        open. Answers that are equal may still be written differently (see `canonical`).
    """
    kind = closed_kind(question)
    whole = text if finished else complete_sentences(text)
    if order is None or not question.choices:
        found = extract_answer(whole, question) if kind is not None else None
        return text, None if found is None else found.value
    found = extract_answer(whole, order.shown(question)) if kind is not None else None
    if found is None or kind != "choice":
        return order.retell(text, question), None if found is None else found.value
    known = (found.start,) if text[found.start : found.end].upper() == found.value else ()
    return order.retell(text, question, known), order.to_question(found.value)


def canonical(answers: Sequence[str | None], classes: Sequence[Sequence[int]]) -> list[str | None]:
    """Answers with equal ones written alike: as the first of them is.

    Args:
        answers: The answers.
        classes: Positions of equal ones (see `reasoning.answer_classes`).
    """
    written = list(answers)
    for members in classes:
        for i in members:
            written[i] = answers[members[0]]
    return written
