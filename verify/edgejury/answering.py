"""Stage 1: every juror answers, in its own role and with the options in its own order, all concurrently.

A juror that was cut while it thought is asked for its answer after the unfinished thought, and one whose text states no
answer for the answer alone, with its text as the prefix. With `distribution` all jurors are, and the probability of
every letter is read.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 1. Differs: a failed call leaves no text, where the public
implementation passes its error message on as an answer; the request for the answer alone is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...core.errors import BudgetExceeded, InvalidResponse, UserError
from ...core.events import OpinionAdded
from ...core.messages import Completion, Message, Prompt, Request, SamplingParams
from ...core.run import Run
from ...core.types import Question
from ...reasoning.answers.extraction import extract_answer
from ...reasoning.answers.kinds import ResolvedKind, answer_kind
from ...reasoning.candidates import complete_sentences
from ...reasoning.conclude import conclusion_request, with_conclusion
from ...reasoning.prompts import LETTERS
from ...reasoning.quoting import remove_invisible
from ...reasoning.voting.answer_classes import answer_classes
from ...serving.quick_calls import quick_capabilities, quick_params
from ...serving.verdict_distribution import MIN_TOP_LOGPROBS, TOP_LOGPROBS, VerdictDistribution
from .config import ANSWER_TEMPERATURE, PanelConfig
from .jurors import Juror, answer_prompt
from .option_orders import OptionOrder
from .panel import JurorRequest, JurorResponse, Panel
from .types import Opinion

ANSWER_PREFIX, CHOICE_PREFIX = "Answer:", "Answer: ("
"""Prefixes of a requested answer."""
_CONCLUSION_TOKENS = 24
_CONCLUSION_REQUEST = 'State your final answer and nothing else, as a line that begins with "Answer:".'


async def collect_opinions(
    jurors: Sequence[Juror],
    question: Question,
    panel: Panel,
    config: PanelConfig,
    run: Run,
    *,
    distribution: bool = False,
) -> tuple[Opinion, ...]:
    """The opinions of all jurors, including failed ones.

    Args:
        distribution: Whether to read the probability of each option, if the models support it.

    Raises:
        BackendError: No juror gave an opinion, and neither a budget nor the limit of a thought is the reason.
    """
    requests = [_answer_request(juror, question, config, len(jurors)) for juror in jurors]
    responses = await panel.call(requests, require_response=True)
    responses = await _conclude_thoughts(jurors, question, requests, responses, panel, run)
    answers = {juror.id: _JurorAnswer(juror, question, reply) for juror, reply in zip(jurors, responses, strict=True)}
    if closed_kind(question) is not None and not panel.is_over:
        await _conclude(answers, {call.juror: call for call in requests}, panel, run, distribution=distribution)
    parsed = [answer.opinion() for answer in answers.values()]
    classes = await answer_classes([opinion.choice for opinion in parsed], question, run)
    choices = canonical([opinion.choice for opinion in parsed], classes)
    opinions = tuple(
        opinion if choice == opinion.choice else opinion.model_copy(update={"choice": choice})
        for opinion, choice in zip(parsed, choices, strict=True)
    )
    for opinion in opinions:
        run.emit(OpinionAdded(juror=opinion.juror, report=opinion.model_dump(mode="json")))
    is_cut = any(response.is_cut_in_thought for response in responses)  # reported, and no failure of the models
    if not any(opinion.ok for opinion in opinions) and not panel.is_limited and not is_cut:
        raise InvalidResponse(f"no juror gave an opinion: {opinions[0].failure}")
    return opinions


class _JurorAnswer:
    """The answer of one juror so far."""

    def __init__(self, juror: Juror, question: Question, response: JurorResponse) -> None:
        self.juror, self._question, self._reply = juror, question, response
        self.shown = juror.order.shown(question) if question.choices else question
        self.raw = response.text
        self.finished = response.completion is not None and response.completion.finish_reason == "stop"
        self.probs: dict[str, float] = {}
        self.tokens, self.latency_ms = response.tokens, response.latency_ms

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self._reply.ok and bool(remove_invisible(self.raw).strip())

    @property
    def choice(self) -> str | None:
        """The answer that the text states, in normal form."""
        return self._read()[1] if self.ok else None

    def beginning(self, prefix: str) -> str:
        """The text up to its stated answer, or followed by a prefix of one."""
        match = extract_answer(self.raw, self.shown) if self.finished else None
        if match is not None and match.method == "marker":
            return self.raw[: match.start].rstrip()
        return f"{self.raw.rstrip()}\n\n{prefix}"

    def add(self, prefix: str, response: JurorResponse) -> None:
        """Append the requested answer, if it can be read."""
        self.tokens += response.tokens
        self.latency_ms = max(self.latency_ms, response.latency_ms)
        line = response.text.strip().splitlines()[0] if response.text.strip() else ""
        text = line if line.casefold().startswith(ANSWER_PREFIX.casefold()) else f"{prefix}{line}"
        match = extract_answer(text, self.shown)
        if match is not None:
            self.raw, self.finished = f"{self.raw.rstrip()}\n\n{ANSWER_PREFIX} {match.value}", True

    def weigh(self, response: JurorResponse) -> None:
        """Read the probability of each letter; the most likely one is the answer of a text that states none."""
        self.tokens += response.tokens
        self.latency_ms = max(self.latency_ms, response.latency_ms)
        shares = (
            {} if response.completion is None or not response.ok else letter_shares(response.completion, self.shown)
        )
        order = self.juror.order
        probs = {order.to_question(letter) if order.order else letter: share for letter, share in shares.items()}
        self.probs = {letter: share for letter, share in probs.items() if letter is not None}
        if shares and self.choice is None:
            self.raw = f"{self.raw.rstrip()}\n\n{ANSWER_PREFIX} {max(shares, key=lambda letter: shares[letter])}"
            self.finished = True

    def opinion(self) -> Opinion:
        juror, response = self.juror, self._reply
        fields = {"juror": juror.id, "model": juror.model.name, "role": juror.role_name}
        completion = response.completion
        cost = {
            "tokens": self.tokens,
            "thinking_tokens": response.thinking_tokens,
            "latency_ms": self.latency_ms,
        }
        thought = "" if completion is None or completion.thought is None else completion.thought.text.strip()
        if self.juror.order.order and self._question.choices:
            thought = self.juror.order.to_question_letters(thought, self._question)
        if not self.ok:
            reason = "a thought but no answer" if response.is_cut_in_thought else "empty completion"
            return Opinion(**fields, **cost, ok=False, failure=response.failure or reason, thought=thought)
        text, choice = self._read()
        return Opinion(**fields, **cost, ok=True, text=text, choice=choice, probs=self.probs, thought=thought)

    def _read(self) -> tuple[str, str | None]:
        order = self.juror.order if self._question.choices else None
        return read_opinion(self.raw, self._question, order, finished=self.finished)


def _answer_request(juror: Juror, question: Question, config: PanelConfig, num_jurors: int) -> JurorRequest:
    shown = juror.order.shown(question) if question.choices else question
    sampling = SamplingParams(
        temperature=config.answer_temperature,
        default_temperature=ANSWER_TEMPERATURE,
        max_tokens=config.answer_tokens,
        n=num_jurors,
    )
    prompt = answer_prompt(juror.role, shown)
    request = Request(prompt=prompt, sampling=sampling, sample_indices=(juror.sample_index,))
    return JurorRequest(juror.id, juror.model, request)


async def _conclude_thoughts(
    jurors: Sequence[Juror],
    question: Question,
    requests: Sequence[JurorRequest],
    responses: Sequence[JurorResponse],
    panel: Panel,
    run: Run,
) -> list[JurorResponse]:
    """The responses, those that were cut while the juror thought with the answer that was requested after the thought.

    What the stage does not cover any more stays without an answer. Either is reported.
    """
    results = list(responses)
    conclusions: dict[int, JurorRequest] = {}
    cut = [i for i, response in enumerate(responses) if response.is_cut_in_thought]
    for i in cut if not panel.is_over else ():
        first, completion = requests[i], responses[i].completion
        assert completion is not None
        try:
            request = conclusion_request(first.model, first.request.prompt, completion, _as_shown(jurors[i], question))
        except UserError as e:
            run.degrade(f"{e.message}: {e.hint}")
        else:
            conclusions[i] = replace(first, request=request)
    ends = await panel.call(list(conclusions.values()))
    for i, end in zip(conclusions, ends, strict=True):
        completion = responses[i].completion
        if end.text.strip() and end.completion is not None and completion is not None:
            concluded = with_conclusion(completion, end.completion, _as_shown(jurors[i], question))
            latency_ms = max(responses[i].latency_ms, end.latency_ms)
            results[i] = replace(responses[i], completion=concluded, latency_ms=latency_ms)
    num_concluded = sum(not results[i].is_cut_in_thought for i in cut)
    if num_concluded:
        run.degrade(
            f"edgejury: {num_concluded} of {len(jurors)} jurors were cut while they thought; their answers were "
            "requested after the unfinished thoughts"
        )
    if num_concluded < len(cut):
        run.degrade(
            f"edgejury: {len(cut) - num_concluded} of {len(jurors)} jurors were cut while they thought and have no "
            "opinion: raise the budget, lower --effort, or lower --thinking-tokens"
        )
    return results


def _as_shown(juror: Juror, question: Question) -> Question:
    return juror.order.shown(question) if question.choices else question


async def _conclude(
    answers: Mapping[int, _JurorAnswer],
    requests: Mapping[int, JurorRequest],
    panel: Panel,
    run: Run,
    *,
    distribution: bool,
) -> None:
    """Request the answer alone, of jurors that stated none, or with `distribution` of all that return logprobs."""
    complete = [answer for answer in answers.values() if answer.ok]
    weighing = [answer for answer in complete if distribution and answer.shown.choices and _can_weigh(answer)]
    try:
        conclusions = [
            _conclusion_request(requests[answer.juror.id], answer, CHOICE_PREFIX, weigh=True) for answer in weighing
        ]
        for answer, response in zip(weighing, await panel.call(conclusions), strict=True):
            answer.weigh(response)
        undecided = [answer for answer in complete if answer.choice is None]
        if not undecided or panel.is_over:
            return
        prefixes = [CHOICE_PREFIX if answer.shown.choices else ANSWER_PREFIX for answer in undecided]
        conclusions = [
            _conclusion_request(requests[answer.juror.id], answer, prefix, weigh=False)
            for answer, prefix in zip(undecided, prefixes, strict=True)
        ]
    except BudgetExceeded as e:
        run.record_limit(e)
        return
    for answer, prefix, response in zip(undecided, prefixes, await panel.call(conclusions), strict=True):
        answer.add(prefix, response)


def _can_weigh(answer: _JurorAnswer) -> bool:
    capabilities = quick_capabilities(answer.juror.model)
    return capabilities.prefix and capabilities.top_logprobs >= max(MIN_TOP_LOGPROBS, len(answer.shown.choices))


def _conclusion_request(first: JurorRequest, answer: _JurorAnswer, prefix: str, *, weigh: bool) -> JurorRequest:
    """The request for the answer alone: continues the text, or follows it as a new turn."""
    prompt, capabilities = first.request.prompt, quick_capabilities(first.model)
    if capabilities.prefix:
        prompt = prompt.with_prefix(answer.beginning(prefix))
    else:
        turns = (Message(role="assistant", content=answer.raw), Message(role="user", content=_CONCLUSION_REQUEST))
        prompt = Prompt(messages=(*prompt.messages, *turns))
    sampling = (
        quick_params(first.model, max_tokens=1, top_logprobs=min(TOP_LOGPROBS, capabilities.top_logprobs))
        if weigh
        else quick_params(first.model, max_tokens=_CONCLUSION_TOKENS, stop=("\n",))
    )
    return JurorRequest(first.juror, first.model, Request(prompt=prompt, sampling=sampling))


def letter_shares(completion: Completion, question: Question) -> dict[str, float]:
    """The probability of each option letter as the answer's first token, normalized over all option letters.

    Args:
        question: The question as the juror saw it.

    Returns:
        Shares by letter that sum to 1; empty if letters have less than half of the probability, or without logprobs.
    """
    if not completion.answer_top_logprobs:
        return {}
    letters = LETTERS[: len(question.choices)]
    verdict = VerdictDistribution.from_tokens(
        [(top.token, top.logprob) for top in completion.answer_top_logprobs[0]], letters
    )
    if not verdict.is_readable:
        return {}
    return {letter: share for letter, share in zip(letters, verdict.shares, strict=True) if share}


def closed_kind(question: Question) -> ResolvedKind | None:
    """The kind of the question's short answer; None for an open question."""
    kind = answer_kind(question)
    return None if kind == "text" else kind


def read_opinion(
    text: str, question: Question, order: OptionOrder | None = None, *, finished: bool = True
) -> tuple[str, str | None]:
    """A juror's completion in the question's terms.

    Args:
        question: The question in its own order.
        order: The option order that the juror saw; None for the question's own.
        finished: Whether the completion is complete; a truncated one ends with its last complete sentence.

    Returns:
        The text with the question's letters, and the answer in normal form; None without one or for an open question.
        Equal answers may still have different forms (see `canonical`).
    """
    kind = closed_kind(question)
    complete = text if finished else complete_sentences(text)
    if order is None or not question.choices:
        match = extract_answer(complete, question) if kind is not None else None
        return text, None if match is None else match.value
    match = extract_answer(complete, order.shown(question)) if kind is not None else None
    if match is None or kind != "choice":
        return order.to_question_letters(text, question), None if match is None else match.value
    positions = (match.start,) if text[match.start : match.end].upper() == match.value else ()
    return order.to_question_letters(text, question, positions), order.to_question(match.value)


def canonical(answers: Sequence[str | None], classes: Sequence[Sequence[int]]) -> list[str | None]:
    """The answers with equal ones in the same form, that of the first.

    Args:
        classes: Indices of equal answers (see `answer_classes`).
    """
    forms = list(answers)
    for members in classes:
        for i in members:
            forms[i] = answers[members[0]]
    return forms
