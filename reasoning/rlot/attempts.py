"""One episode under a policy up to its answer (`AttemptResult`), and the vote of several (`AttemptVote`).

A block is begun only if its maximum cost and that of the answer fit the budget, so that the answer can always be
requested; its steps are shorter if that makes it fit. Everything but the time is a function of the completions, so
that a replay decides as the run did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import JsonValue

from ...core.budget import CostBound, LimitKind
from ...core.concurrency import gather
from ...core.errors import BackendError, BudgetExceeded, ReasonError, StoreError
from ...core.events import CandidateAdded, StrategyNote
from ...core.run import Run
from ...core.types import Candidate, Question, Solution, Step
from ..answers.extraction import extract_answer, read_candidate
from ..sampling import leading_solution
from ..voting.self_consistency import weighted_vote
from .assessment import State
from .block_runner import MIN_BLOCK_TOKENS, BlockRunner
from .blocks import LETTERS, NAMES, Block, Trajectory
from .episode import Episode
from .policies import BlockChoice, FixedPolicy, Policy

_FIXED_BYTES = 1_000
"""Upper bound on the fixed text of a prompt."""


def budget_shortfall(
    run: Run,
    runner: BlockRunner,
    trajectory: Trajectory,
    block: Block | None,
    *,
    with_assessment: bool,
    tokens: int = 0,
    calls: int = 0,
) -> LimitKind | None:
    """The first limit that does not cover a block and the answer after it; None if all do.

    Time is short if no more than twice the time kept for the answer is left.

    Args:
        trajectory: The trajectory before the block.
        block: The block; None for the answer alone.
        with_assessment: Whether an assessment follows the block.
        tokens: Additional tokens.
        calls: Additional requests.
    """
    ledger, limits = run.ledger, runner.limits
    tokens, calls = tokens + limits.answer_tokens, calls + 1
    if block is not None:
        tokens += runner.max_tokens(block, with_assessment=with_assessment)
        calls += runner.max_calls(block, with_assessment=with_assessment)
    usd = 0.0 if ledger.budget.usd is None else _max_usd(runner, trajectory, tokens, calls)
    kind = ledger.view().shortfall(CostBound(tokens=tokens, calls=calls, usd=usd))
    seconds = ledger.remaining_seconds()
    if kind is None and seconds is not None and seconds <= 2 * runner.client.budget.reserved_seconds:
        return "seconds"
    return kind


def _max_usd(runner: BlockRunner, trajectory: Trajectory, tokens: int, calls: int) -> float:
    """Maximum price of the requests, each of which may contain everything that the others generate."""
    capabilities = runner.client.model.capabilities
    question = trajectory.question
    texts = [
        question.text,
        *(turn.content for turn in question.conversation),
        *(call.model_dump_json() for turn in question.conversation for call in turn.tool_calls),
        *question.choices,
        *(document.text for document in question.documents),
        *trajectory.steps,
    ]
    # bytes bound the number of tokens; a replay has no tokenizer
    prompt_tokens = sum(len(text.encode()) + 8 for text in texts) + _FIXED_BYTES + tokens
    return calls * prompt_tokens * (capabilities.usd_per_prompt_token or 0.0) + tokens * (
        capabilities.usd_per_completion_token or 0.0
    )


EndReason = Literal["finished", "terminated", "limit", "budget", "failed"]
"""Why the answer was requested: the finish check was positive, the policy chose to terminate, no more blocks may run,
the budget does not cover another block, or a block failed.
"""

BLOCK_FAILED = "a block failed; the answer was requested without it"


class Attempt:
    """One attempt at the problem.

    Attributes:
        on_progress: Called after each block.
        states: The state at each choice, for policies that use it.
        ended: Why the answer was requested; None until then.
        spent: Whether the budget ended it early.
    """

    def __init__(self, episode: Episode, policy: Policy, run: Run) -> None:
        self.episode = episode
        self.states: list[State] = []
        self.ended: EndReason | None = None
        self.spent = False
        self.on_progress: Callable[[], None] = lambda: None
        self._policy, self._run = policy, run

    @property
    def vote(self) -> int:
        """Index of the attempt."""
        return self.episode.runner.sample_index

    @property
    def has_output(self) -> bool:
        """Whether it has a step or an answer."""
        return self.episode.is_done or bool(self.episode.trajectory.steps)

    @property
    def chain(self) -> list[str]:
        """Letters of its blocks."""
        return [LETTERS[block] for block in self.episode.blocks]

    async def run(self) -> None:
        """Run it to its answer or the end of the budget.

        Raises:
            BackendError: The model failed at the answer too.
        """
        episode = self.episode
        try:
            try:
                await self._advance()
            except BudgetExceeded as e:
                self._record_limit(e)
            except (BackendError, StoreError) as e:
                if isinstance(e, StoreError) and self._run.recording:
                    raise
                self._fail(e)  # in a replay a failed call has no stored response
            if not episode.is_done:
                if self.ended == "budget" and not episode.blocks:
                    self._run.degrade("the answer was requested without a block: the budget covers none")
                try:
                    await episode.finish()
                except BudgetExceeded as e:
                    self._record_limit(e)
        finally:
            self.on_progress()  # also when it is cancelled
        self.spent = self.spent or episode.runner.client.is_truncated
        self._note("navigated", self.summary())

    def fits_budget(self) -> bool:
        """Whether the budget covers an answer at all."""
        return not self._exceeds_budget()

    async def _advance(self) -> None:
        """Run blocks until there is an answer or it has to be forced."""
        episode = self.episode
        self._fit_limits()
        policy, limits = self._policy, episode.runner.limits
        if self._exceeds_budget(
            tokens=limits.assess_tokens if policy.needs_assessment else 0, calls=int(policy.needs_assessment)
        ):
            return
        await episode.begin()
        while not episode.is_done:
            self.on_progress()
            if episode.is_full:
                self.ended = "limit"
                await episode.finish()
                return
            if policy.calls_model and self._exceeds_budget(tokens=limits.choose_tokens, calls=1):
                return
            choice = await policy.choose(episode)
            if policy.needs_assessment:
                self.states.append(episode.state)
            block = episode.effective_block(choice.action)
            if block is not Block.TERMINATE:
                self._shorten(block)
                if self._exceeds_budget(block):
                    return
            await self._take(choice)

    async def _take(self, choice: BlockChoice) -> None:
        episode, runner = self.episode, self.episode.runner
        state: dict[str, JsonValue] = {
            "legal": [letter for letter, may in zip(LETTERS, episode.legal, strict=True) if may],
            "state": list(episode.state) if self._policy.needs_assessment else None,
            "missing": episode.assessment.missing if self._policy.needs_assessment else None,
            "q": None if choice.q is None else [round(value, 4) for value in choice.q],
        }
        calls, tokens = runner.calls, runner.tokens
        block = await episode.act(choice.action)
        if episode.is_done:
            self.ended = "terminated" if block is Block.TERMINATE else "finished"
        self._note(
            "block.run",
            {
                "block": NAMES[block],
                "letter": LETTERS[block],
                **state,
                "finished": self.ended == "finished",
                "steps": len(episode.trajectory.steps),
                "calls": runner.calls - calls,
                "tokens": runner.tokens - tokens,
            },
        )

    # -- limits and failures

    def _fit_limits(self) -> None:
        """Give the answer a part of a small budget; without room for assessments only reason, which is reported."""
        episode, left = self.episode, self._run.ledger.remaining("tokens")
        if left == math.inf:
            return
        limits = episode.runner.limits = episode.runner.limits.with_answer(max(1, int(left) // 4))
        assessed = limits.assess_tokens + episode.runner.check_tokens(with_assessment=True)
        needed = assessed + min(MIN_BLOCK_TOKENS, limits.step_tokens) + limits.answer_tokens
        if self._policy.needs_assessment and left < needed:
            self._run.degrade(
                "all blocks were steps of reasoning, not chosen by the navigator: one with its assessments and the "
                f"answer takes up to {needed} tokens, and the budget has {left:g} tokens left"
            )
            episode.with_assessment = False
            self._policy = FixedPolicy([Block.REASON] * episode.max_blocks)

    def _shorten(self, block: Block) -> None:
        """Shorten the steps, plans and results of a block that the budget does not cover at their full lengths."""
        runner, has_assessment = self.episode.runner, self._policy.needs_assessment
        left = self._run.ledger.remaining("tokens")
        full = runner.max_tokens(block, with_assessment=has_assessment)
        checks = runner.check_tokens(with_assessment=has_assessment)
        if left >= full + runner.limits.answer_tokens:
            return
        shorter = runner.limits.shortened((left - runner.limits.answer_tokens - checks) / (full - checks))
        if shorter is not None:
            runner.limits = shorter

    def _exceeds_budget(self, block: Block | None = None, *, tokens: int = 0, calls: int = 0) -> bool:
        episode = self.episode
        kind: LimitKind | None = budget_shortfall(
            self._run,
            episode.runner,
            episode.trajectory,
            block,
            with_assessment=self._policy.needs_assessment,
            tokens=tokens,
            calls=calls,
        )
        if kind is not None:
            self._record_limit(self._run.ledger.exceeded(kind))
        return kind is not None

    def _record_limit(self, error: BudgetExceeded) -> None:
        if not self.spent:
            self._run.record_limit(error)
        self.spent = True
        self.ended = self.ended or "budget"

    def _fail(self, error: BackendError | StoreError) -> None:
        self.ended = self.ended or "failed"
        self._run.degrade(BLOCK_FAILED)
        self._note("block.failed", {"code": error.code, "message": error.message})

    # -- results

    def candidate(self) -> Candidate:
        """The candidate so far.

        The answer is read from the final completion only. Without one it is what the last step explicitly states as the
        answer.
        """
        episode = self.episode
        trajectory, completion = episode.trajectory, episode.completion
        final_text = "" if completion is None else completion.text.strip()
        if completion is not None:
            answer = read_candidate(completion, trajectory.question).answer
        else:
            answer_match = extract_answer(trajectory.steps[-1], trajectory.question) if trajectory.steps else None
            answer = answer_match.value if answer_match is not None and answer_match.is_explicit else None
        return Candidate(
            text="\n\n".join(part for part in (trajectory.written, final_text) if part),
            answer=answer,
            steps=tuple(Step(text=step) for step in (*trajectory.steps, final_text) if step),
            tokens=episode.runner.tokens,
            finish_reason="budget" if completion is None else completion.finish_reason,
        )

    def summary(self) -> dict[str, JsonValue]:
        """Its chain, states and counts, for the trace and the solution's notes."""
        episode, runner = self.episode, self.episode.runner
        return {
            "chain": list(self.chain),
            "states": [list(state) for state in self.states],
            "ended": self.ended,
            "forced": episode.forced,
            "calls": runner.calls,
            "tokens": runner.tokens,
            "scores_requested": runner.scores_requested,
            "scores_missing": runner.scores_missing,
            "unparsed": {name: count for name, count in runner.unparsed.items() if count},
        }

    def _note(self, name: str, data: dict[str, JsonValue]) -> None:
        self._run.emit(StrategyNote(strategy=self._run.config.strategy, name=name, data={**data, "vote": self.vote}))


MAX_MISSING_SHARE = 0.05
"""Share of missing scores above which the answer is marked as degraded."""
ATTEMPT_FAILED = "an attempt failed and has no vote"


class AttemptVote:
    """Runs attempts and lets their answers vote.

    Attempts run concurrently if nothing but time limits the run; otherwise one after another, each with what the
    previous ones left, so that a replay makes the same requests.

    Args:
        attempts: The attempts; a single one does not vote.
    """

    def __init__(self, question: Question, run: Run, attempts: Sequence[Attempt]) -> None:
        self._question, self._run, self._attempts = question, run, list(attempts)
        self._completed = self._attempts
        for attempt in self._attempts:
            attempt.on_progress = self._offer

    async def run(self) -> None:
        """Run all attempts; the best solution so far is set on the run after each block.

        Raises:
            BackendError: All of them failed.
        """
        if self._run.ledger.view().is_unlimited:
            results = await gather([self._run_attempt(attempt) for attempt in self._attempts])
        else:
            results = [await self._run_attempt(attempt) for attempt in self._attempts]
        failed: list[ReasonError] = []
        completed: list[Attempt] = []
        for attempt, error in zip(self._attempts, results, strict=True):
            if error is None:
                completed.append(attempt)
            elif isinstance(error, BackendError) or (isinstance(error, StoreError) and not self._run.recording):
                failed.append(error)  # in a replay a failed call has no stored response
            else:
                raise error
        if failed and not any(attempt.has_output for attempt in completed):
            raise failed[0]
        if failed:
            self._run.degrade(ATTEMPT_FAILED)
        self._completed = completed

    async def _run_attempt(self, attempt: Attempt) -> ReasonError | None:
        try:
            if attempt.vote == 0 or attempt.fits_budget():
                await attempt.run()
        except ReasonError as e:
            return e
        return None

    async def solution(self) -> Solution:
        """The solution of all attempts."""
        run, completed = self._run, [attempt for attempt in self._completed if attempt.has_output]
        candidates = tuple(attempt.candidate() for attempt in completed)
        for i, candidate in enumerate(candidates):
            run.emit(CandidateAdded(index=i, answer=candidate.answer))
        chosen: int | None = 0 if candidates else None
        confidence: float | None = None
        if len(self._attempts) > 1 and candidates:
            vote = await weighted_vote(candidates, [1.0] * len(candidates), self._question, run)
            chosen, confidence = (0, 0.0) if vote is None else (vote.chosen, vote.share)
        scores = self._report_missing()
        summary = {} if chosen is None else completed[chosen].summary()
        if len(self._attempts) > 1:
            summary |= {"votes": len(candidates), "chains": [list(attempt.chain) for attempt in completed]}
        return Solution(
            chosen=chosen,
            candidates=candidates,
            confidence=confidence,
            stopped="budget" if any(attempt.spent for attempt in self._attempts) else "done",
            notes=summary | scores,
        )

    def _report_missing(self) -> dict[str, JsonValue]:
        """Counts of requested and missing scores; too many missing ones degrade the run."""
        requested = sum(attempt.episode.runner.scores_requested for attempt in self._attempts)
        missing = sum(attempt.episode.runner.scores_missing for attempt in self._attempts)
        if missing > MAX_MISSING_SHARE * requested:
            self._run.degrade(
                f"{missing} of {requested} scores of the model's self-assessments could not be parsed; the navigator "
                "used 0, not involved"
            )
        return {"scores_requested": requested, "scores_missing": missing}

    def _offer(self) -> None:
        has_output = [attempt for attempt in self._attempts if attempt.has_output]
        if not has_output:
            return
        finished = [attempt for attempt in has_output if attempt.episode.is_done]
        candidates: list[Candidate] = [attempt.candidate() for attempt in finished or has_output]
        best = leading_solution(candidates)
        if len(self._attempts) == 1:
            best = best.model_copy(update={"confidence": None})
        self._run.set_best(best.model_copy(update={"stopped": "cancelled"}))
