"""Early exit: a thought in segments, each followed by a trial answer, until the trial answers show that it has arrived.

    think `probe_tokens` tokens
    trial: prompt, thought so far, end of the thought, answer trigger       no thinking, a few tokens
    the rule says so: the trial is the answer; else continue the thought as if it had not been asked

The rule is `stopping.EarlyExit`, which names the sources.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import JsonValue

from ..core.budget import LimitKind
from ..core.errors import BudgetExceeded, UserError
from ..core.events import StrategyNote
from ..core.messages import Completion, Prompt, Request, SamplingParams, Thought, TopToken, Usage
from ..core.run import Run
from ..core.types import Question
from ..serving.metered.model import MeteredModel
from .answers.equivalence import Equivalence
from .candidates import read_candidate
from .conclude import CONCLUSION_TOKENS, conclusion_request, with_conclusion
from .stopping import EarlyExit, TrialTally
from .voting.answer_classes import AnswerLabels

NOTE: Final = "thought.trials"

_NO_THOUGHT: Final = Thought(closed=False)
_NO_TRIALS: Final = TrialTally()


def require_early_exit(model: MeteredModel, rule: EarlyExit) -> None:
    """Refuse a model whose thoughts cannot be ended early, before anything is spent.

    Raises:
        UserError: It does not think, its thoughts cannot be continued exactly, or the rule needs log-probabilities that
            it does not return.
    """
    if not model.thinks:
        raise UserError(
            f"stopping=early-exit ends thoughts, and model {model.name!r} does not think in this run",
            hint="leave stopping unset, or use another rule; or choose a model that thinks, with an effort above none",
            param="stopping",
        )
    if model.profile.prefix != "thought":
        raise UserError(
            f"stopping=early-exit continues thoughts exactly, which model {model.name!r} does not support",
            hint="leave stopping unset, use another rule, or serve the model with vLLM or the embedded engine",
            param="stopping",
        )
    if rule.confidence is not None and not model.quick_capabilities.logprobs:
        raise UserError(
            f"stopping=early-exit with confidence={rule.confidence:g} needs log-probabilities, which model "
            f"{model.name!r} does not return",
            hint="set confidence to null and agree to a number",
            param="stopping",
        )


@dataclass
class OpenChain:
    """One chain while it is generated.

    Attributes:
        index: Its sample index.
        sampling: Its sampling parameters.
        thought: Its thought so far.
        trials: Its trial answers.
        at: Tokens of the thought at each trial.
        answers: What each trial answered.
        exited: Whether a trial answer ended it.
        completion: The chain as one completion, once it has ended.
    """

    index: int
    sampling: SamplingParams
    labels: AnswerLabels
    thought: Thought = _NO_THOUGHT
    trials: TrialTally = _NO_TRIALS
    at: list[int] = field(default_factory=list)
    answers: list[str | None] = field(default_factory=list)
    exited: bool = False
    completion: Completion | None = None
    _joined: Completion | None = None
    _last_trial: Completion | None = None

    @property
    def has_started(self) -> bool:
        """Whether it has a segment."""
        return self._joined is not None

    def append(self, segment: Completion) -> None:
        """Add a segment; without a finish reason to go on, the chain has ended."""
        self._joined = segment if self._joined is None else joined_completion(self._joined, segment)
        if segment.finish_reason != "thinking":
            self.completion = self._joined
            return
        thought = self._joined.thought or Thought()
        self.thought = Thought(
            text=thought.text,
            tokens=self._joined.usage.thinking_tokens,
            closed=False,
            token_ids=self._joined.token_ids,
        )

    def add_trial(self, trial: Completion, answer: str | None, label: int | None) -> None:
        """Add a trial answer."""
        logprobs = trial.answer_logprobs
        confidence = math.exp(min(0.0, math.fsum(logprobs) / len(logprobs))) if logprobs else None
        self.trials = TrialTally((*self.trials.labels, label), (*self.trials.confidence, confidence))
        self.at.append(self.thought.tokens)
        self.answers.append(answer)
        if answer is not None:
            self._last_trial = trial

    def conclude(self, question: Question, end: Completion | None = None) -> None:
        """End the chain with the answer of a conclusion, else with that of its last trial that has one."""
        assert self._joined is not None  # it has started
        end = end or self._last_trial
        self.completion = self._joined if end is None else with_conclusion(self._joined, end, question)

    def cancel(self) -> Completion:
        """The chain as far as it came, cancelled."""
        assert self._joined is not None  # it has started
        return self._joined.model_copy(update={"finish_reason": "cancelled"})

    def record(self) -> dict[str, JsonValue]:
        """The trials, for trace and notes."""
        return {
            "sample": self.index,
            "at": list(self.at),
            "answers": list(self.answers),
            "confidence": list(self.trials.confidence),
            "exited": self.exited,
        }


class SegmentedSampler:
    """Generates chains whose thoughts a rule may end.

    All chains that are given together advance by one segment and one trial, each in one call, so that what they do
    depends on no clock, and a replay repeats it.

    Args:
        model: The model; it continues thoughts exactly.
        prompt: The prompt of every chain.
        sampling: Sampling parameters of the chains, as far as `start` is given no others.

    Attributes:
        num_calls: Model calls so far.
        num_trials: Trial answers so far.
        trial_tokens: Tokens of the trial answers so far.
        hit_limit: Whether the budget ended a thought.

    Raises:
        UserError: The model does not support it (see `require_early_exit`).
    """

    def __init__(
        self,
        model: MeteredModel,
        prompt: Prompt,
        sampling: SamplingParams,
        rule: EarlyExit,
        question: Question,
        run: Run,
        equivalence: Equivalence,
    ) -> None:
        require_early_exit(model, rule)
        self.num_calls = self.num_trials = self.trial_tokens = 0
        self.hit_limit = False
        self._model, self._prompt, self._rule, self._question, self._run = model, prompt, rule, question, run
        self._sampling = sampling.model_copy(update={"n": 1})
        self._equivalence = equivalence
        self._max_thought = model.max_sample_tokens(prompt, sampling) - sampling.max_tokens
        self._records: list[JsonValue] = []

    def start(self, index: int, sampling: SamplingParams | None = None) -> OpenChain:
        """A chain of a sample index, with the limits of the thought that all chains have."""
        sampling = self._sampling if sampling is None else sampling.model_copy(update={"n": 1})
        return OpenChain(index, sampling, AnswerLabels(self._question))

    async def advance(self, chains: Sequence[OpenChain]) -> list[OpenChain]:
        """Think one segment further in all chains, and try their answers.

        Returns:
            The chains that have ended now.

        Raises:
            BudgetExceeded: The budget covers none of them, and none has started.
        """
        try:
            await self._advance(chains)
        except BudgetExceeded as e:
            if not any(chain.has_started for chain in chains):
                raise
            self._run.record_limit(e)
            self.hit_limit = True
            for chain in chains:
                if chain.completion is None and chain.has_started:
                    chain.conclude(self._question)
        ended = [chain for chain in chains if chain.completion is not None]
        for chain in ended:
            if chain.at:
                self._records.append(chain.record())
                self._run.emit(StrategyNote(strategy=self._run.config.strategy, name=NOTE, data=chain.record()))
        return ended

    async def _advance(self, chains: Sequence[OpenChain]) -> None:
        pieces = [min(self._rule.probe_tokens, self._max_thought - chain.thought.tokens) for chain in chains]
        started = [chain for chain in chains if chain.has_started]
        if started and not self._covers(pieces):  # what is left is for their answers
            self.hit_limit = True
            self._run.record_limit(self._run.ledger.exceeded(self._limit(pieces)))
            await self._conclude(started)
            return
        segments = await self._model.generate(
            [
                Request(
                    prompt=self._prompt.with_thought(chain.thought),
                    sampling=chain.sampling.model_copy(update={"thinking_tokens": piece}),
                    sample_indices=(chain.index,),
                )
                for chain, piece in zip(chains, pieces, strict=True)
            ]
        )
        self.num_calls += 1
        for chain, (segment,) in zip(chains, segments, strict=True):
            chain.append(segment)
            if segment.finish_reason == "budget" and chain.answers and not segment.text:
                chain.conclude(self._question)  # the time ended, or the user wants the answer now
        await self._try_answers([chain for chain in chains if chain.completion is None])

    async def _try_answers(self, chains: Sequence[OpenChain]) -> None:
        """Request a trial answer of each open thought; it ends the chain if the rule says so, or if its cap is used."""
        if not chains:
            return
        trials = await self._model.generate([self._trial_request(chain) for chain in chains])
        self.num_calls += 1
        concluded: list[OpenChain] = []
        for chain, (trial,) in zip(chains, trials, strict=True):
            self.num_trials += 1
            self.trial_tokens += trial.usage.completion_tokens
            answer = None
            if trial.ok:
                text = with_conclusion(Completion(text="", finish_reason="thinking"), trial, self._question)
                answer = read_candidate(text, self._question).answer
            chain.add_trial(trial, answer, await chain.labels.label(answer, self._equivalence))
            chain.exited = self._rule.should_exit(chain.trials)
            if not chain.exited and chain.thought.tokens < self._max_thought:
                continue
            if trial.finish_reason == "length":  # an answer without a short form
                concluded.append(chain)
            else:
                self.trial_tokens -= trial.usage.completion_tokens  # it is the chain's answer
                chain.conclude(self._question, trial)
        await self._conclude(concluded)

    async def _conclude(self, chains: Sequence[OpenChain]) -> None:
        """Request the answers after the thoughts."""
        if not chains:
            return
        ends = await self._model.generate([self._conclusion(chain) for chain in chains])
        self.num_calls += 1
        for chain, (end,) in zip(chains, ends, strict=True):
            chain.conclude(self._question, end if end.ok else None)

    def _trial_request(self, chain: OpenChain) -> Request:
        request = self._conclusion(chain)
        changes = {
            "max_tokens": min(request.sampling.max_tokens, CONCLUSION_TOKENS),
            "logprobs": self._rule.confidence is not None,
        }
        return request.model_copy(update={"sampling": request.sampling.model_copy(update=changes)})

    def _conclusion(self, chain: OpenChain) -> Request:
        thinking = self._prompt.with_thought(chain.thought)
        unfinished = Completion(text="", finish_reason="thinking")
        request = conclusion_request(self._model, thinking, unfinished, self._question)
        closed = chain.thought.model_copy(update={"closed": True})  # with its exact tokens
        return request.model_copy(update={"prompt": request.prompt.with_thought(closed, request.prompt.prefix)})

    def _limit(self, pieces: Sequence[int]) -> LimitKind:
        return "thinking_tokens" if sum(pieces) > self._run.ledger.remaining("thinking_tokens") else "tokens"

    def _covers(self, pieces: Sequence[int]) -> bool:
        """Whether the budget covers another segment of each chain, and the answers after it."""
        ledger = self._run.ledger
        answers = CONCLUSION_TOKENS * len(pieces)
        return sum(pieces) <= ledger.remaining("thinking_tokens") and sum(pieces) + answers <= ledger.remaining(
            "tokens"
        )

    def notes(self) -> dict[str, JsonValue]:
        """The trials of all chains, for the solution's notes."""
        return {"trials": self.num_trials, "trial_tokens": self.trial_tokens, "chains": list(self._records)}


def joined_completion(before: Completion, after: Completion) -> Completion:
    """Two pieces of one sample as one: the first one is a part of its thought."""
    thought, added = before.thought or Thought(), after.thought or Thought(closed=True)
    has_ids = bool(before.token_ids)
    logprobs = None
    if has_ids and before.logprobs is not None and after.logprobs is not None:
        logprobs = before.logprobs + after.logprobs
    tops: tuple[tuple[TopToken, ...], ...] | None = None
    if has_ids and before.top_logprobs is not None and after.top_logprobs is not None:
        tops = before.top_logprobs + after.top_logprobs
    usage: Usage = before.usage + after.usage
    return after.model_copy(
        update={
            "thought": Thought(text=thought.text + added.text, tokens=usage.thinking_tokens, closed=added.closed),
            "token_ids": before.token_ids + after.token_ids if has_ids else (),
            "logprobs": logprobs,
            "top_logprobs": tops,
            "answer_from": len(before.token_ids) + after.answer_from if has_ids else 0,
            "usage": usage,
        }
    )
