"""Universal self-consistency: sample many responses; the model chooses the one that agrees best with the others.

Source: Chen et al., "Universal Self-Consistency for Large Language Model Generation" (2023, arXiv:2311.17311),
section 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from ...core.errors import BudgetExceeded, ContextTooLong
from ...core.events import StrategyNote
from ...core.messages import Completion, Prompt, Request
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ...serving.metered.model import MeteredModel
from ...serving.model import Feature
from ...serving.quick_calls import quick_params, report_cut
from ...serving.verdict_distribution import TOP_LOGPROBS, VerdictDistribution
from ..answers.normalization import visible_text
from ..candidates import finished_or_all
from ..prompts import fit_prompt, question_prompt
from ..sampling import SamplingConfig
from ..strategy import Models, Stability
from .answer_classes import majority_answer

CHOICE_PREFIX = "The most consistent response is Response"
"""Prefix of the completion, if the model can continue one."""
NO_RESPONSE = "(no response)"
"""What stands for a sample that was cut while the model thought and has no answer."""

_CHOICE_TOKENS = 8
_CHOICE_TOKENS_WITHOUT_PREFIX = 64
_MAX_SINGLE_DIGIT = 9  # a token may be only the beginning of a larger number, whose probability it is not
_STATED = re.compile(r"consistent\s+response\s+is\W{0,4}(?:response)?\W{0,8}(\d{1,4})(?!\d)", re.IGNORECASE)
_NAMED = re.compile(r"response\W{0,8}(\d{1,4})(?!\d)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\d.])(\d{1,4})(?![\d]|\.\d)")


class UniversalSelfConsistency:
    """Sample `n` responses, then let the model choose, in a quick call, the one that agrees best with the majority.

    The choice needs no extraction, so that it works for free-text answers.

    Model calls: 1 for the samples (more under a token budget), 1 for the choice.

    Confidence is the choice's share of the probability of all numbers that could have been named, if the model provides
    it and there are at most nine responses; else there is none. If the completion names no response, or the budget does
    not cover the choice, the answer of the majority is taken, with its share as confidence; if no answer can be
    extracted, the first response.

    Differs: the wording of the prompt is ours; the completion has a given prefix if the model can continue one.
    Thoughts are removed, and responses that do not fit the context together lose their middle, all down to the same
    length. Responses that were cut before they stated an answer are not among those to choose from, if others were not.
    """

    name: ClassVar[str] = "universal-self-consistency"
    summary: ClassVar[str] = "many sampled responses; the model chooses the one that agrees best with the others"
    paper: ClassVar[str] = "Chen et al. 2023, arXiv:2311.17311"
    confidence: ClassVar[str] = (
        "The response's share of the probability of all that could be named; none if the model hides it."
    )
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)

    class Config(SamplingConfig):
        """Parameters of `universal-self-consistency`."""

        n: Annotated[int, Field(ge=1, le=256, description="maximum number of responses")] = 8

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config = self.config
        samples = await config.sample(question, models, run)
        candidates = tuple(samples.candidates)
        if not candidates:
            return Solution(chosen=None, stopped=samples.stopped)
        stopped = samples.stopped
        among = finished_or_all(candidates)
        choice = ResponseChoice(0) if len(among) == 1 else None
        if choice is None:
            try:
                choice, cut = await self._choose([candidates[i] for i in among], question, models.main, run)
                stopped = "budget" if cut else stopped
            except BudgetExceeded as e:
                run.record_limit(e)
                stopped = "budget"
        notes: dict[str, JsonValue] = {"chosen_by": "model" if len(among) > 1 else "first"}
        if choice is not None:
            choice = replace(choice, index=among[choice.index])
        else:
            chosen, share = await majority_answer(candidates, question, run) or (0, None)
            taken = "the first response" if share is None else "the answer of the majority"
            run.degrade(f"the model named no most consistent response; {taken} was taken")
            choice, notes = ResponseChoice(chosen, share), {"chosen_by": "first" if share is None else "majority"}
        run.emit(
            StrategyNote(strategy=run.config.strategy, name="response.chosen", data={"index": choice.index, **notes})
        )
        return Solution(
            chosen=choice.index,
            candidates=candidates,
            confidence=choice.probability,
            stopped=stopped,
            notes=notes,
        )

    async def _choose(
        self, candidates: Sequence[Candidate], question: Question, model: MeteredModel, run: Run
    ) -> tuple[ResponseChoice | None, bool]:
        """The model's choice, None if it names no response; and whether the budget cut its completion.

        Raises:
            BudgetExceeded: The budget does not cover the request.
        """
        capabilities = model.quick_capabilities
        prefix = CHOICE_PREFIX if capabilities.prefix else ""
        max_tokens = _CHOICE_TOKENS if prefix else _CHOICE_TOKENS_WITHOUT_PREFIX
        texts = [visible_text(candidate.text).text.strip() or NO_RESPONSE for candidate in candidates]

        def make_prompt(responses: Sequence[str]) -> Prompt:
            return comparison_prompt(question, responses, system=self.config.system, prefix=prefix)

        sampling = quick_params(model, max_tokens=max_tokens, top_logprobs=min(TOP_LOGPROBS, capabilities.top_logprobs))
        prompt, kept = await fit_prompt(model, run, make_prompt, texts, sampling)
        if prompt is None:
            return None, False
        if kept is not None:
            run.degrade(f"the responses do not fit the model's context: they were truncated to {kept} characters each")
        try:
            ((completion,),) = await model.generate([Request(prompt=prompt, sampling=sampling, is_attempt=False)])
        except ContextTooLong:
            return None, False
        report_cut(model, [completion], "choices")
        choice = parse_choice(completion, len(candidates), prefix) if completion.ok else None
        return choice, completion.finish_reason == "budget"


@dataclass(frozen=True)
class ResponseChoice:
    """The chosen response, by position, and the probability of the choice if known."""

    index: int
    probability: float | None = None


def comparison_prompt(question: Question, responses: Sequence[str], *, system: str = "", prefix: str = "") -> Prompt:
    """The prompt that lists responses, numbered from 1, and requests the number of the most consistent one.

    Args:
        system: System message; empty leaves it to the model.
        prefix: Prefix of the completion.
    """
    listed = "\n\n".join(f"Response {i}:\n{text}" for i, text in enumerate(responses, 1))
    return question_prompt(
        question,
        f"{len(responses)} responses to this were written independently of each other:\n\n{listed}\n\n"
        "Compare what they conclude, and name the response that agrees best with the majority of them. "
        f'Reply in the form "{CHOICE_PREFIX} N", where N is its number, and write nothing else.',
        system=system,
        prefix=prefix,
    )


def parse_choice(completion: Completion, responses: int, prefix: str = "") -> ResponseChoice | None:
    """The response that a completion names.

    The number in the requested form counts, else the first one after the word "response", else the first of all; a
    number without a response names none.

    Args:
        completion: The completion, as deterministic as the model allows.
        responses: Number of responses.
        prefix: Prefix of the completion.
    """
    text = prefix + completion.text
    match = _STATED.search(text) or _NAMED.search(text) or _NUMBER.search(text)
    if match is None or not 1 <= int(match[1]) <= responses:
        return None
    number = int(match[1])
    return ResponseChoice(number - 1, _probability(completion, number, responses, prefix))


def _probability(completion: Completion, number: int, responses: int, prefix: str) -> float | None:
    """Probability of the named number among all possible numbers, at the position of its token."""
    if responses > _MAX_SINGLE_DIGIT or not completion.answer_top_logprobs:
        return None
    text = prefix
    answer_ids = completion.token_ids[completion.answer_from :]
    for token_id, tops in zip(answer_ids, completion.answer_top_logprobs, strict=False):
        token = next((t.token for t in tops if t.token_id == token_id), None)
        if token is None:
            return None
        token = token.replace("\u2581", " ").replace("\u0120", " ")
        if token.strip() == str(number) and re.search(r"(?:^|response)\W*$", text, re.IGNORECASE):
            numbers = [str(i) for i in range(1, responses + 1)]
            return VerdictDistribution.from_tokens([(t.token, t.logprob) for t in tops], numbers).shares[number - 1]
        text += token
    return None
