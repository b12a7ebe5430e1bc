"""JSON files of fitted routers: the thresholds of `glimprouter`, the linear models of `auto`.

A run records the digest of the file that it started with, since a file may be replaced under its name.

Thresholds are kept as quantiles of the entropies, since entropies differ from model to model and another rate may be
requested. `auto` chooses among arms by

    worth of an arm = P(right | question) - price * expected tokens / 1000

P is a logistic function and the logarithm of the tokens a linear function of the question's features
(`features.FeatureSpace`), both fitted on evaluation runs. The price is the probability of being right that 1000
generated tokens are worth.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, which recommends to send 20 to 30 per cent of the steps to
the large model. Taking the threshold as a quantile of other problems' entropies is ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Protocol, Self, TypeVar

from pydantic import Field, FiniteFloat, JsonValue, model_validator

from ..core.errors import DataError, ReasonError, UserError
from ..core.files import FittedFile, QuestionDigest, question_digest, read_fitted_file, write_fitted_file
from ..core.messages import Effort, Frozen
from ..core.run import Run
from ..core.settings import default_store
from ..core.types import Probability, Question
from ..reasoning.knowledge import knowledge_of
from ..reasoning.strategy import Models, create_strategy
from ..serving.entropy import EntropyKind
from ..serving.metered.model import MeteredModel
from .features import ENTROPY, FeatureSpace, LinearModel, QuestionFeatures, extract_features

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PlayedBy = Literal["main", "small"]
NonNegative = Annotated[FiniteFloat, Field(ge=0)]

PARTS: Final = 100
"""Files have the 0, 1/100, …, 1 quantiles."""

MAX_EXPONENT: Final = 700.0
"""e^700 is still a finite number."""

# -- files of a run


class HasDigest(Protocol):
    """The content of a file."""

    @property
    def digest(self) -> str:
        """Hash of the content."""


FileT = TypeVar("FileT", bound=HasDigest)


def with_digest(parameters: Any, load: Callable[[Path], FileT]) -> Any:
    """Parameters with the digest of the file in `router`, as `router_digest`.

    Raises:
        UserError: `router_digest` is that of another file.
    """
    if not isinstance(parameters, Mapping) or not isinstance(parameters.get("router"), str) or not parameters["router"]:
        return parameters
    try:
        file = file_of_digest(parameters["router"], str(parameters.get("router_digest") or ""), load)
    except DataError:
        return parameters  # raised when the file is needed
    return {**parameters, "router_digest": file.digest}


def file_of_digest(name: str, digest: str, load: Callable[[Path], FileT], label: str = "router file") -> FileT:
    """The content of a file.

    Args:
        digest: The expected digest; empty accepts any content.
        label: What the file is called in messages.

    Raises:
        DataError: It cannot be read.
        UserError: Its content has another digest.
    """
    file = load(Path(name).expanduser())
    if digest not in ("", file.digest):
        raise UserError(
            f"the {label} {name} has changed since the run started", hint="restore the file, or start another run"
        )
    return file


class TrainedOn(Frozen):
    """Provenance of a trained router.

    Attributes:
        models: Model string by role: "main", and "small" and others where there were any.
        engines: Identity of each by role: weights, number format, engine and its version.
        runs: Names of the evaluation runs.
        datasets: Their datasets, each with its fingerprint.
        questions: Number of questions.
        seeds: Seeds of the runs.
        held_out: Share of all questions that was held out, by a digest of their text.
        digests: Digest of each training question.
        version: Version of `reason`.
        made: Date, in UTC.
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
    def _check(self) -> Self:
        if "main" not in self.models or "main" not in self.engines:
            raise ValueError("a router must name its main model and the model's identity")
        return self

    def contains(self, question_text: str) -> bool:
        """Whether the router was trained on this question; its answer then has no value as a test."""
        return question_digest(question_text) in self.digests

    def difference(self, identities: Mapping[str, str], role: str = "main") -> str:
        """How the model in a role differs from the one of training, as text; empty if it does not.

        Args:
            identities: Identity of each model by role.
        """
        known = self.engines.get(role)
        if known is None or identities.get(role) == known:
            return ""
        return f"its {role} model is {known}, and this one is {identities.get(role, 'none')}"


def save_router_file(file: FittedFile, path: Path) -> None:
    """Write a router file as JSON, atomically; its name is that of the path.

    Raises:
        StoreError: It cannot be written; the previous content remains.
    """
    write_fitted_file(file, path)


def quantiles_of(values: Sequence[float]) -> tuple[float, ...]:
    """The 0, 1/100, …, 1 quantiles of at least one value.

    The q quantile of n values is the (floor(n q) + 1)-th smallest, and the largest for q = 1. It is one of the values,
    and n (1 - q) of n distinct ones, rounded up, are at or above it.
    """
    ordered = sorted(values)
    n = len(ordered)
    return tuple(ordered[min(i * n // PARTS, n - 1)] for i in range(PARTS + 1))


# -- glimprouter

GLIMPROUTER_KIND: Final = "reason glimprouter thresholds"
GLIMPROUTER_FORMAT: Final = 1
GLIMPROUTER_MADE_BY: Final = "training/routers/train_router.py glimprouter RUN --out FILE makes one"
STEP_PARAMETERS: Final = ("max_step_tokens", "steps", "temperature")
"""Parameters of the step loop that change what a step is, and so the entropy of its first token."""


class GlimpRouterFile(FittedFile):
    """Entropies of the first tokens of steps, as quantiles, with their provenance. Made by `training/routers`.

    Attributes:
        kind: Kind of the file.
        format: Version of the format.
        name: Name of the file without its extension; empty before it is saved.
        small: Model string of the small model, whose entropies these are.
        large: Model string of the large model.
        engines: Identity of each by role, "small" and "main": weights, number format, engine and its version.
        entropy: What the entropies are computed from. Another kind is another scale: no threshold carries over.
        k: Tokens of "top_k", samples of "sampled"; 0 of "full".
        in_thought: Whether the steps are those of thoughts, whose entropies are of other texts.
        quantiles: Quantiles of the entropy of a step's first token, in nats, over all steps (see `quantiles_of`).
        steps: Number of steps.
        questions: Number of their questions.
        rate: Requested share of steps for the large model.
        threshold: Entropy in nats from which the large model writes a step at this rate.
        measured_rate: Share of these steps that the threshold sends to the large model; differs from `rate` where many
            steps have the same entropy.
        dataset: Name of the dataset with its variant.
        fingerprint: Fingerprint of the dataset.
        parameters: Complete parameters of the step loop.
        version: Version of `reason`.
        made: Date, in UTC.
    """

    kind: Literal["reason glimprouter thresholds"] = GLIMPROUTER_KIND
    format: Literal[1] = GLIMPROUTER_FORMAT
    name: str = ""
    small: str
    large: str
    engines: dict[str, str]
    entropy: EntropyKind
    k: Annotated[int, Field(ge=0)]
    in_thought: bool = False
    quantiles: Annotated[tuple[NonNegative, ...], Field(min_length=PARTS + 1, max_length=PARTS + 1)]
    steps: Annotated[int, Field(ge=1)]
    questions: Annotated[int, Field(ge=1)]
    rate: Probability
    threshold: NonNegative
    measured_rate: Probability
    dataset: str
    fingerprint: str
    parameters: dict[str, JsonValue]
    version: str
    made: date

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not {"small", "main"} <= set(self.engines):
            raise ValueError("a router file must name the identities of both models")
        if any(b < a for a, b in pairwise(self.quantiles)):
            raise ValueError("the quantiles must not fall")
        if (self.k == 0) != (self.entropy == "full"):
            raise ValueError("k is 0 for entropies over the complete vocabulary, and above 0 for all others")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({scale(self.entropy, self.k)}, {self.dataset})".lstrip()

    def threshold_for(self, rate: float) -> float:
        """The threshold that sends this share of the steps to the large model, in nats: the (1 - rate) quantile.

        Interpolated linearly between two quantiles of the file. At a rate of 0 it is just above the largest entropy.

        Raises:
            UserError: The rate is outside [0, 1].
        """
        if not 0 <= rate <= 1:
            raise UserError(f"rate must be in [0, 1], got {rate:g}", hint="it is a share of the steps")
        if rate == 0:
            return math.nextafter(self.quantiles[-1], math.inf)
        position = round((1 - rate) * PARTS, 9)
        below = int(position)
        if below == position:
            return self.quantiles[below]
        low, high = self.quantiles[below], self.quantiles[below + 1]
        return min(low + (high - low) * (position - below), high)

    def check_models(self, *, small: str, large: str, entropy: EntropyKind, k: int, in_thought: bool = False) -> None:
        """Refuse models or entropies that the file was not made for, before anything is spent.

        Args:
            small: Identity of the small model.
            large: Identity of the large model.
            entropy: Kind of the entropies that are compared with the threshold.
            k: Their tokens or samples; 0 for the complete vocabulary.
            in_thought: Whether the steps are those of thoughts.

        Raises:
            UserError: Another pair of models, another kind of entropy, or other steps; names both.
        """
        for role, own, other in (("small", self.engines["small"], small), ("large", self.engines["main"], large)):
            if own != other:
                raise UserError(
                    f"the router file {self} was made with the {role} model {own}, not with {other}",
                    hint=f"{GLIMPROUTER_MADE_BY} for these two",
                )
        if (self.entropy, self.k) != (entropy, k):
            raise UserError(
                f"the thresholds of the router file {self} are of {scale(self.entropy, self.k)} entropies, and those "
                f"compared with them would be of {scale(entropy, k)} ones: another scale",
                hint=f"set entropy={self.entropy}, or calibrate again",
            )
        if self.in_thought != in_thought:
            steps = {True: "steps of thoughts", False: "steps of answers without a thought"}
            raise UserError(
                f"the thresholds of the router file {self} are of {steps[self.in_thought]}, and these are of "
                f"{steps[in_thought]}",
                hint="leave --effort unset, or calibrate again"
                if self.in_thought
                else "set --effort none, or calibrate again",
            )

    def differences(self, parameters: Mapping[str, JsonValue]) -> str:
        """How a step loop's parameters differ from those that the file was made with, as text; empty if they do not."""
        differing = [
            f"{name} was {self.parameters[name]} and is {parameters[name]}"
            for name in STEP_PARAMETERS
            if name in self.parameters and name in parameters and self.parameters[name] != parameters[name]
        ]
        return f"the router file {self} was made with other parameters: {'; '.join(differing)}" if differing else ""


def scale(entropy: EntropyKind, k: int) -> str:
    """A kind of entropy in a few words."""
    return {"full": "full-vocabulary", "top_k": f"top-{k}", "sampled": f"{k}-sample"}[entropy]


def load_glimprouter_file(path: Path) -> GlimpRouterFile:
    """Read a file of entropy thresholds.

    Raises:
        DataError: There is no such file, it is damaged, of another kind or version, or its values are impossible.
    """
    return read_fitted_file(
        path,
        GlimpRouterFile,
        kind=GLIMPROUTER_KIND,
        format=GLIMPROUTER_FORMAT,
        label="router file",
        hint=GLIMPROUTER_MADE_BY,
    )


# -- auto

AUTO_KIND: Final = "reason auto router"
AUTO_FORMAT: Final = 1
AUTO_MADE_BY: Final = "training/routers/train_router.py auto RUN RUN… makes one"


class TokenModel(Frozen):
    """Expected generated tokens of an arm: smear * e^line - 1, within the range of training.

    The line is over ln(1 + tokens). Its exponential alone underestimates the mean; `smear`, the mean of the exponential
    of the residuals, corrects it without assuming a distribution.

    Source: Duan 1983, "Smearing Estimate: A Nonparametric Retransformation Method".

    Attributes:
        line: Over ln(1 + tokens).
        smear: At least 1 where the line was fitted by least squares.
        min_tokens: Minimum over the training questions.
        max_tokens: Maximum over the training questions.
    """

    line: LinearModel
    smear: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    min_tokens: NonNegative
    max_tokens: NonNegative

    def expected(self, space: FeatureSpace, row: NDArray[np.float64]) -> float:
        """Expected generated tokens."""
        tokens = self.smear * math.exp(min(self.line.value(space, row), MAX_EXPONENT)) - 1
        return min(max(tokens, self.min_tokens), self.max_tokens)


class Arm(Frozen):
    """One way to answer: a model, how much it thinks, a strategy and its parameters, the samples among them.

    Attributes:
        label: The strategy with its parameters that are not defaults, its effort, and the model that plays it.
        strategy: Name of the strategy.
        parameters: Its complete parameters.
        role: The model that plays the strategy's main role: the run's main model, or its small one.
        needs: Roles that need a model of their own: "small", "judge", "reward".
        effort: How much the models think; None is their default.
        right: Log-odds of a right answer.
        tokens: Generated tokens of all models.
        cost: Weight of a token of this arm; a token of the main model has 1.
        calls: Mean model calls.
        reward_calls: Mean passes of a reward model.
        share_right: Mean score in training.
        mean_tokens: Mean tokens in training.
    """

    label: str
    strategy: str
    parameters: dict[str, JsonValue]
    role: PlayedBy = "main"
    needs: tuple[str, ...] = ()
    effort: Effort | None = Field(default=None, exclude_if=lambda value: value is None)
    right: LinearModel
    tokens: TokenModel
    cost: NonNegative = 1.0
    calls: NonNegative = 1.0
    reward_calls: NonNegative = 0.0
    share_right: Probability
    mean_tokens: NonNegative


class AutoRouterFile(FittedFile):
    """The arms of `auto`.

    Attributes:
        kind: Kind of the file.
        format: Version of the format.
        name: Name of the file without its extension; empty before it is saved.
        price: Probability of being right that 1000 generated tokens are worth.
        space: The features that the arms' lines are over.
        arms: The arms.
        trained: Provenance.
    """

    kind: Literal["reason auto router"] = AUTO_KIND
    format: Literal[1] = AUTO_FORMAT
    name: str = ""
    price: NonNegative
    space: FeatureSpace
    arms: Annotated[tuple[Arm, ...], Field(min_length=2)]
    trained: TrainedOn

    @model_validator(mode="after")
    def _check(self) -> Self:
        for arm in self.arms:
            if not arm.right.fits(self.space) or not arm.tokens.line.fits(self.space):
                raise ValueError(f"the lines of {arm.label} are over other features than the file's")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({len(self.arms)} arms, {', '.join(self.trained.datasets)})".lstrip()


def load_auto_router_file(path: Path) -> AutoRouterFile:
    """Read an auto-router file.

    Raises:
        DataError: There is no such file, it is damaged, of another kind or version, or its values are impossible.
    """
    return read_fitted_file(
        path, AutoRouterFile, kind=AUTO_KIND, format=AUTO_FORMAT, label="auto-router file", hint=AUTO_MADE_BY
    )


def arm_label(
    strategy: str, parameters: dict[str, JsonValue], role: PlayedBy = "main", effort: Effort | None = None
) -> str:
    """A strategy with its parameters that are not defaults, its effort, and its model: `cot max_tokens=256, small`."""
    try:
        _, defaults = create_strategy(strategy, {})
    except ReasonError:  # of a package that is not installed, or one without defaults
        defaults = {}
    changed = [
        f"{name}={value}"
        for name, value in parameters.items()
        if defaults and (name not in defaults or defaults[name] != value)
    ]
    label = " ".join([strategy, *changed, *([] if effort is None else [f"effort={effort}"])])
    return label if role == "main" else f"{label}, {role}"


def probability_of(log_odds: float) -> float:
    """The probability with these log-odds, in [0, 1]."""
    return 1 / (1 + math.exp(min(-log_odds, MAX_EXPONENT)))


async def question_signals(
    question: Question, models: Models, run: Run, file: AutoRouterFile, model: MeteredModel
) -> tuple[QuestionFeatures, tuple[str, ...]]:
    """A question's features as far as a router uses them, and what a reader of its choice should know of them.

    The model's first token is requested only if the budget has another call after it. Unknown features count as
    average.

    Args:
        models: Has the embedding model.
        model: The model whose first token is requested.

    Raises:
        BudgetExceeded: The budget is spent.
        BackendError: The model failed.
    """
    space = file.space
    reports = []
    if file.trained.contains(question.text):
        reports.append("the router was trained on this question: its answer shows nothing about others")
    has_call = ENTROPY in space.names and run.ledger.remaining("calls") >= 2
    embedding = knowledge_of(models).embedding
    is_same = space.axes and embedding is not None and embedding.identity == space.embedding_identity
    signals = await extract_features(
        question, run, model=model if has_call else None, embedding=embedding if is_same else None
    )
    for name in space.unknown(signals):
        feature = f"the {name} of {space.embedding}" if name == "embedding" else f"the {name}"
        reports.append(f"{feature} is not available for this question, and counts as average")
    return signals, tuple(reports)


def router_path(model: str) -> Path:
    """Where the router of a model is by default, in the directory of the default run store.

    Args:
        model: Model string of the main model.
    """
    name = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")
    return default_store().parent / "routers" / f"{name}.json"
