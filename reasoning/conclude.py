"""`conclude`: the answer of samples that were cut while the model thought, and of a run whose user wants it now.

    thought continued exactly     prompt, thought, end of the thought, answer trigger       no thinking
    thought shown, not continued  prompt, the end of the thought as notes, "answer now"     the least effort there is
    thought hidden                prompt, "answer now"                                      the least effort there is

Source: Muennighoff et al. 2025, "s1: Simple test-time scaling", arXiv:2501.19393, section 3.1 (budget forcing: the end
of the thought and "Final Answer:" are appended).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..core.budget import LimitKind
from ..core.errors import BackendError, BudgetExceeded, StoreError, UserError
from ..core.messages import Completion, Message, Prompt, Request, Thought, Usage
from ..core.run import Run
from ..core.types import Question, Solution, Stopped
from ..serving.metered.model import MeteredModel
from .answers.extraction import read_candidate
from .prompts import answer_trigger, question_prompt, requested_kind

CONCLUSION_TOKENS: Final = 48
"""Maximum tokens of an answer that is requested after an unfinished sample."""
TEXT_CONCLUSION_TOKENS: Final = 128
"""The same for a question whose answer is a text."""
MAX_NOTES_CHARS: Final = 8000
"""Maximum length of a thought that is quoted to the model, in characters; of a longer one the end counts."""

_NOTES = (
    "Your notes so far, cut short:\n\n{notes}\n\n"
    "There is no time left. Give the final answer now, on one line, by completing this sentence.\n\n{trigger}"
)
_NO_NOTES = "There is no time left. Give the final answer now, on one line, by completing this sentence.\n\n{trigger}"


def narrowed_to_budget(
    model: MeteredModel, request: Request, chains: int, run: Run
) -> tuple[Request, LimitKind | None]:
    """A request for the first of `chains` chains, each with its share of the budget, and the limit that narrows them.

    The first chains, and all turns of a run with tools, leave room for the request of the answer, unless they think
    (then a thought is cut, and the answer requested anyway) or the answer is written as JSON.

    Raises:
        BudgetExceeded: The budget does not cover a chain.
    """
    tokens, left = model.max_sample_tokens(request.prompt, request.sampling), run.ledger.remaining("tokens")
    is_plain = tokens == request.sampling.max_tokens and run.question.answer_schema is None
    kept = 0
    if is_plain and 2 <= left < chains * tokens and (run.config.tools or not run.ledger.used("tokens")):
        kept = min(CONCLUSION_TOKENS, max(1, int(left) // 4))
    narrowed, limit = model.narrowed(request, chains, kept)
    if chains > 1 and (limit is not None or len(narrowed.indices) < len(request.indices)):
        run.degrade(
            f"the budget covers {len(narrowed.indices)} of {chains} chains of {model.name} at once, with up to "
            f"{narrowed.sampling.total_tokens} tokens each instead of {tokens}"
        )
    return narrowed, limit


def as_cut_by_budget(completion: Completion, prompt: Prompt, run: Run, limit: LimitKind) -> Completion:
    """A chain that was narrowed by a limit; one that met it was cut by the budget."""
    if completion.finish_reason not in ("length", "thinking"):
        return completion
    if run.ledger.exhausted is None:
        run.record_limit(run.ledger.exceeded(limit))
    if completion.finish_reason == "thinking":
        return completion
    cut = completion.model_copy(update={"finish_reason": "budget"})
    run.partial_completions.append((prompt, cut))
    return cut


def conclusion_request(model: MeteredModel, prompt: Prompt, partial: Completion, question: Question) -> Request:
    """The request for the answer after an unfinished sample.

    Raises:
        UserError: The model cannot answer without thinking, and the budget has no room for that.
    """
    short = requested_kind(question) != "text"
    trigger = answer_trigger(question)
    params = model.quick(
        max_tokens=CONCLUSION_TOKENS if short else TEXT_CONCLUSION_TOKENS, stop=("\n",) if short else ()
    )
    prompt = prompt.model_copy(update={"tools": (), "tool_choice": "auto"})
    thought = _joined_thought(prompt, partial)
    written = partial.text.rstrip()
    if model.capabilities.prefix and isinstance(prompt.prefix, str):
        before = f"{prompt.prefix}{written}\n\n{trigger}" if prompt.prefix or written else trigger
        if thought is None or not model.profile.can_think or prompt.text is not None:
            bare = prompt.model_copy(update={"thought": None})
            return Request(prompt=bare.with_prefix(before), sampling=params)
        if model.profile.prefix == "thought":
            closed = thought.model_copy(update={"closed": True})
            return Request(prompt=prompt.with_thought(closed, before), sampling=params)
    notes = "\n\n".join(part for part in ("" if thought is None else thought.text.strip(), written) if part)
    text = (
        _NOTES.format(notes=notes[-MAX_NOTES_CHARS:], trigger=trigger) if notes else _NO_NOTES.format(trigger=trigger)
    )
    if prompt.text is not None:
        return Request(prompt=Prompt(text=f"{prompt.text}\n\n{text}"), sampling=params)
    messages = (*prompt.messages, Message(role="user", content=text))
    if prompt.messages[-1].role == "user":  # two messages of the user in a row are refused by some templates
        last = prompt.messages[-1].model_copy(update={"content": f"{prompt.messages[-1].content}\n\n{text}"})
        messages = (*prompt.messages[:-1], last)
    return Request(prompt=Prompt(messages=messages), sampling=params)


def _joined_thought(prompt: Prompt, partial: Completion) -> Thought | None:
    """The prompt's open thought with what the sample added to it; None if there is none to be seen."""
    before = prompt.thought if prompt.thought is not None else Thought()
    added = partial.thought if partial.thought is not None else Thought()
    text = before.text + added.text
    exact = before.token_ids if before.token_ids and not added.tokens else ()
    return Thought(text=text, tokens=before.tokens + added.tokens, token_ids=exact) if text or exact else None


def with_conclusion(partial: Completion, end: Completion, question: Question) -> Completion:
    """An unfinished sample with the answer that was requested after it.

    Its text is what it had written, the answer trigger and the answer; log-probabilities are unknown.
    """
    trigger = answer_trigger(question)
    end_text = end.text.strip()
    stated = (
        end_text
        if end_text.startswith(trigger)
        else f"{trigger} {end_text}"
        if trigger[-1].isalnum()
        else trigger + end_text
    )
    text = f"{partial.text.rstrip()}\n\n{stated}".strip() if end_text else partial.text
    thought = partial.thought
    return partial.model_copy(
        update={
            "text": text,
            "thought": None if thought is None else thought.model_copy(update={"closed": True}),
            "token_ids": (),
            "logprobs": None,
            "top_logprobs": None,
            "answer_from": 0,
            "finish_reason": "stop" if end.finish_reason == "length" and end_text else end.finish_reason,
            "usage": partial.usage + end.usage,
        }
    )


async def conclude(
    model: MeteredModel, samples: Sequence[tuple[Prompt, Completion]], question: Question, run: Run
) -> list[Completion]:
    """Request the answers of samples that ended while the model thought, all as one call; others stay as they are.

    What the budget does not cover stays without an answer. Either is reported.
    """
    results = [completion for _, completion in samples]
    cut = [i for i, completion in enumerate(results) if completion.finish_reason == "thinking"]
    if not cut:
        return results
    try:
        requests = [conclusion_request(model, samples[i][0], results[i], question) for i in cut]
        left = run.ledger.remaining("tokens")
        affordable = len(cut) if left == math.inf else max(1, int(left // requests[0].sampling.total_tokens))
        ends = await model.generate(requests[:affordable])
    except (BudgetExceeded, UserError) as e:
        if isinstance(e, BudgetExceeded):
            run.record_limit(e)
        ends = []
    concluded = 0
    for i, (end,) in zip(cut, ends, strict=False):
        if end.ok and end.text.strip():
            results[i] = with_conclusion(results[i], end, question)
            concluded += 1
    if concluded:
        run.degrade(
            f"{concluded} of {len(samples)} samples were cut while the model thought; their answers were requested "
            "after the unfinished thoughts"
        )
    if concluded < len(cut) and not run.ledger.is_closed:
        run.degrade(
            f"{len(cut) - concluded} of {len(samples)} samples ended while the model thought and have no answer: raise "
            "the budget, lower --effort, or lower --thinking-tokens"
        )
    return results


async def conclude_run(solution: Solution | None, question: Question, model: MeteredModel, run: Run) -> Solution:
    """The answer of a run that was stopped before it had one: from its longest unfinished attempt, in one short call.

    Args:
        solution: What the strategy had. An answer in it stays, unless the user wanted it before any sample was
            finished: then it was read from the middle of one.
    """
    solution = solution or run.best or Solution(chosen=None, stopped="budget")
    is_user = run.ledger.is_closed
    stopped: Stopped = "user" if is_user else solution.stopped
    finished = sum(c.finish_reason not in _UNFINISHED for c in solution.candidates)
    if solution.best is not None and solution.best.answer is not None and (finished or not is_user):
        based_on = f"{finished} finished sample{'' if finished == 1 else 's'}"
        return solution.model_copy(update={"stopped": stopped, "notes": {**solution.notes, "based_on": based_on}})
    prompt, partial = _longest_attempt(solution, question, run)
    try:
        ((end,),) = await model.concluding.generate([conclusion_request(model.concluding, prompt, partial, question)])
    except (BudgetExceeded, UserError, BackendError, StoreError) as e:
        if isinstance(e, BudgetExceeded):
            run.record_limit(e)
        elif isinstance(e, StoreError) and run.recording:
            raise
        return solution.model_copy(update={"stopped": stopped})
    if not end.ok or not end.text.strip():
        return solution.model_copy(update={"stopped": stopped})
    tokens = partial.answer_tokens, partial.usage.thinking_tokens
    based_on = f"an unfinished sample of {tokens[0]} tokens of an answer and {tokens[1]} of a thought"
    if not sum(tokens):
        based_on = "no sample: the question was answered at once"
    whole = partial.model_copy(update={"thought": _joined_thought(prompt, partial)})
    concluded = read_candidate(with_conclusion(whole, end, question), question)
    if concluded.answer is None:  # cut too, or no answer
        return solution.model_copy(update={"stopped": stopped})
    run.degrade(f"the answer was requested before the strategy had one; it rests on {based_on}")
    if isinstance(prompt.prefix, str) and prompt.prefix:
        concluded = concluded.model_copy(update={"text": prompt.prefix + concluded.text})
    candidates = (*solution.candidates, concluded)
    return solution.model_copy(
        update={
            "candidates": candidates,
            "chosen": len(candidates) - 1,
            "confidence": None,  # what the strategy had was of another answer
            "stopped": stopped,
            "notes": {**solution.notes, "based_on": based_on},
        }
    )


_UNFINISHED: Final = ("budget", "cancelled", "thinking")


def _longest_attempt(solution: Solution, question: Question, run: Run) -> tuple[Prompt, Completion]:
    """The longest of the samples that were cut and of the candidates; an empty one if there is none."""
    attempts = list(run.partial_completions)
    prompt = question_prompt(question)
    for candidate in solution.candidates:
        if candidate.text or candidate.thought:
            thinking = candidate.thinking_tokens
            thought = Thought(text=candidate.thought, tokens=thinking) if candidate.thought else None
            usage = Usage(completion_tokens=candidate.tokens, thinking_tokens=thinking)
            attempt = Completion(text=candidate.text, thought=thought, usage=usage, finish_reason="budget")
            attempts.append((prompt, attempt))

    def length(attempt: tuple[Prompt, Completion]) -> tuple[int, str, str]:
        before, completion = attempt
        thought = _joined_thought(before, completion)
        text = ("" if thought is None else thought.text) + "".join(map(str, before.prefix)) + completion.text
        return len(text), text, before.model_dump_json()  # a replay cuts the same samples in another order

    return max(attempts, key=length, default=(prompt, Completion(text="", finish_reason="budget")))


def no_answer_reason(solution: Solution) -> str:
    """Why a run that was not cancelled has no answer, as a note for its reader."""
    candidates = solution.candidates
    total = len(candidates)
    thinking = sum(c.finish_reason == "thinking" or (not c.text and c.thinking_tokens > 0) for c in candidates)
    samples = f"{total} sample{'' if total == 1 else 's'}"
    if thinking:
        return f"no answer: {thinking} of {samples} ended while the model thought; raise the budget or lower --effort"
    if not any(c.text.strip() for c in candidates):
        reason = {"budget": "the budget was spent", "user": "the user wanted it"}.get(solution.stopped)
        empty = f"{samples} {'has' if total == 1 else 'have'} no text" if total else "no sample was finished"
        return f"no answer: {reason} before a sample was finished" if reason else f"no answer: {empty}"
    return f"no answer could be read from {samples}"


def report_cut_candidates(solution: Solution, parameters: Mapping[str, Any], run: Run) -> None:
    """Report the attempts that were cut, of which those without an answer did not count."""
    total, limit = len(solution.candidates), parameters.get("max_tokens")
    attempts = "1 attempt" if total == 1 else f"{total} attempts"
    by_limit = [c for c in solution.candidates if c.finish_reason == "length"]
    by_budget = [c for c in solution.candidates if c.finish_reason == "budget"]
    if solution.stopped == "budget":  # samples and steps are shortened to what it leaves
        by_budget += [c for c in by_limit if limit is None or c.tokens < limit]
        by_limit = [c for c in by_limit if limit is not None and c.tokens >= limit]
    at_limit = "at the maximum of tokens" if limit is None else f"at max_tokens={limit}"
    causes = [(by_limit, at_limit, "raise it with --set max_tokens=N (parameters= in Python)")]
    if not run.ledger.is_closed and solution.stopped != "user":  # else they were cut since the answer was requested
        causes.append((by_budget, "by the budget", "raise the budget"))
    for cut, cause, remedy in causes:
        silent = sum(candidate.answer is None for candidate in cut)
        if not silent and (not cut or cut is by_budget):
            continue
        outcome = f"; {silent} of them without an answer, which did not count"
        if silent in (0, len(cut)):
            outcome = " after an answer" if not silent else " before an answer, and did not count"
        run.degrade(f"{len(cut)} of {attempts} {'was' if len(cut) == 1 else 'were'} cut {cause}{outcome}: {remedy}")
