"""A cascade: the small model answers first, and the large one where that answer is not believed.

Sources: Chen, Zaharia, Zou, "FrugalGPT: How to Use Large Language Models While Reducing Cost and Improving Performance"
(2023, arXiv:2305.05176), section 3, "LLM cascade"; Aggarwal, Madaan et al., "AutoMix: Automatically Mixing Language
Models" (NeurIPS 2024, arXiv:2310.12963), where the small model's own opinion of its answer decides.

How far a solution can be believed, as one number: what its strategy states, or how likely its tokens were.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from ..core.calibration import CalibrationMap, load_calibration_map
from ..core.errors import DataError, UserError
from ..core.events import StrategyNote
from ..core.run import Run
from ..core.types import Candidate, Question, Solution
from ..reasoning.strategy import Models, Parameters, Stability, create_strategy, require_features
from ..serving.model import Feature
from .nested_strategy import inner_strategy
from .router_files import file_of_digest

BeliefKind = Literal["stated", "calibrated", "likelihood", "unknown"]


@dataclass(frozen=True)
class Belief:
    """How far a solution can be believed.

    Attributes:
        value: In [0, 1]; None if unknown.
        kind: What the value is.
    """

    value: float | None
    kind: BeliefKind

    @property
    def stated(self) -> float | None:
        """The value where it is an estimate of the probability of being right; a likelihood is none."""
        return self.value if self.kind in ("stated", "calibrated") else None


def belief_in(solution: Solution, curve: CalibrationMap | None = None, *, likelihood: bool = False) -> Belief:
    """How far a solution can be believed.

    Args:
        solution: The solution.
        curve: What its strategy's confidence has been worth; with it, a solution without any is not known to be worth
            anything.
        likelihood: Whether to look at the likelihood even if a confidence is stated.
    """
    if solution.confidence is not None and not likelihood:
        if curve is None:
            return Belief(solution.confidence, "stated")
        return Belief(curve.apply(solution.confidence), "calibrated")
    value = None if solution.best is None or curve is not None else token_likelihood(solution.best)
    return Belief(value, "unknown" if value is None else "likelihood")


def token_likelihood(candidate: Candidate) -> float | None:
    """exp(mean log-probability of a token) of an attempt, in (0, 1]: the geometric mean of its tokens' probabilities.

    None where the backend hides log-probabilities, or the strategy does not pass them on.
    """
    if candidate.logprob is None or not candidate.tokens:
        return None
    return math.exp(min(candidate.logprob / candidate.tokens, 0.0))


Which = Literal["small", "large"]


class Cascade:
    """`cascade`: strategy `first` on the small model; strategy `then` on the large one if that is not confident.

    The large model is asked if the small one's answer has a confidence below `threshold`, if its confidence cannot be
    told, or if it gave no answer. Confidence is what `first` states of its answer, by `calibration` as how often such
    an answer was right; of a strategy that states none, exp(mean log-probability of a token) of the chosen attempt,
    which is on a scale of its own. What the large model answers stands, unless it gives no answer or the budget cut it
    short: then the small one's does.

    Requests: those of `first`, and if the large model is asked, those of `then`.

    The confidence is that of the strategy whose answer stands, calibrated if `calibration` is given and it is the small
    model's; a likelihood is none.

    Differs: FrugalGPT trains a model that scores answers, and AutoMix asks the small model to verify its answer and
    has a policy over several such verdicts; here the strategy's own confidence stands for both, which for
    self-consistency is the share of samples that agree.
    """

    name: ClassVar[str] = "cascade"
    summary: ClassVar[str] = "the small model answers, and the large one where that answer is not confident"
    paper: ClassVar[str] = "Chen et al. 2023, arXiv:2305.05176"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "small", "reward")

    class Config(Parameters):
        """Parameters of `cascade`."""

        first: Annotated[str, Field(description="strategy of the small model")] = "self-consistency"
        first_parameters: Annotated[
            dict[str, JsonValue], Field(description="its parameters that differ from its defaults")
        ] = {}  # noqa: RUF012 (pydantic copies it)
        then: Annotated[str, Field(description="strategy of the large model")] = "cot"
        then_parameters: Annotated[
            dict[str, JsonValue], Field(description="its parameters that differ from its defaults")
        ] = {}  # noqa: RUF012 (pydantic copies it)
        threshold: Annotated[
            float, Field(ge=0, le=1, description="confidence of the small model below which the large one is asked")
        ] = 0.6
        confidence: Annotated[
            Literal["stated", "likelihood"],
            Field(
                description="what is compared with the threshold: what the strategy states, if it states any; or "
                "always the likelihood of the chosen attempt's tokens"
            ),
        ] = "stated"
        calibration: Annotated[
            str, Field(description="file of a calibration map of `first` on the small model; empty is none")
        ] = ""
        calibration_digest: Annotated[
            str, Field(description="digest of the map, noted by itself: a run goes on with no other")
        ] = ""

        @model_validator(mode="before")
        @classmethod
        def _complete(cls, given: Any) -> Any:
            """Note the inner strategies' parameters whole, and which map it is: a file may change under its name."""
            if not isinstance(given, Mapping):
                return given
            told = dict(given)
            for role, default in (("first", "self-consistency"), ("then", "cot")):
                name, own = told.get(role, default), told.get(f"{role}_parameters", {})
                if isinstance(name, str) and isinstance(own, Mapping):
                    told[f"{role}_parameters"] = inner_strategy(name, own, "cascade")[1]
            file = told.get("calibration")
            if isinstance(file, str) and file:
                if told.get("confidence", "stated") == "likelihood":
                    raise ValueError("a calibration map is of stated confidences, and of no likelihoods")
                with contextlib.suppress(DataError):  # told where it is needed
                    told["calibration_digest"] = _map_of(file, str(told.get("calibration_digest") or "")).digest
            return told

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`.

        Raises:
            DataError: The calibration map cannot be read.
            UserError: It is of another strategy, another model or another file than the run began with.
            CapabilityMissing: A model cannot do what its strategy needs.
        """
        config = self.config
        first, _ = inner_strategy(config.first, config.first_parameters, self.name)
        then, _ = inner_strategy(config.then, config.then_parameters, self.name)
        curve = self._curve(models, run)
        of_small = models.with_main("small")
        require_features(first, of_small)
        require_features(then, models)
        if not models.has("small"):
            run.degrade("no small model was given: the main model answers first, and again if it is not confident")

        small = await first.solve(question, of_small, run)
        belief = belief_in(small, curve, likelihood=config.confidence == "likelihood")
        why = _why_on(small, belief, config.threshold)
        alone = self._solution("small", small, None, belief, why, run)
        data = {name: alone.notes[name] for name in ("confidence", "confidence_kind", "threshold", "asked_large")}
        run.emit(StrategyNote(strategy=run.config.strategy, name="cascade.decided", data={**data, "why": why}))
        if not why:
            return alone
        if small.best is not None and small.best.answer is not None and belief.value is None:
            run.degrade(f"the large model was asked because {why}")
        run.set_best(alone)
        large = await then.solve(question, models, run)
        return self._solution(_whose_stands(small, large), small, large, belief, why, run)

    def _curve(self, models: Models, run: Run) -> CalibrationMap | None:
        config = self.config
        if not config.calibration:
            return None
        found = _map_of(config.calibration, config.calibration_digest)
        if found.strategy != config.first:
            raise UserError(
                f"the calibration map {found} was fitted to strategy {found.strategy!r}, and the small model answers "
                f"by {config.first!r}",
                hint="calibrate a run of that strategy, or leave the map away",
            )
        if found.engines["main"] != models.small.identity:
            raise UserError(
                f"the calibration map {found} was fitted to the model {found.models['main']} "
                f"({found.engines['main']}), not to the small model {models.small.name} ({models.small.identity})",
                hint="calibrate a run of the small model as the main one (reason eval -m SMALL, reason eval calibrate)",
            )
        # a parameter that the strategy did not have when the map was fitted was at its default
        then = {**create_strategy(config.first, {})[1], **found.parameters}
        differing = [
            f"{name} was {then.get(name)} and is {now}"
            for name, now in config.first_parameters.items()
            if then.get(name) != now
        ]
        if differing:
            run.degrade(f"the calibration map {found} was fitted under other settings: {'; '.join(differing)}")
        return found

    def _solution(
        self, whose: Which, small: Solution, large: Solution | None, belief: Belief, why: str, run: Run
    ) -> Solution:
        """Both models' attempts as one solution."""
        chosen, behind = (small, 0) if whose == "small" or large is None else (large, len(small.candidates))
        notes: dict[str, JsonValue] = {
            "answered": whose,
            "asked_large": bool(why),
            "why": why,
            "confidence": belief.value,
            "confidence_kind": belief.kind,
            "threshold": self.config.threshold,
            "tokens": {key: row.completion_tokens for key, row in sorted(run.ledger.usage().by_role.items())},
            "first": small.notes,
        }
        if large is not None:
            notes["then"] = large.notes
        return Solution(
            chosen=None if chosen.chosen is None else chosen.chosen + behind,
            candidates=(*small.candidates, *(() if large is None else large.candidates)),
            confidence=belief.stated if whose == "small" else chosen.confidence,
            stopped=small.stopped if large is None else large.stopped,
            notes=notes,
        )


def _why_on(small: Solution, belief: Belief, threshold: float) -> str:
    """Why the large model is asked; empty if it is not."""
    if small.best is None or small.best.answer is None:
        return "the small model gave no answer"
    if belief.value is None:
        return "the confidence of the small model's answer is not known"
    if belief.value < threshold:
        return f"the small model's answer has a confidence of {belief.value:.3f}, below {threshold:g}"
    return ""


def _whose_stands(small: Solution, large: Solution) -> Which:
    """Whose answer stands once the large model was asked: its own, unless it has none or was cut in its midst."""
    answered = small.best is not None and small.best.answer is not None
    best = large.best
    if best is not None and best.answer is not None and (best.finish_reason != "budget" or not answered):
        return "large"
    return "small" if answered or best is None else "large"


def _map_of(file: str, digest: str) -> CalibrationMap:
    return file_of_digest(file, digest, load_calibration_map, "calibration map")
