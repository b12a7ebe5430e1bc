"""`GlimpRouterFile`: what a small model's first-token entropies looked like on other problems, and the threshold to take.

`evals/training/routers/glimprouter.py` makes one from a run of `glimprouter`; `glimprouter` takes its threshold from it. The quantiles are
kept, and not the threshold alone, since entropies differ from model to model and another rate may be wanted.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, which recommends to send 20 to 30 per cent of the steps to
the large model. Taking the threshold as a quantile of other problems' entropies is ours.

Files that decide how a run goes: a run notes which one it began with, since a file may change under its name.

`Arm`: one way to answer, with how likely it is right and what it costs, told from a question; and the choice of one.

    worth of an arm = P(right | question) - price * expected tokens / 1000

P is a logistic function and the logarithm of the tokens a linear one of the same numbers (`feature_space`), each fitted
on evaluation runs. The price is what 1000 generated tokens are worth in chance of being right.

`AutoRouterFile`: the arms that `auto` chooses from, in a JSON file with where they come from.

`QuestionRouterFile`: when a question needs the large model, in a JSON file with where it comes from.

The numbers of a question that is to be routed: its signals as far as they can be had, and what could not be.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Protocol, Self, TypeVar

from pydantic import Field, FiniteFloat, JsonValue, model_validator

from ..core.errors import DataError, ReasonError, UserError
from ..core.fitted_files import FittedFile, read_fitted_file, write_fitted_file
from ..core.messages import Frozen
from ..core.run import Run
from ..core.types import Probability, Question
from ..reasoning.rlot.navigator import QuestionDigest, question_digest
from ..reasoning.strategy import Models, create_strategy
from ..serving.metered.model import MeteredModel
from .features import ENTROPY, Line, Space, signals_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


EntropyKind = Literal["full", "top_k", "sampled"]
"""Over the whole vocabulary; over the k likeliest tokens, renormalised; or estimated from k samples of one token."""

THRESHOLD_KIND: Final = "reason router"
THRESHOLD_FORMAT: Final = 1
PARTS: Final = 100
"""The quantiles are those of 0, 1/100, …, 1."""
THRESHOLD_MADE_BY: Final = "reason calibrate router --data DATA -m LARGE --small-model SMALL --out FILE makes one"
STEPS_APART: Final = ("granularity", "max_step_tokens", "steps", "system", "temperature", "think", "top_p")
"""Parameters of the step loop that change what a step is, and so how uncertain its first token is."""

Entropy = Annotated[FiniteFloat, Field(ge=0)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]


class GlimpRouterFile(FittedFile):
    """Entropies of the first tokens of steps, as quantiles, with where they come from.

    Attributes:
        kind: What the file is.
        format: Version of the file's form.
        name: The file's name without its ending; empty before it lies in one.
        small: Model string of the small model, whose entropies these are.
        large: Model string of the large model.
        engines: Identity of each by role, "small" and "main": weights, number format, engine and its version.
        entropy: Over what the entropies were taken. Another kind is another scale: no threshold carries over.
        k: Tokens looked at of "top_k", samples of "sampled"; 0 of "full".
        quantiles: The 0, 1/100, …, 1 quantiles of the entropy of a step's first token, in nats, pooled over all steps
            (see `quantiles_of`).
        steps: How many steps were pooled.
        questions: How many questions they are of.
        rate: The share of steps that was to go to the large model.
        threshold: The entropy from which a step goes there at this rate, in nats.
        measured_rate: The share of the pooled steps that this threshold really sends there; other than `rate` where
            many steps have the same entropy.
        strict: Whether only steps above the threshold go there, and not those at it.
        dataset: The dataset, with its variant.
        fingerprint: The dataset's fingerprint.
        parameters: Those of the step loop, complete: what a step is depends on them.
        version: Version of `reason`.
        made: The day it was made, in UTC.
    """

    kind: Literal["reason router"] = THRESHOLD_KIND
    format: Literal[1] = THRESHOLD_FORMAT
    name: str = ""
    small: str
    large: str
    engines: dict[str, str]
    entropy: EntropyKind
    k: Annotated[int, Field(ge=0)]
    quantiles: Annotated[tuple[Entropy, ...], Field(min_length=PARTS + 1, max_length=PARTS + 1)]
    steps: Annotated[int, Field(ge=1)]
    questions: Annotated[int, Field(ge=1)]
    rate: Share
    threshold: Entropy
    measured_rate: Share
    strict: bool = False
    dataset: str
    fingerprint: str
    parameters: dict[str, JsonValue]
    version: str
    made: date

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if not {"small", "main"} <= set(self.engines):
            raise ValueError("a router file must name the identities of both models")
        if any(b < a for a, b in pairwise(self.quantiles)):
            raise ValueError("the quantiles must not fall")
        if (self.k == 0) != (self.entropy == "full"):
            raise ValueError("k is 0 for entropies over the whole vocabulary, and above 0 for all others")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({scale(self.entropy, self.k)}, {self.dataset})".lstrip()

    def threshold_for(self, rate: float) -> float:
        """The threshold that sends this share of the steps to the large model, in nats: the (1 - rate) quantile.

        Between two quantiles that the file has, it is on the line through them. At a rate of 0 it is just above every
        entropy seen.

        Args:
            rate: The share wanted, in [0, 1].

        Raises:
            UserError: It is outside.
        """
        if not 0 <= rate <= 1:
            raise UserError(f"a rate of {rate:g} is no share of steps", hint="between 0 and 1")
        if rate == 0:
            return math.nextafter(self.quantiles[-1], math.inf)
        at = round((1 - rate) * PARTS, 9)
        below = int(at)
        if below == at:
            return self.quantiles[below]
        low, high = self.quantiles[below], self.quantiles[below + 1]
        return min(low + (high - low) * (at - below), high)

    def rate_at(self, threshold: float, *, strict: bool = False) -> float:
        """The share of the calibration's steps that a threshold sends to the large model, to about a hundredth.

        Args:
            threshold: In nats.
            strict: Whether only steps above it are sent.
        """
        parts = self.quantiles[:-1]  # each the least entropy of its hundredth of the steps
        return 1 - (bisect_right if strict else bisect_left)(parts, threshold) / PARTS

    def refuse_other(self, *, small: str, large: str, entropy: EntropyKind, k: int) -> None:
        """Refuse to route by this file what it was not made for, before anything is spent on it.

        Args:
            small: Identity of the small model as it was opened.
            large: Identity of the large model likewise.
            entropy: The kind of entropy that is to be compared with the threshold.
            k: Its tokens or samples; 0 of the whole vocabulary.

        Raises:
            UserError: Another pair of models, or another entropy; names both.
        """
        for role, own, other in (("small", self.engines["small"], small), ("large", self.engines["main"], large)):
            if own != other:
                raise UserError(
                    f"the router file {self} was made with the {role} model {own}, not with {other}",
                    hint=f"{THRESHOLD_MADE_BY} for these two",
                )
        if (self.entropy, self.k) != (entropy, k):
            raise UserError(
                f"the thresholds of the router file {self} are of {scale(self.entropy, self.k)} entropies, and those "
                f"compared with them would be of {scale(entropy, k)} ones: another scale",
                hint=f"say entropy={self.entropy}, or calibrate anew",
            )

    def doubts(self, parameters: Mapping[str, JsonValue]) -> str:
        """In what a step loop differs from the one that the file was made with, as a note; empty if in nothing.

        Args:
            parameters: The parameters of the loop.
        """
        differing = [
            f"{name} was {self.parameters[name]} and is {parameters[name]}"
            for name in STEPS_APART
            if name in self.parameters and name in parameters and self.parameters[name] != parameters[name]
        ]
        return f"the router file {self} was made under other settings: {'; '.join(differing)}" if differing else ""


def scale(entropy: EntropyKind, k: int) -> str:
    """A kind of entropy in a few words."""
    return {"full": "full-vocabulary", "top_k": f"top-{k}", "sampled": f"{k}-sample"}[entropy]


def quantiles_of(entropies: Sequence[float]) -> tuple[float, ...]:
    """The 0, 1/100, …, 1 quantiles of entropies, as `GlimpRouterFile` has them.

    The q quantile of n entropies is the (floor(n q) + 1)-th smallest, and the largest for q = 1. It is one that
    occurred, and n (1 - q) of n different ones, rounded up, are at or above it.

    Args:
        entropies: In nats, in any order; at least one.
    """
    ranked = sorted(entropies)
    n = len(ranked)
    return tuple(ranked[min(i * n // PARTS, n - 1)] for i in range(PARTS + 1))


def load_glimprouter_file(path: Path) -> GlimpRouterFile:
    """Read a router file.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it is no router file, or one of another
            version or with impossible values; names the file.
    """
    return read_fitted_file(
        path,
        GlimpRouterFile,
        kind=THRESHOLD_KIND,
        format=THRESHOLD_FORMAT,
        called="router file",
        made_by=THRESHOLD_MADE_BY,
    )


class Digested(Protocol):
    """What was read from a file."""

    @property
    def digest(self) -> str:
        """Names its content."""


FileT = TypeVar("FileT", bound=Digested)


def with_digest(given: Any, load: Callable[[Path], FileT]) -> Any:
    """Parameters with the digest of the file that `router` names, as `router_digest`.

    Args:
        given: The parameters as they came.
        load: Reads such a file.

    Raises:
        UserError: `router_digest` says that it was another file.
    """
    if not isinstance(given, Mapping) or not isinstance(given.get("router"), str) or not given["router"]:
        return given
    try:
        found = file_of_digest(given["router"], str(given.get("router_digest") or ""), load)
    except DataError:
        return given  # told where it is needed
    return {**given, "router_digest": found.digest}


def file_of_digest(name: str, digest: str, load: Callable[[Path], FileT], called: str = "router") -> FileT:
    """What a file holds, which must be of this digest unless that is empty.

    Args:
        name: The file.
        digest: Which content; empty takes any.
        load: Reads such a file.
        called: What the file is called in messages.

    Raises:
        DataError: It cannot be read.
        UserError: It holds something else by now.
    """
    found = load(Path(name).expanduser())
    if digest not in ("", found.digest):
        raise UserError(
            f"the {called} {name} is another one than the run began with",
            hint="put the file back, or begin another run",
        )
    return found


PlayedBy = Literal["main", "small"]
NotNegative = Annotated[FiniteFloat, Field(ge=0)]
STEEPEST = 700.0
"""Largest exponent taken: e^700 is still a number."""


class TokenModel(Frozen):
    """The generated tokens that an arm is expected to take: smear * e^line - 1, within what it took in training.

    The line is over ln(1 + tokens). Its exponential alone is too small for a mean; `smear`, the mean of the exponential
    of what the line missed, corrects it without a distribution being assumed.

    Source: Duan 1983, "Smearing Estimate: A Nonparametric Retransformation Method".

    Attributes:
        line: Over ln(1 + tokens).
        smear: At least 1 where the line was fitted by least squares.
        least: Fewest tokens of a training question.
        most: Most.
    """

    line: Line
    smear: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    least: NotNegative
    most: NotNegative

    def expected(self, space: Space, row: NDArray[np.float64]) -> float:
        """Expected generated tokens."""
        found = self.smear * math.exp(min(self.line.value(space, row), STEEPEST)) - 1
        return min(max(found, self.least), self.most)


class Arm(Frozen):
    """One way to answer.

    Attributes:
        label: The strategy with the parameters that differ from its defaults, and who plays it, for people.
        strategy: Name of the strategy.
        parameters: Its parameters, complete.
        role: Whose model plays the strategy's main part: the run's main model, or its small one.
        needs: Roles besides that need a model of their own: "small", "judge", "reward".
        right: The log-odds of a right answer.
        tokens: Generated tokens, all models together.
        cost: What a token of this arm counts, tokens of the main model counting 1.
        calls: Mean model calls.
        reward_calls: Mean passes of a reward model.
        share_right: Mean score in training.
        mean_tokens: Mean tokens there.
    """

    label: str
    strategy: str
    parameters: dict[str, JsonValue]
    role: PlayedBy = "main"
    needs: tuple[str, ...] = ()
    right: Line
    tokens: TokenModel
    cost: NotNegative = 1.0
    calls: NotNegative = 1.0
    reward_calls: NotNegative = 0.0
    share_right: Probability
    mean_tokens: NotNegative


@dataclass(frozen=True)
class Estimate:
    """What an arm is worth for one question.

    Attributes:
        arm: The arm.
        right: P(right).
        tokens: Expected generated tokens.
        worth: P(right) less the price of the tokens.
        shares: What each signal adds to the log-odds of the average question.
    """

    arm: Arm
    right: float
    tokens: float
    worth: float
    shares: dict[str, float]


def chance_of(log_odds: float) -> float:
    """The chance that has these log-odds, in [0, 1]."""
    return 1 / (1 + math.exp(min(-log_odds, STEEPEST)))


def estimate(arm: Arm, space: Space, row: NDArray[np.float64], price: float) -> Estimate:
    """What an arm is worth.

    Args:
        arm: The arm.
        space: What the row is of.
        row: The question's numbers.
        price: Of 1000 tokens, in chance of being right.
    """
    right = chance_of(arm.right.value(space, row))
    tokens = arm.tokens.expected(space, row)
    return Estimate(arm, right, tokens, right - price * arm.cost * tokens / 1000, arm.right.shares(space, row))


def ranked(arms: Sequence[Arm], space: Space, row: NDArray[np.float64], price: float) -> list[Estimate]:
    """All arms, the one worth most first; of equal ones that of fewer tokens, then that named first."""
    found = [estimate(arm, space, row, price) for arm in arms]
    return sorted(found, key=lambda one: (-one.worth, one.arm.cost * one.tokens))


def arm_label(strategy: str, parameters: dict[str, JsonValue], role: PlayedBy = "main") -> str:
    """A strategy with the parameters that differ from its defaults, and who plays it: `cot max_tokens=256, small`."""
    try:
        _, usual = create_strategy(strategy, {})
    except ReasonError:  # of a package that is gone, or one without defaults
        usual = {}
    words = [
        f"{name}={value}" for name, value in parameters.items() if usual and (name not in usual or usual[name] != value)
    ]
    said = " ".join([strategy, *words])
    return said if role == "main" else f"{said}, {role}"


AUTO_KIND: Final = "reason auto router"
AUTO_FORMAT: Final = 1
AUTO_MADE_BY: Final = "reason train auto-router RUN RUN… --out FILE makes one"


class TrainedOn(Frozen):
    """Where a trained router comes from.

    Attributes:
        models: Model string by role: "main" always, "small" and others where they were there.
        engines: Identity of each by role: weights, number format, engine and its version.
        runs: What the evaluation runs are called.
        datasets: Their datasets, each with its fingerprint.
        questions: Questions it was fitted on.
        seeds: Seeds that these were asked under.
        held_out: Share of all questions that were kept back, by a digest of their text.
        digests: Of each training question.
        version: Version of `reason`.
        made: The day it was made, in UTC.
    """

    models: dict[str, str]
    engines: dict[str, str]
    runs: tuple[str, ...]
    datasets: dict[str, str]
    questions: Annotated[int, Field(ge=1)]
    seeds: tuple[int, ...] = (0,)
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    digests: tuple[QuestionDigest, ...] = ()
    version: str = ""
    made: date

    @model_validator(mode="after")
    def _names_its_model(self) -> Self:
        if "main" not in self.models or "main" not in self.engines:
            raise ValueError("a router must name its main model and the model's identity")
        return self

    def knows(self, question_text: str) -> bool:
        """Whether the router was trained on this question: then its answer to it says nothing about others."""
        return question_digest(question_text) in self.digests

    def other_model(self, identities: Mapping[str, str], role: str = "main") -> str:
        """In what a model differs from the one of training, in words; empty if in nothing.

        Args:
            identities: Of the models that are there, by role.
            role: Which is looked at.
        """
        known = self.engines.get(role)
        if known is None or identities.get(role) == known:
            return ""
        return f"its {role} model is {known}, and this one is {identities.get(role, 'none')}"


class AutoRouterFile(FittedFile):
    """What `auto` chooses by.

    Attributes:
        kind: What the file is.
        format: Version of the file's form.
        name: The file's name without its ending; empty before it lies in one.
        price: What 1000 generated tokens are worth in chance of being right.
        space: The numbers that the arms' lines are over.
        arms: The arms.
        trained: Where it comes from.
    """

    kind: Literal["reason auto router"] = AUTO_KIND
    format: Literal[1] = AUTO_FORMAT
    name: str = ""
    price: Annotated[FiniteFloat, Field(ge=0)]
    space: Space
    arms: Annotated[tuple[Arm, ...], Field(min_length=2)]
    trained: TrainedOn

    @model_validator(mode="after")
    def _lines_are_over_the_space(self) -> Self:
        for arm in self.arms:
            if not arm.right.fits(self.space) or not arm.tokens.line.fits(self.space):
                raise ValueError(f"the lines of {arm.label} are over other signals than the file's")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({len(self.arms)} arms, {', '.join(self.trained.datasets)})".lstrip()


def save_router_file(file: FittedFile, path: Path) -> None:
    """Write a trained router as JSON, whole or not at all; its name is the file's.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_fitted_file(file, path)


def load_auto_router_file(path: Path) -> AutoRouterFile:
    """Read an auto-router file.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it is no such file, or one of another
            version or with impossible values; names the file.
    """
    return read_fitted_file(
        path, AutoRouterFile, kind=AUTO_KIND, format=AUTO_FORMAT, called="auto-router file", made_by=AUTO_MADE_BY
    )


QUESTION_KIND: Final = "reason question router"
QUESTION_FORMAT: Final = 1
QUESTION_MADE_BY: Final = "reason train question-router SMALL_RUN LARGE_RUN --out FILE makes one"


class Chain(Frozen):
    """How one of the two models answers.

    Attributes:
        strategy: Name of the strategy.
        parameters: Its parameters, complete.
        share_right: Mean score in training.
        mean_tokens: Mean generated tokens there.
    """

    strategy: str
    parameters: dict[str, JsonValue]
    share_right: Probability
    mean_tokens: Annotated[FiniteFloat, Field(ge=0)]


class QuestionRouterFile(FittedFile):
    """What `question-router` decides by.

    Attributes:
        kind: What the file is.
        format: Version of the file's form.
        name: The file's name without its ending; empty before it lies in one.
        small: How the small model answers.
        large: How the large model answers.
        space: The numbers that the line is over.
        needed: The log-odds that the large model is right and the small one is not.
        quantiles: The 0, 1/100, …, 1 quantiles of that chance over the training questions, each told by a line that was
            fitted without it (see `thresholds.quantiles_of`).
        rate: The share of the questions that was to go to the large model.
        threshold: The chance from which a question goes there at this rate.
        measured_rate: The share that this threshold really sends there; other than `rate` where many questions have the
            same chance.
        trained: Where it comes from; the small model's role there is "small", the large one's "main".
    """

    kind: Literal["reason question router"] = QUESTION_KIND
    format: Literal[1] = QUESTION_FORMAT
    name: str = ""
    small: Chain
    large: Chain
    space: Space
    needed: Line
    quantiles: Annotated[tuple[Probability, ...], Field(min_length=PARTS + 1, max_length=PARTS + 1)]
    rate: Probability
    threshold: Annotated[FiniteFloat, Field(ge=0)]
    measured_rate: Probability
    trained: TrainedOn

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if "small" not in self.trained.engines:
            raise ValueError("a question router must name the identities of both models")
        if not self.needed.fits(self.space):
            raise ValueError("the line is over other signals than the file's")
        if any(b < a for a, b in pairwise(self.quantiles)):
            raise ValueError("the quantiles must not fall")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.trained.datasets)})".lstrip()

    def threshold_for(self, rate: float) -> float:
        """The threshold at another rate (see `threshold_for_rate`)."""
        return threshold_for_rate(self.quantiles, rate)


def threshold_for_rate(quantiles: Sequence[float], rate: float) -> float:
    """The least chance that still goes to the large model at a rate: the (1 - rate) quantile, to a hundredth.

    Args:
        quantiles: The 0, 1/100, …, 1 quantiles of the chances.
        rate: The share wanted, in [0, 1]; at 0 the threshold is just above every chance seen.

    Raises:
        UserError: The rate is outside.
    """
    if not 0 <= rate <= 1:
        raise UserError(f"a rate of {rate:g} is no share of questions", hint="between 0 and 1")
    if rate == 0:
        return math.nextafter(quantiles[-1], math.inf)
    return quantiles[min(math.floor((1 - rate) * PARTS + 1e-9), PARTS - 1)]


def load_question_router_file(path: Path) -> QuestionRouterFile:
    """Read a question-router file.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it is no such file, or one of another
            version or with impossible values; names the file.
    """
    return read_fitted_file(
        path,
        QuestionRouterFile,
        kind=QUESTION_KIND,
        format=QUESTION_FORMAT,
        called="question-router file",
        made_by=QUESTION_MADE_BY,
    )


async def question_row(
    question: Question, models: Models, run: Run, file: AutoRouterFile | QuestionRouterFile, model: MeteredModel
) -> NDArray[np.float64]:
    """The numbers of a question in a router's space; what is not known counts as average, and that is told.

    The model is asked for its first token only if the budget holds another call behind it.

    Args:
        question: The question.
        models: Has the embedding model.
        run: Who pays.
        file: The router; it is told if the question is one of those that it was trained on.
        model: Whose first token is looked at.

    Raises:
        LimitExceeded: The budget is spent.
        BackendError: The model failed.
    """
    space = file.space
    if file.trained.knows(question.text):
        run.degrade("the router was trained on this very question: the answer shows nothing of others")
    looks = ENTROPY in space.names and run.ledger.left("calls") >= 2
    embedding = models.knowledge.embedding
    fits = space.axes and embedding is not None and embedding.identity == space.embedding_identity
    signals = await signals_of(question, run, model=model if looks else None, embedding=embedding if fits else None)
    for name in space.unknown(signals):
        what = f"the {name} of {space.embedding}" if name == "embedding" else f"the {name}"
        run.degrade(f"{what} could not be had for this question, and counts as average")
    return space.row(signals)
