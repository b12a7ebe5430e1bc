"""RLoT, RL of Thoughts: a small trained network puts a chain of thought together, one logic block at a time.

    s = the model's assessment of the bare problem: seven numbers from 0 to 3
    repeat   a = the block that the network values most in s: reason, decompose, debate, refine, or answer
             run a; assess the new step; if the model says that the steps hold the final answer: answer
    at most `max_blocks` blocks run before the answer

Source: Hao, Li, Yuan, Li, "RL of Thoughts: Navigating LLM Reasoning with Inference-time Reinforcement Learning" (ICLR
2026, arXiv:2505.14140).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ...core.errors import DataError, UserError
from ...core.events import StrategyNote
from ...core.run import Run
from ...core.types import Question, Solution
from ...serving.model import Feature
from ..strategy import Models, Parameters, Stability
from .attempts import Attempt, Ballot
from .block_runner import BlockRunner, Limits
from .blocks import LETTERS, Block, MaskMode, RefineMode
from .episode import Episode
from .navigator import DEFAULT, Navigator, load_navigator
from .policies import ByModel, Chance, Fixed, Greedy, Learned, Policy

PolicyName = Literal["learned", "fixed", "llm", "prm-greedy", "random"]
Letter = Literal["R", "D", "Db", "Rf", "Ga"]


class RLoT:
    """`rlot`: blocks chosen by a trained navigator, or by what it is compared with.

    Requests: one for the bare problem, then by block: reason and refine 3, debate 5, decompose m + 4 with m subtasks,
    the answer 1. Policies but "learned" look at no assessment and ask for none: one fewer for the problem and for each
    block; "llm" asks once more for each choice. "prm-greedy" runs all blocks wherever it stands.

    The answer is what the final reply says; one that cannot be read is none. With `n_votes` attempts they vote, and the
    confidence is the answer's share; a single attempt makes no confidence.

    Differs from the paper's program: actions that make no sense are masked instead of replaced (`mask_mode`); the
    assessment is asked for as JSON without reasons, and none behind the answer; the finish check takes its first word
    alone; an unreadable answer is wrong, and never a random option; results of subtasks pass on up to a length; where a
    plan cannot be told, it is the first one there as here, and counted.
    """

    name: ClassVar[str] = "rlot"
    summary: ClassVar[str] = "a trained navigator puts the chain together from reason, decompose, debate and refine"
    paper: ClassVar[str] = "Hao et al. 2026, arXiv:2505.14140"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")

    class Config(Parameters):
        """Parameters of `rlot`."""

        policy: Annotated[
            PolicyName,
            Field(
                description="what chooses blocks: the trained navigator, a fixed sequence, the model itself, the "
                "reward model one step ahead, or chance"
            ),
        ] = "learned"
        navigator: Annotated[
            str, Field(min_length=1, description='the navigator\'s file; "default" is the one that comes along')
        ] = DEFAULT
        weights: Annotated[
            str,
            Field(description="digest of the navigator's weights, noted by itself: a run goes on with no others"),
        ] = ""
        sequence: Annotated[
            tuple[Letter, ...],
            Field(
                min_length=1,
                description="blocks of the fixed policy: R reason, D decompose, Db debate, Rf refine, Ga answer",
            ),
        ] = ("R", "Rf", "Ga")
        max_blocks: Annotated[int, Field(ge=1, le=100, description="most blocks before the answer")] = 5
        mask_mode: Annotated[
            MaskMode,
            Field(description="blocks that make no sense: never chosen, or replaced as the paper's program does"),
        ] = "mask"
        refine_mode: Annotated[
            RefineMode, Field(description="whether a refined step comes behind the old one or in its place")
        ] = "append"
        limits: Annotated[Limits, Field(description="how long what is written may be")] = Limits()
        n_votes: Annotated[int, Field(ge=1, le=256, description="attempts, whose answers vote")] = 1
        temperature: Annotated[
            float, Field(ge=0, le=100, description="temperature of a single attempt; 0 is greedy")
        ] = 0.0
        vote_temperature: Annotated[float, Field(gt=0, le=100, description="temperature of attempts that vote")] = 0.7
        system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""

        @model_validator(mode="before")
        @classmethod
        def _note_weights(cls, given: Any) -> Any:
            """A file may be trained anew under its name: what a run began with is known by its weights."""
            if not isinstance(given, Mapping) or given.get("policy", "learned") != "learned":
                return given
            try:
                navigator = _with_weights(str(given.get("navigator", DEFAULT)), given.get("weights") or "")
            except DataError:
                return given  # told where it is needed
            return {**given, "weights": navigator.digest}

        @model_validator(mode="after")
        def _sequence_can_run(self) -> Self:
            if self.policy == "fixed" and self.mask_mode == "mask" and self.sequence[0] == "Rf":
                raise ValueError("the first block of a sequence has to write a step: there is none to refine yet")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`.

        Raises:
            DataError: The navigator cannot be read.
            UserError: The reward model is to choose, and none was given.
        """
        config = self.config
        policy, navigator = self._policy(models, run)
        if navigator is not None:
            which: dict[str, JsonValue] = {"name": navigator.card.name, "digest": navigator.digest}
            run.emit(StrategyNote(strategy=run.config.strategy, name="navigator.loaded", data=which))
            if navigator.knows(question.text):
                run.degrade("the navigator was trained on this very question: the answer shows nothing of others")
        attempts = [self._attempt(vote, policy, question, models, run) for vote in range(config.n_votes)]
        ballot = Ballot(question, run, attempts)
        await ballot.make()
        return await ballot.solution()

    def _policy(self, models: Models, run: Run) -> tuple[Policy, Navigator | None]:
        config = self.config
        match config.policy:
            case "learned":
                navigator = _with_weights(config.navigator, config.weights)
                return Learned(navigator), navigator
            case "fixed":
                return Fixed([Block(LETTERS.index(letter)) for letter in config.sequence]), None
            case "llm":
                return ByModel(), None
            case "prm-greedy":
                return Greedy(models.reward, run), None
            case "random":
                return Chance(run), None

    def _attempt(self, vote: int, policy: Policy, question: Question, models: Models, run: Run) -> Attempt:
        config = self.config
        runner = BlockRunner(
            models.main,
            run,
            config.limits,
            refine_mode=config.refine_mode,
            system=config.system,
            temperature=config.temperature if config.n_votes == 1 else config.vote_temperature,
            sample_index=vote,
        )
        episode = Episode(
            runner, question, max_blocks=config.max_blocks, mask_mode=config.mask_mode, assesses=policy.assesses
        )
        return Attempt(episode, policy, run)


def _with_weights(name: str, weights: str) -> Navigator:
    """A navigator, with the weights of this digest unless that is empty.

    Raises:
        DataError: It cannot be read.
        UserError: It has other weights by now.
    """
    navigator = load_navigator(name)
    if weights not in ("", navigator.digest):
        raise UserError(
            f"the navigator {name} has other weights than the run began with",
            hint="put the file back, or begin another run",
        )
    return navigator
