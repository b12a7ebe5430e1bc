"""The signals of questions, and lines over them, each as complex as the evaluation runs justify.

Candidates are a constant and, over the named signals with 0, 4, 8 or 16 components of the embedding, a regression under
several penalties. Grouped cross-validation gives each a loss. The simplest features are chosen whose loss is within one
standard error of the minimum, by the error of the paired difference: signals without information give the constant. The
penalty is the one with the lowest loss over these features.

Source: Breiman, Friedman, Olshen, Stone 1984, "Classification and Regression Trees", section 3.4.3 (the rule of one
standard error); here the error is of paired differences, which is smaller than that of a loss by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np
from reason.core.concurrency import gather, shielded
from reason.core.errors import BackendUnavailable, UnknownName, UserError
from reason.core.extras import missing_package
from reason.core.files import Progress
from reason.core.run import Run, RunConfig
from reason.core.settings import Settings
from reason.core.store import open_store
from reason.core.store.records import RunStatus
from reason.core.store.sql import RunStore
from reason.core.types import Question
from reason.evals.calibration import assign_folds
from reason.evals.statistics.intervals import standard_error
from reason.evals.statistics.outcomes import Array, number_groups
from reason.routers.features import ENTROPY, FeatureSpace, LinearModel, QuestionFeatures, extract_features
from reason.routers.router_files import TokenModel
from reason.serving.encoders.embeddings import load_embedding_model
from reason.serving.encoders.protocols import EmbeddingModel
from reason.serving.factory import load_model
from reason.serving.litellm.limiter import LimiterRegistry
from reason.serving.metered.model import MeteredModel
from reason.serving.metered.scorers import MeteredEmbedding
from reason.serving.model import LanguageModel

try:
    from sklearn.linear_model import LogisticRegression, Ridge
except ModuleNotFoundError as e:
    raise missing_package("training a router", "scikit-learn", "train") from e

FOLDS: Final = 5
COMPONENTS: Final = (0, 4, 8, 16)
PENALTIES: Final = (1000.0, 100.0, 10.0, 1.0)

Fit = Callable[[Array, Array, float], tuple[float, Array]]
"""Fits rows to targets under a penalty."""
Loss = Callable[[Array, Array], Array]
"""The loss of each row, of a line's values and targets."""


@dataclass(frozen=True)
class LineComplexity:
    """How complex a line is.

    Attributes:
        penalty: The penalty; None is a constant.
        components: Components of the embedding.
    """

    penalty: float | None = None
    components: int = 0


def fit_logistic(x: Array, y: Array, penalty: float) -> tuple[float, Array]:
    """Logistic regression: intercept and weights of the least log-loss with `penalty / 2 |w|^2`.

    Targets may be shares, as the mean over seeds is: a row then counts as right and as wrong, by its share.

    Args:
        x: `[rows, columns]`, standardised.
        y: `[rows]`, in [0, 1].
    """
    if not x.shape[1] or y.min() == y.max():
        return base_log_odds(y), np.zeros(x.shape[1])
    model = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-10, max_iter=200)
    labels = np.repeat([1, 0], len(y))
    model.fit(np.vstack([x, x]), labels, sample_weight=np.concatenate([y, 1 - y]))
    return float(model.intercept_[0]), model.coef_[0]


def fit_linear(x: Array, y: Array, penalty: float) -> tuple[float, Array]:
    """Ridge regression: intercept and weights.

    Args:
        x: `[rows, columns]`.
        y: `[rows]`.
    """
    if not x.shape[1]:
        return float(y.mean()), np.zeros(0)
    model = Ridge(alpha=penalty).fit(x, y)
    return float(model.intercept_), model.coef_


def base_log_odds(y: Array) -> float:
    """The log-odds of the mean target; of targets of one kind, by Jeffreys' estimate (k + 1/2) / (n + 1)."""
    k, n = float(y.sum()), len(y)
    if not 0 < k < n:
        k, n = k + 0.5, n + 1
    return float(np.log(k) - np.log(n - k))


def log_losses(eta: Array, y: Array) -> Array:
    """The log-loss of each row in nats, `[rows]`, of log-odds."""
    losses: Array = np.logaddexp(0, eta) - y * eta
    return losses


def make_space(
    signals: Sequence[QuestionFeatures],
    *,
    embedding: str = "",
    embedding_identity: str = "",
    components: int = max(COMPONENTS),
) -> FeatureSpace:
    """The feature space of questions: means and deviations of varying features, and components of the embedding.

    The mean of a signal is over the questions that have it.

    Args:
        embedding_identity: Its identity; empty leaves out the vectors.
    """
    supports = {s.support for s in signals if s.support is not None}
    # two scales of one name cannot be averaged: then there is no entropy
    support = supports.pop() if len(supports) == 1 else None
    every = dict.fromkeys(name for s in signals for name in s.named if name != ENTROPY or support is not None)
    names, means, scales = varying(
        {name: np.array([s.named[name] for s in signals if name in s.named]) for name in every}
    )
    centre, axes, spreads = _components([s.vector for s in signals if s.vector], components)
    with_axes = bool(axes) and bool(embedding_identity)
    return FeatureSpace(
        names=names,
        means=means,
        scales=scales,
        support=support if support is not None and ENTROPY in names else "none",
        embedding=embedding if with_axes else "",
        embedding_identity=embedding_identity if with_axes else "",
        centre=centre if with_axes else (),
        axes=axes if with_axes else (),
        spreads=spreads if with_axes else (),
    )


def varying(values: Mapping[str, Array]) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """Names, means and deviations of the features that vary.

    Args:
        values: The known values of each feature.
    """
    kept = [name for name, known in values.items() if len(known) > 1 and known.std() > 1e-9]
    means, scales = ([float(of(values[name])) for name in kept] for of in (np.mean, np.std))
    return tuple(kept), tuple(means), tuple(scales)


def feature_matrix(space: FeatureSpace, signals: Sequence[QuestionFeatures]) -> Array:
    """The questions' features, `[questions, size]`."""
    return np.array([space.row(s) for s in signals]).reshape(len(signals), space.size)


def fit_right(space: FeatureSpace, x: Array, y: Array, groups: Sequence[str]) -> LinearModel:
    """The log-odds of being right.

    Args:
        x: `[questions, size]`.
        y: Scores in [0, 1], `[questions]`.
    """
    choice = choose_complexity(space, x, y, groups, fit_logistic, base_log_odds, log_losses)
    return _line(space, x, y, choice, fit_logistic, base_log_odds)


def fit_tokens(space: FeatureSpace, x: Array, tokens: Array, groups: Sequence[str]) -> TokenModel:
    """The expected tokens; a constant is their mean.

    Args:
        x: `[questions, size]`.
        tokens: `[questions]`, at least 0.
    """
    logs = np.log1p(tokens)
    line = fit_least_squares(space, x, logs, groups)
    values = np.array([line.value(space, row) for row in x])
    return TokenModel(
        line=line,
        smear=float(np.exp(logs - values).mean()),
        min_tokens=float(tokens.min()),
        max_tokens=float(tokens.max()),
    )


def fit_least_squares(space: FeatureSpace, x: Array, y: Array, groups: Sequence[str]) -> LinearModel:
    """The expected value.

    Args:
        x: `[rows, size]`.
        y: `[rows]`.
    """
    choice = choose_complexity(space, x, y, groups, fit_linear, _mean, _squares)
    return _line(space, x, y, choice, fit_linear, _mean)


def choose_complexity(
    space: FeatureSpace,
    x: Array,
    y: Array,
    groups: Sequence[str],
    fit: Fit,
    constant: Callable[[Array], float],
    loss: Loss,
    folds: int = FOLDS,
) -> LineComplexity:
    """How complex a line may be.

    Args:
        x: `[questions, size]`.
        y: Targets, `[questions]`.
        groups: Group of each question; none is cut.
    """
    candidates = candidates_of(space)
    folds = min(folds, len(set(groups)))
    if folds < 2 or len(candidates) == 1:
        return LineComplexity()
    fold = assign_folds(groups, folds)
    losses = np.empty((len(candidates), len(y)))
    for i in range(folds):
        held = fold == i
        for c, choice in enumerate(candidates):
            columns = _columns(space, choice)
            if choice.penalty is None:
                value: Array = np.full(int(held.sum()), constant(y[~held]))
            else:
                b, w = fit(x[~held][:, columns], y[~held], choice.penalty)
                value = b + x[held][:, columns] @ w
            losses[c, held] = loss(value, y[held])
    clusters, means = number_groups(groups), losses.mean(axis=1)
    least = int(means.argmin())
    for over in dict.fromkeys(_over(candidate) for candidate in candidates):
        best = min((c for c, candidate in enumerate(candidates) if _over(candidate) == over), key=lambda c: means[c])
        worse = losses[best] - losses[least]
        error = standard_error(worse, clusters)
        if best == least or error is None or worse.mean() <= error:
            return candidates[best]
    return candidates[least]


def candidates_of(space: FeatureSpace) -> list[LineComplexity]:
    """Candidate lines, the simplest first: a constant, then by components, each by falling penalty."""
    counts = sorted({min(count, len(space.axes)) for count in COMPONENTS})
    results = [LineComplexity()]
    results += [LineComplexity(p, k) for k in counts for p in PENALTIES if space.names or k]
    return results


def _line(
    space: FeatureSpace, x: Array, y: Array, choice: LineComplexity, fit: Fit, constant: Callable[[Array], float]
) -> LinearModel:
    if choice.penalty is None:
        return LinearModel(intercept=constant(y))
    b, w = fit(x[:, _columns(space, choice)], y, choice.penalty)
    named = len(space.names)
    return LinearModel(intercept=b, named=tuple(map(float, w[:named])), components=tuple(map(float, w[named:])))


def _over(choice: LineComplexity) -> int:
    """Size of a line's features: none, the named signals, and components."""
    return -1 if choice.penalty is None else choice.components


def _columns(space: FeatureSpace, choice: LineComplexity) -> slice:
    return slice(0, len(space.names) + choice.components)


def _mean(y: Array) -> float:
    return float(y.mean())


def _squares(value: Array, y: Array) -> Array:
    result: Array = (y - value) ** 2
    return result


def _components(
    vectors: Sequence[tuple[float, ...]], max_components: int
) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """Mean, principal axes and deviations along them; an axis points to where its largest entry is positive."""
    if len(vectors) < 3:
        return (), (), ()
    table = np.array(vectors)
    centre = table.mean(axis=0)
    _, singular, rows = np.linalg.svd(table - centre, full_matrices=False)
    spreads = singular / np.sqrt(len(vectors))
    count = min(max_components, int((spreads > 1e-6).sum()))
    axes = rows[:count] * np.sign(rows[np.arange(count), np.abs(rows[:count]).argmax(axis=1)])[:, None]
    return (
        tuple(round(float(n), 8) for n in centre),
        tuple(tuple(round(float(n), 8) for n in axis) for axis in axes),
        tuple(float(s) for s in spreads[:count]),
    )


CONCURRENCY: Final = 16
SEED: Final = 0
"""No signal is sampled."""

Watch = Callable[[int, int], None]
"""Receives many questions of how many are done."""


@dataclass(frozen=True)
class QuestionSignals:
    """The signals of questions.

    Attributes:
        signals: Of each question, in order.
        embedding: The embedding model by its string; empty if there was none.
        embedding_identity: Its identity.
        missing: Why there is no embedding; empty if there is.
    """

    signals: tuple[QuestionFeatures, ...]
    embedding: str = ""
    embedding_identity: str = ""
    missing: str = ""


async def compute_signals(
    questions: Sequence[Question],
    settings: Settings,
    *,
    model: str | None,
    identity: str = "",
    watch: Watch | None = None,
    progress: Progress | None = None,
) -> QuestionSignals:
    """Compute the signals of questions.

    After a cancellation the next call reuses what is in the run store.

    Args:
        model: Model whose first-token entropy is computed; None opens no model.
        identity: Its required identity; empty accepts any.
        progress: Reports the download of model files; called from another thread.

    Raises:
        UserError: The model is another one than the runs were made with.
        StoreError: The store cannot be used.
        BackendError: The model failed.
    """
    async with AsyncExitStack() as stack:
        store = await open_store(settings.store)
        stack.push_async_callback(store.aclose)
        opened: LanguageModel | None = None
        if model is not None:
            opened = await load_model(model, settings, progress, LimiterRegistry())
            stack.push_async_callback(opened.aclose)
            if identity not in ("", opened.identity):
                raise UserError(
                    f"the runs were made with {identity}, and {model} is {opened.identity} here",
                    hint="leave its entropy out: --no-entropy",
                )
        embedding, missing = await _embedding(settings, progress)
        if embedding is not None:
            stack.push_async_callback(embedding.aclose)
        done = 0

        async def work(waiting: Iterator[tuple[int, Question]]) -> list[tuple[int, QuestionFeatures]]:
            nonlocal done
            results = []
            for at, question in waiting:
                results.append((at, await _look(question, store, opened, model or settings.model, embedding)))
                done += 1
                if watch is not None:
                    watch(done, len(questions))
            return results

        waiting = iter(list(enumerate(questions)))
        parts = await gather([work(waiting) for _ in range(min(CONCURRENCY, len(questions)))])
        ordered = sorted((pair for part in parts for pair in part), key=lambda pair: pair[0])
    return QuestionSignals(
        signals=tuple(signals for _, signals in ordered),
        embedding="" if embedding is None else embedding.name,
        embedding_identity="" if embedding is None else embedding.identity,
        missing=missing,
    )


async def _embedding(settings: Settings, progress: Progress | None) -> tuple[EmbeddingModel | None, str]:
    try:
        return await load_embedding_model(None, settings, progress), ""
    except (UserError, BackendUnavailable) as e:
        return None, str(e)


async def _look(
    question: Question, store: RunStore, model: LanguageModel | None, name: str, embedding: EmbeddingModel | None
) -> QuestionFeatures:
    """The signals of a question, in a run of their own."""
    config = RunConfig(
        question=question, strategy="auto", parameters={}, models={"main": name}, seed=SEED, reuse="store"
    )
    what = [None if model is None else model.identity, None if embedding is None else embedding.identity]
    text = json.dumps([what, question.model_dump(mode="json", exclude={"metadata"})], sort_keys=True)
    run = Run(f"signals-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}", config, store)
    try:
        await shielded(_begin(run, config, store))
    except asyncio.CancelledError:  # it has begun; an error at the beginning is raised instead
        await shielded(store.end_run(run.id, "interrupted"))
        raise
    try:
        result = await extract_features(
            question,
            run,
            model=None if model is None else MeteredModel(model, "main", run),
            embedding=None if embedding is None else MeteredEmbedding(embedding, "embedding", run),
        )
    except BaseException as e:  # whatever it is and wherever it strikes, the store must not say that the run continues
        status: RunStatus = "interrupted" if isinstance(e, asyncio.CancelledError) else "failed"
        await shielded(store.end_run(run.id, status))
        raise
    await shielded(store.end_run(run.id, "finished"))  # cancelled so late, it has ended all the same
    return result


async def _begin(run: Run, config: RunConfig, store: RunStore) -> None:
    try:
        await store.get_run(run.id)
    except UnknownName:
        await store.create_run(run.id, config.model_dump(mode="json"))
    else:
        await store.claim_run(run.id)
