"""RLoT, RL of Thoughts: a small trained network composes a chain of thought, one logic block at a time.

    s = the model's assessment of the bare problem: seven numbers from 0 to 3
    repeat   a = the block of the highest value in s: reason, decompose, debate, refine, or answer
             run a; assess the new step; if the model says that the steps contain the final answer: answer
    at most `max_blocks` blocks run before the answer

Source: Hao, Li, Yuan, Li, "RL of Thoughts: Navigating LLM Reasoning with Inference-time Reinforcement Learning" (ICLR
2026, arXiv:2505.14140).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ...core.errors import DataError, UserError
from ...core.events import StrategyNote
from ...core.run import Run
from ...core.types import Question, Solution
from ...serving.model import Feature
from ..strategy import Models, Parameters, Stability, Thinking
from .attempts import Attempt, AttemptVote
from .block_runner import BlockLimits, BlockRunner
from .blocks import LETTERS, Block, Parity
from .episode import Episode
from .navigator import DEFAULT, Navigator, load_navigator
from .policies import FixedPolicy, LearnedPolicy, ModelPolicy, Policy

PolicyName = Literal["learned", "fixed", "llm"]
Letter = Literal["R", "D", "Db", "Rf", "Ga"]

VOTE_TEMPERATURE: Final = 0.7
"""Sampling temperature of attempts that vote."""


class RLoT:
    """`rlot`: blocks chosen by a trained navigator, or by a baseline.

    Requests: one for the bare problem, then by block: reason and refine 3, debate 5, decompose m + 4 with m subtasks,
    the answer 1. Policies other than "learned" use no assessment: one fewer for the problem and each block; "llm" adds
    one for each choice.

    The answer is read from the final completion; if it cannot be parsed there is none. With `n_votes` attempts they
    vote, and the confidence is the answer's share; a single attempt has no confidence.

    Differs from the paper's program: illegal actions are masked, not replaced (`parity`); the assessment is JSON
    without reasons, and there is none after the answer; only the first word of the finish check counts; an unreadable
    answer is wrong, never a random option; results of subtasks are passed on up to a maximum length; an unreadable
    choice of plan is counted, and is the first plan as there.
    """

    name: ClassVar[str] = "rlot"
    summary: ClassVar[str] = "let a trained navigator build the chain from reason, decompose, debate and refine"
    paper: ClassVar[str] = "Hao et al. 2026, arXiv:2505.14140"
    confidence: ClassVar[str] = "The answer's share of the votes of all attempts; none for a single attempt."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    thinking: ClassVar[Thinking] = "steps"
    limits: ClassVar[BlockLimits] = BlockLimits()

    class Config(Parameters):
        """Parameters of `rlot`."""

        policy: Annotated[
            PolicyName,
            Field(description="choice of blocks: the trained navigator, a fixed sequence, or the model itself"),
        ] = "learned"
        navigator: Annotated[
            str, Field(min_length=1, description='the navigator\'s file; "default" is the bundled one')
        ] = DEFAULT
        weights: Annotated[
            str,
            Field(
                description="digest of the navigator's weights, recorded automatically: a run resumes only with them"
            ),
        ] = ""
        sequence: Annotated[
            tuple[Letter, ...],
            Field(
                min_length=1,
                max_length=100,
                description="blocks of the fixed policy: R reason, D decompose, Db debate, Rf refine, Ga answer",
            ),
        ] = ("R", "Rf", "Ga")
        max_blocks: Annotated[int, Field(ge=1, le=100, description="maximum blocks before the answer")] = 5
        parity: Annotated[
            Parity, Field(description="reference replaces illegal blocks as the authors' program does")
        ] = "none"
        n_votes: Annotated[int, Field(ge=1, le=256, description="number of attempts, whose answers vote")] = 1
        temperature: Annotated[
            float | None,
            Field(
                ge=0,
                le=100,
                description="temperature of steps; by default 0 for a single attempt, else 0.7 where it is taken",
            ),
        ] = None

        @model_validator(mode="before")
        @classmethod
        def _record_digest(cls, data: Any) -> Any:
            """Record the weights' digest: the file may be trained again under its name."""
            if not isinstance(data, Mapping) or data.get("policy", "learned") != "learned":
                return data
            try:
                navigator = _load_checked(str(data.get("navigator", DEFAULT)), data.get("weights") or "")
            except DataError:
                return data  # reported when the navigator is loaded
            return {**data, "weights": navigator.digest}

        @classmethod
        def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
            each = max(RLoT.limits.subtasks, RLoT.limits.plans)
            return {"n_votes": values["n_votes"], f"max_blocks (of {each} samples)": each * values["max_blocks"]}

        @model_validator(mode="after")
        def _check_sequence(self) -> Self:
            if self.policy == "fixed" and self.parity == "none" and self.sequence[0] == "Rf":
                raise ValueError("the first block of a sequence must write a step: there is none to refine yet")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def num_chains(self) -> int:
        """Chains of the self-consistency that replaces it where the model always thinks: one for each block."""
        return self.config.max_blocks if self.config.n_votes == 1 else self.config.n_votes

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """Run the attempts and let their answers vote.

        Raises:
            DataError: The navigator cannot be read.
        """
        config = self.config
        policy, navigator = self._policy()
        if navigator is not None:
            data: dict[str, JsonValue] = {"name": navigator.card.name, "digest": navigator.digest}
            run.emit(StrategyNote(strategy=run.config.strategy, name="navigator.loaded", data=data))
            if navigator.knows(question.text):
                run.degrade("the navigator was trained on this question: the answer does not measure generalization")
        attempts = [self._attempt(vote, policy, question, models, run) for vote in range(config.n_votes)]
        votes = AttemptVote(question, run, attempts)
        await votes.run()
        return await votes.solution()

    def _policy(self) -> tuple[Policy, Navigator | None]:
        config = self.config
        match config.policy:
            case "learned":
                navigator = _load_checked(config.navigator, config.weights)
                return LearnedPolicy(navigator), navigator
            case "fixed":
                return FixedPolicy([Block(LETTERS.index(letter)) for letter in config.sequence]), None
            case "llm":
                return ModelPolicy(), None

    def _attempt(self, vote: int, policy: Policy, question: Question, models: Models, run: Run) -> Attempt:
        config = self.config
        runner = BlockRunner(
            models.main,
            run,
            self.limits,
            temperature=config.temperature,
            default_temperature=0.0 if config.n_votes == 1 else VOTE_TEMPERATURE,
            sample_index=vote,
        )
        episode = Episode(
            runner,
            question,
            max_blocks=config.max_blocks,
            parity=config.parity,
            with_assessment=policy.needs_assessment,
        )
        return Attempt(episode, policy, run)


def _load_checked(name: str, weights: str) -> Navigator:
    """Load a navigator and check its digest unless that is empty."""
    navigator = load_navigator(name)
    if weights not in ("", navigator.digest):
        raise UserError(
            f"the weights of the navigator {name} have changed since the run began",
            hint="restore the file, or start a new run",
        )
    return navigator
