"""Stage 1: every juror answers, in its own role and with the options in its own order, all concurrently.

A juror that was cut while thinking, or whose text states no answer to a closed question, is asked once more for the
answer alone (see `conclude`).

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 1. Differs: a failed call leaves no text, where the public
implementation passes its error message on as an answer; the request for the answer alone is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...core.errors import InvalidResponse, UserError
from ...core.events import OpinionAdded
from ...core.messages import Completion, Prompt, Request, SamplingParams
from ...core.run import Run
from ...core.types import Question
from ...reasoning.answers.equivalence import answer_classes
from ...reasoning.answers.extraction import ResolvedKind, answer_kind, complete_sentences, extract_answer
from ...reasoning.conclude import conclusion_request, with_conclusion
from ...reasoning.prompts import question_prompt
from ...reasoning.quoting import remove_invisible
from .jurors import ANSWER_TOKENS, Juror, OptionOrder, PanelConfig, Role
from .panel import JurorRequest, Panel, thought_of
from .types import Opinion

TEMPERATURE: Final = 0.7

_INSTRUCTION = "Answer the question that was asked. If you are unsure, say so. Do not cite sources that may not exist."
_FORMS = {
    "choice": "the letter of the correct option.",
    "number": "the number.",
    "math": "the answer in \\boxed{}.",
    "yes_no": "yes or no.",
}


def answer_prompt(role: Role | None, question: Question) -> Prompt:
    """The prompt of a juror; the question has its options in the juror's order."""
    form = _FORMS.get(answer_kind(question))
    closing = (
        "Start with the answer itself, and use fewer than 200 words."
        if form is None
        else f'Use fewer than 200 words, and end with a last line that has "Answer:" and {form}'
    )
    return question_prompt(question, f"{_INSTRUCTION} {closing}", system="" if role is None else role.system)


def answer_requests(jurors: Sequence[Juror], question: Question, config: PanelConfig) -> list[JurorRequest]:
    """A request to each juror for its answer, or for its turn with tools."""
    sampling = SamplingParams(
        temperature=config.temperature,
        default_temperature=TEMPERATURE,
        max_tokens=config.max_tokens or ANSWER_TOKENS,
        n=len(jurors),
    )
    requests = []
    for juror in jurors:
        prompt = answer_prompt(juror.role, juror.order.shown(question))
        request = Request(prompt=prompt, sampling=sampling, sample_indices=(juror.sample_index,))
        requests.append(JurorRequest(juror.id, juror.model, request))
    return requests


async def collect_opinions(
    jurors: Sequence[Juror], question: Question, panel: Panel, config: PanelConfig, run: Run
) -> tuple[Opinion, ...]:
    """The opinions of all jurors, including failed ones.

    Raises:
        BackendError: No juror gave an opinion, and neither a budget nor the limit of a thought is the reason.
    """
    requests = answer_requests(jurors, question, config)
    completions = await panel.call(requests)
    is_cut = any(completion.finish_reason == "thinking" for completion in completions)
    completions = await _conclude(jurors, question, requests, completions, panel, run)
    opinions = [_opinion(juror, one, question) for juror, one in zip(jurors, completions, strict=True)]
    choices = [opinion.choice for opinion in opinions]
    for opinion, choice in zip(opinions, canonical(choices, await answer_classes(choices, question, run)), strict=True):
        opinions[opinion.juror] = opinion.model_copy(update={"choice": choice})
        run.emit(OpinionAdded(juror=opinion.juror, report=opinions[opinion.juror].model_dump(mode="json")))
    if not any(opinion.ok for opinion in opinions) and not panel.is_limited and not is_cut:
        raise panel.error or InvalidResponse(f"no juror gave an opinion: {opinions[0].failure}")
    return tuple(opinions)


async def _conclude(
    jurors: Sequence[Juror],
    question: Question,
    requests: Sequence[JurorRequest],
    completions: Sequence[Completion],
    panel: Panel,
    run: Run,
) -> list[Completion]:
    """The completions, with the answer requested where one was cut while thinking or states none."""
    results = list(completions)
    cut = [i for i, completion in enumerate(results) if completion.finish_reason == "thinking"]
    silent = [
        i
        for i, completion in enumerate(results)
        if completion.ok and completion.text.strip() and completion.finish_reason in ("stop", "length")
        if closed_kind(question) is not None
        if _opinion(jurors[i], completion, question).choice is None
    ]
    pending: dict[int, JurorRequest] = {}
    for i in [*cut, *silent] if not run.ledger.is_closed else ():
        first = requests[i]
        try:
            request = conclusion_request(first.model, first.request.prompt, results[i], question)
        except UserError as e:
            run.degrade(f"{e.message}: {e.hint}")
        else:
            pending[i] = JurorRequest(first.juror, first.model, request)
    for i, end in zip(pending, await panel.call(list(pending.values())), strict=True):
        if not end.ok or not end.text.strip():
            continue
        concluded = with_conclusion(results[i], end, question)
        if i in cut or _opinion(jurors[i], concluded, question).choice is not None:
            results[i] = concluded
        else:
            results[i] = results[i].model_copy(update={"usage": concluded.usage})
    num_concluded = sum(results[i].finish_reason != "thinking" for i in cut)
    if num_concluded:
        run.degrade(
            f"edgejury: {num_concluded} of {len(jurors)} jurors were cut while thinking; their answers were requested "
            "after the unfinished thoughts"
        )
    if num_concluded < len(cut):
        run.degrade(
            f"edgejury: {len(cut) - num_concluded} of {len(jurors)} jurors were cut while thinking and have no "
            "opinion: raise the budget, lower --effort, or lower --thinking-tokens"
        )
    return results


def _opinion(juror: Juror, completion: Completion, question: Question) -> Opinion:
    order = juror.order
    fields = {
        "juror": juror.id,
        "model": juror.model.name,
        "role": juror.role_name,
        "tokens": completion.usage.completion_tokens,
        "thinking_tokens": completion.usage.thinking_tokens,
        "thought": order.to_question_letters(thought_of(completion), question),
    }
    if not completion.ok or not remove_invisible(completion.text).strip():
        empty = "a thought but no answer" if completion.finish_reason == "thinking" else "empty completion"
        failure = empty if completion.failure is None else completion.failure.message
        return Opinion(**fields, ok=False, failure=failure)
    text, choice = read_opinion(completion.text, question, order, finished=completion.finish_reason == "stop")
    return Opinion(**fields, ok=True, text=text, choice=choice)


def closed_kind(question: Question) -> ResolvedKind | None:
    """The kind of the question's short answer; None for an open question."""
    kind = answer_kind(question)
    return None if kind == "text" else kind


def read_opinion(text: str, question: Question, order: OptionOrder, *, finished: bool = True) -> tuple[str, str | None]:
    """A juror's completion in the question's terms.

    Args:
        question: The question in its own order.
        order: The option order that the juror saw.
        finished: Whether the completion is complete; only the complete sentences of a truncated one state an answer.

    Returns:
        The text with the question's letters, and the answer in normal form; None without one or for an open question.
        Equal answers may still have different forms (see `canonical`).
    """
    kind = closed_kind(question)
    match = None
    if kind is not None:
        match = extract_answer(text if finished else complete_sentences(text), order.shown(question))
    if match is None or kind != "choice":
        return order.to_question_letters(text, question), None if match is None else match.value
    positions = (match.start,) if text[match.start : match.end].upper() == match.value else ()
    return order.to_question_letters(text, question, positions), order.to_question(match.value)


def canonical(answers: Sequence[str | None], classes: Sequence[Sequence[int]]) -> list[str | None]:
    """The answers with equal ones (`answer_classes`) in the same form, that of the first."""
    forms = list(answers)
    for members in classes:
        for i in members:
            forms[i] = answers[members[0]]
    return forms
