"""Universal self-consistency: sample many responses and let the model say which agrees best with the others.

Source: Chen et al., "Universal Self-Consistency for Large Language Model Generation" (2023, arXiv:2311.17311),
section 3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from ...core.errors import ContextTooLong, BudgetExceeded
from ...core.events import StrategyNote
from ...core.messages import Completion, Prompt, Request, SamplingParams
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ...serving.metered.model import MeteredModel
from ...serving.model import Feature
from ..answers.normalization import visible_text
from ..prompts import fit_prompt, question_prompt
from ..sampling import SamplingConfig
from ..strategy import Models, Stability
from .answer_classes import majority_answer

REPLY_PREFIX = "The most consistent response is Response"
"""Beginning of the reply, where the model can be given one."""
TOP = 20

_REPLY_TOKENS = 8
_FREE_REPLY_TOKENS = 64
_MOST_DIGITS = 9  # of larger numbers a token may be the beginning alone, so its probability is not the number's
_STATED = re.compile(r"consistent\s+response\s+is\W{0,4}(?:response)?\W{0,8}(\d{1,4})(?!\d)", re.IGNORECASE)
_NAMED = re.compile(r"response\W{0,8}(\d{1,4})(?!\d)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\d.])(\d{1,4})(?![\d]|\.\d)")


class UniversalSelfConsistency:
    """Sample `n` responses, then ask once, greedily, which of them agrees best with what most of them say.

    Nothing is extracted for the choice, so that it works where answers are free texts.

    Model calls: 1 for the samples (more under a token budget), 1 for the choice.

    Confidence is the choice's share of the probability of all numbers that could have been named, where the model shows
    it and there are at most nine responses; else there is none. If the reply names no response, or the choice could not
    be asked for, the answer that most responses reach is taken, with its share as confidence; where no answer can be
    extracted, the first response.

    Differs: the words of the request are ours; where the model can continue a given beginning, the reply's is given.
    Thoughts are left out of what is shown, and responses that do not fit the context together lose their middle, all
    down to the same length.
    """

    name: ClassVar[str] = "universal-self-consistency"
    summary: ClassVar[str] = "many sampled responses; the model says which agrees best with the others"
    paper: ClassVar[str] = "Chen et al. 2023, arXiv:2311.17311"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)

    class Config(SamplingConfig):
        """Parameters of `universal-self-consistency`."""

        n: Annotated[int, Field(ge=1, le=256, description="most responses")] = 8

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config = self.config
        samples = await config.sample(question, models, run)
        candidates = tuple(samples.candidates)
        if not candidates:
            return Solution(chosen=None, stopped=samples.stopped)
        stopped = samples.stopped
        choice = ResponseChoice(0) if len(candidates) == 1 else None
        if choice is None:
            try:
                choice, cut = await self._choose(candidates, question, models.main, run)
                stopped = "budget" if cut else stopped
            except BudgetExceeded as e:
                run.record_limit(e)
                stopped = "budget"
        notes: dict[str, JsonValue] = {"chosen_by": "model" if len(candidates) > 1 else "first"}
        if choice is None:
            chosen, share = await majority_answer(candidates, question) or (0, None)
            what = "the first response was taken" if share is None else "the answer that most responses reach was taken"
            run.degrade(f"the model named no most consistent response; {what}")
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
        """What the model names, None if that is no response; and whether the budget cut its reply short.

        Raises:
            BudgetExceeded: The budget does not cover the request.
        """
        can = model.capabilities
        opening = REPLY_PREFIX if can.prefix else ""
        reply_tokens = _REPLY_TOKENS if opening else _FREE_REPLY_TOKENS
        texts = [visible_text(candidate.text).text.strip() for candidate in candidates]

        def make(shown: Sequence[str]) -> Prompt:
            return comparison_prompt(question, shown, system=self.config.system, opening=opening)

        prompt, kept = await fit_prompt(model, run, make, texts, reply_tokens)
        if prompt is None:
            return None, False
        if kept is not None:
            run.degrade(f"the responses do not fit the model's context: they were shown with {kept} characters each")
        sampling = SamplingParams(temperature=0.0, max_tokens=reply_tokens, top_logprobs=min(TOP, can.top_logprobs))
        try:
            ((reply,),) = await model.generate([Request(prompt=prompt, sampling=sampling)])
        except ContextTooLong:
            return None, False
        choice = parse_choice(reply, len(candidates), opening) if reply.ok else None
        return choice, reply.finish_reason == "budget"


@dataclass(frozen=True)
class ResponseChoice:
    """The response that was chosen, by position, and the probability of that choice if it is known."""

    index: int
    probability: float | None = None


def comparison_prompt(question: Question, responses: Sequence[str], *, system: str = "", opening: str = "") -> Prompt:
    """The request that lists responses, numbered from 1, and asks for the most consistent one.

    Args:
        question: What they respond to.
        responses: The responses.
        system: System message; empty leaves it to the model.
        opening: Beginning of the reply.
    """
    listed = "\n\n".join(f"Response {i}:\n{text}" for i, text in enumerate(responses, 1))
    return question_prompt(
        question,
        f"{len(responses)} responses to this were written independently of each other:\n\n{listed}\n\n"
        "Compare what they conclude, and name the response that agrees best with the majority of them. "
        f'Reply in the form "{REPLY_PREFIX} N", where N is its number, and write nothing else.',
        system=system,
        prefix=opening,
    )


def parse_choice(reply: Completion, responses: int, opening: str = "") -> ResponseChoice | None:
    """The response that a reply names.

    The number in the form that was asked for counts, else the first one behind the word "response", else the first at
    all; one that no response has is none.

    Args:
        reply: The reply, greedy.
        responses: How many there are.
        opening: What the reply continues.
    """
    said = opening + reply.text
    found = _STATED.search(said) or _NAMED.search(said) or _NUMBER.search(said)
    if found is None or not 1 <= int(found[1]) <= responses:
        return None
    named = int(found[1])
    return ResponseChoice(named - 1, _probability(reply, named, responses, opening))


def _probability(reply: Completion, named: int, responses: int, opening: str) -> float | None:
    """Share of the named number among all that could have been named, at the token where it stands."""
    if responses > _MOST_DIGITS or not reply.top_logprobs:
        return None
    said = opening
    for token_id, tops in zip(reply.token_ids, reply.top_logprobs, strict=False):
        token = next((t.token for t in tops if t.token_id == token_id), None)
        if token is None:
            return None
        token = token.replace("\u2581", " ").replace("\u0120", " ")
        if token.strip() == str(named) and re.search(r"(?:^|response)\W*$", said, re.IGNORECASE):
            shares = {str(i): 0.0 for i in range(1, responses + 1)}
            for t in tops:
                number = t.token.strip(" \u2581\u0120")
                if number in shares:
                    shares[number] += math.exp(t.logprob)
            return shares[str(named)] / math.fsum(shares.values())
        said += token
    return None
