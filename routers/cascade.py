"""A cascade: the small model answers first, and the large one if that answer is not confident.

Sources: Chen, Zaharia, Zou, "FrugalGPT: How to Use Large Language Models While Reducing Cost and Improving Performance"
(2023, arXiv:2305.05176), section 3, "LLM cascade"; Aggarwal, Madaan et al., "AutoMix: Automatically Mixing Language
Models" (NeurIPS 2024, arXiv:2310.12963), where the small model's own verification of its answer decides.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from ..core.calibration import CalibrationMap, load_calibration_map, shown_identity
from ..core.errors import DataError, UserError
from ..core.events import StrategyNote
from ..core.run import Run
from ..core.types import Candidate, Question, Solution
from ..reasoning.best_of_n import mean_logprob
from ..reasoning.sampling import SamplingConfig
from ..reasoning.strategy import STRATEGIES, Models, Parameters, Stability, create_strategy
from ..serving.model import Feature
from .nested_strategy import inner_strategy, prefers_second, require_suitable, solve_within
from .router_files import file_of_digest

BeliefKind = Literal["stated", "calibrated", "likelihood", "unknown"]


@dataclass(frozen=True)
class Belief:
    """Confidence in a solution.

    Attributes:
        value: In [0, 1]; None if unknown.
        kind: Origin of the value.
    """

    value: float | None
    kind: BeliefKind

    @property
    def stated(self) -> float | None:
        """The value if it estimates the probability of being right; a likelihood does not."""
        return self.value if self.kind in ("stated", "calibrated") else None


def belief_in(solution: Solution, curve: CalibrationMap | None = None, *, likelihood: bool = False) -> Belief:
    """Confidence in a solution.

    Args:
        curve: Calibration map of its strategy's confidence; with it, a solution without a confidence is unknown.
        likelihood: Whether to use the likelihood even if there is a confidence.
    """
    if solution.confidence is not None and not likelihood:
        if curve is None:
            return Belief(solution.confidence, "stated")
        return Belief(curve.apply(solution.confidence), "calibrated")
    value = None if solution.best is None or curve is not None else token_likelihood(solution.best)
    return Belief(value, "unknown" if value is None else "likelihood")


def token_likelihood(candidate: Candidate) -> float | None:
    """exp(mean log-probability of a token) of a candidate's text: the geometric mean of its tokens' probabilities.

    In (0, 1]; a thought before the text does not count. None where the backend hides log-probabilities, or the strategy
    does not pass them on.
    """
    mean = mean_logprob(candidate)
    return None if mean is None else math.exp(min(mean, 0.0))


Which = Literal["small", "large"]


class Cascade:
    """`cascade`: strategy `first` on the small model; strategy `then` on the large one if the answer is not confident.

    The large model is called if the confidence of the small one's answer is below `threshold` or unknown, or if it gave
    no answer. The confidence is that of the strategy `first`, mapped by `calibration` to the frequency of being right;
    for a strategy without a confidence it is exp(mean log-probability of a token) of the chosen candidate, which is
    another scale. The large model's answer is returned, unless it has none or the budget truncated it: then the small
    one's is.

    Requests: those of `first`, and if the large model is called, those of `then`. With tools, each turn is decided so:
    calls that change something and lack the quorum of the small model's samples are the large model's decision.

    The confidence is that of the strategy whose answer is returned, calibrated if `calibration` is given and it is the
    small model's; a likelihood is no confidence.

    Differs: FrugalGPT trains a model that scores answers, and AutoMix asks the small model to verify its answer and has
    a policy over several such verdicts; here the strategy's own confidence replaces both, which for self-consistency is
    the share of samples that agree.
    """

    name: ClassVar[str] = "cascade"
    summary: ClassVar[str] = "answer with the small model, and with the large one where that answer is not confident"
    paper: ClassVar[str] = "Chen et al. 2023, arXiv:2305.05176"
    confidence: ClassVar[str] = "That of the strategy whose answer is returned; a likelihood is never stated as one."
    family: ClassVar[str] = "several models"
    when_to_use: ClassVar[str] = "The good model is expensive, and a cheaper one answers most questions."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "small", "jury", "reward")
    supports_tools: ClassVar[bool] = True

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
            float, Field(ge=0, le=1, description="confidence of the small model below which the large one is called")
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
            str, Field(description="digest of the map, set automatically: a run resumes with no other")
        ] = ""

        @model_validator(mode="before")
        @classmethod
        def _complete(cls, values: Any) -> Any:
            """Record the inner strategies' complete parameters and the digest of the map, which may be replaced."""
            if not isinstance(values, Mapping):
                return values
            parameters = dict(values)
            for role, default in (("first", "self-consistency"), ("then", "cot")):
                name, own = parameters.get(role, default), parameters.get(f"{role}_parameters", {})
                if isinstance(name, str) and isinstance(own, Mapping):
                    parameters[f"{role}_parameters"] = inner_strategy(name, own, "cascade")[1]
            file = parameters.get("calibration")
            if isinstance(file, str) and file:
                if parameters.get("confidence", "stated") == "likelihood":
                    raise ValueError("a calibration map is of stated confidences, and of no likelihoods")
                with contextlib.suppress(DataError):  # reported where it is needed
                    parameters["calibration_digest"] = _map_of(
                        file, str(parameters.get("calibration_digest") or "")
                    ).digest
            return parameters

        @classmethod
        def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
            """Those of the strategy that may take more samples."""
            inner = [
                {
                    f"{role}_parameters.{name}": value
                    for name, value in STRATEGIES.load(values[role])
                    .Config.sample_factors(values[f"{role}_parameters"])
                    .items()
                }
                for role in ("first", "then")
            ]
            return max(inner, key=lambda factors: math.prod(factors.values()))

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """Answer with the small model, and with the large one if needed.

        Raises:
            DataError: The calibration map cannot be read.
            UserError: It is of another strategy, another model, verified answers, or another file than the run started
                with; or there are tools, which one of the strategies does not support.
            CapabilityMissing: A model cannot do what its strategy needs.
        """
        config = self.config
        parameters = config.first_parameters
        if config.confidence == "likelihood" or not _states_confidence(config.first):
            parameters = with_logprobs(config.first, parameters)
        first, _ = inner_strategy(config.first, parameters, self.name)
        then, _ = inner_strategy(config.then, config.then_parameters, self.name)
        curve = self._curve(models, run)
        of_small = models.with_main("small")
        require_suitable(first, question, of_small, run)
        require_suitable(then, question, models, run)
        if not models.has("small"):
            run.degrade("no small model: the main model answers first, and again if it is not confident")

        small = await solve_within(first, question, of_small, run)
        belief = belief_in(small, curve, likelihood=config.confidence == "likelihood")
        why = reason_for_large(small, belief, config.threshold)
        small_only = self._solution("small", small, None, belief, why, run)
        data = {name: small_only.notes[name] for name in ("confidence", "confidence_kind", "threshold", "asked_large")}
        run.emit(StrategyNote(strategy=run.config.strategy, name="cascade.decided", data={**data, "why": why}))
        if not why:
            return small_only
        has_answer = small.best is not None and small.best.answer is not None
        if has_answer and belief.value is None and small.stopped != "abstained":
            run.degrade(f"the large model was called because {why}")
        run.set_best(small_only)
        large = await solve_within(then, question, models, run)
        return self._solution("large" if prefers_second(small, large) else "small", small, large, belief, why, run)

    def _curve(self, models: Models, run: Run) -> CalibrationMap | None:
        config = self.config
        if not config.calibration:
            return None
        curve = _map_of(config.calibration, config.calibration_digest)
        if curve.strategy != config.first:
            raise UserError(
                f"the calibration map {curve} was fitted to strategy {curve.strategy!r}, and the small model answers "
                f"by {config.first!r}",
                hint="calibrate a run of that strategy, or omit the map",
            )
        if curve.verify:
            raise UserError(
                f"the calibration map {curve} was fitted to answers verified by {', '.join(curve.verify)}, and "
                "the small "
                "model's answer is not verified before the decision",
                hint="calibrate a run without verifiers, or omit the map",
            )
        if curve.engines["main"] != models.small.identity:
            raise UserError(
                f"the calibration map {curve} was fitted to the model {curve.models['main']} "
                f"({shown_identity(curve.engines['main'])}), not to the small model {models.small.name} "
                f"({shown_identity(models.small.identity)})",
                hint="calibrate a run of the small model as the main one (reason eval -m SMALL, reason eval calibrate)",
            )
        # a parameter that the strategy did not have when the map was fitted was at its default
        then = {**create_strategy(config.first, {})[1], **curve.parameters}
        differing = [
            f"{name} was {then.get(name)} and is {now}"
            for name, now in config.first_parameters.items()
            if then.get(name) != now
        ]
        differing += [
            f"{name} was {was} and is {now}"
            for name, was, now in (
                ("effort", curve.effort, run.config.effort),
                ("thinking_tokens", curve.thinking_tokens, run.config.thinking_tokens),
            )
            if was != now
        ]
        if differing:
            run.degrade(f"the calibration map {curve} was fitted with other parameters: {'; '.join(differing)}")
        return curve

    def _solution(
        self, whose: Which, small: Solution, large: Solution | None, belief: Belief, why: str, run: Run
    ) -> Solution:
        """Both models' candidates as one solution."""
        answering, offset = (small, 0) if whose == "small" or large is None else (large, len(small.candidates))
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
            chosen=None if answering.chosen is None else answering.chosen + offset,
            candidates=(*small.candidates, *(() if large is None else large.candidates)),
            confidence=belief.stated if whose == "small" else answering.confidence,
            stopped=small.stopped if large is None else large.stopped,
            notes=notes,
        )


def reason_for_large(small: Solution, belief: Belief, threshold: float) -> str:
    """Why the large model is called; empty if it is not."""
    if small.best is None or small.best.answer is None:
        return "the small model gave no answer"
    if small.stopped == "abstained":
        return "the small model's samples do not agree on what to change"
    if belief.value is None:
        return "the confidence of the small model's answer is not known"
    if belief.value < threshold:
        return f"the small model's answer has a confidence of {belief.value:.3f}, below {threshold:g}"
    return ""


def with_logprobs(name: str, parameters: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A strategy's parameters with the log-probabilities of its chains requested, if it can request them."""
    can = "logprobs" in STRATEGIES.load(name).Config.model_fields
    return {**parameters, "logprobs": True} if can else dict(parameters)


def _states_confidence(name: str) -> bool:
    """Whether a strategy votes, and so states a confidence."""
    return issubclass(STRATEGIES.load(name).Config, SamplingConfig)


def _map_of(file: str, digest: str) -> CalibrationMap:
    return file_of_digest(file, digest, load_calibration_map, "calibration map")
