"""The signals of many questions, each looked at once: what was computed is in the run store, and found there again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from ...core.errors import BackendUnavailable, UnknownName, UserError
from ...core.open_store import open_store
from ...core.question import Question
from ...core.run import Run, RunConfig
from ...core.settings import Settings
from ...core.store import RunStatus, RunStore
from ...core.together import together
from ...core.unbroken import to_its_end
from ...routers.question_features import Signals, signals_of
from ...serving.embeddings import EmbeddingModel, open_embedding
from ...serving.litellm.limiter import Limiters
from ...serving.metered import MeteredModel
from ...serving.metered_embeddings import MeteredEmbedding
from ...serving.model import LanguageModel
from ...serving.open import open_model
from ...serving.pulling import Progress

CONCURRENCY: Final = 16
SEED: Final = 0
"""No signal is drawn."""

Watch = Callable[[int, int], None]
"""Hears how many questions of how many are done."""


@dataclass(frozen=True)
class Gathered:
    """What was found.

    Attributes:
        signals: Of each question, in order.
        embedding: The embedding model by its string; empty if there was none.
        embedding_identity: Its identity.
        missing: Why there is no embedding; empty if there is.
    """

    signals: tuple[Signals, ...]
    embedding: str = ""
    embedding_identity: str = ""
    missing: str = ""


async def gather_signals(
    questions: Sequence[Question],
    settings: Settings,
    *,
    model: str | None,
    identity: str = "",
    watch: Watch | None = None,
    progress: Progress | None = None,
) -> Gathered:
    """Look at questions.

    Cancelling keeps what there is: it is found in the run store the next time.

    Args:
        questions: The questions.
        settings: The run store, the embedding model, and how backends are set up.
        model: Model string of whose first-token entropy is wanted; None opens no model.
        identity: What its identity must be; empty takes any.
        watch: Hears how it goes on.
        progress: Told how far a model's files are; called from another thread.

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
            opened = await open_model(model, settings, progress, Limiters())
            stack.push_async_callback(opened.aclose)
            if identity not in ("", opened.identity):
                raise UserError(
                    f"the runs were made with {identity}, and {model} is {opened.identity} here",
                    hint="open it as it was (--weight-format), or leave its entropy away: --no-entropy",
                )
        embedding, missing = await _embedding(settings, progress)
        if embedding is not None:
            stack.push_async_callback(embedding.aclose)
        done = 0

        async def work(waiting: Iterator[tuple[int, Question]]) -> list[tuple[int, Signals]]:
            nonlocal done
            found = []
            for at, question in waiting:
                found.append((at, await _look(question, store, opened, model or settings.model, embedding)))
                done += 1
                if watch is not None:
                    watch(done, len(questions))
            return found

        waiting = iter(list(enumerate(questions)))
        parts = await together([work(waiting) for _ in range(min(CONCURRENCY, len(questions)))])
        ordered = sorted((pair for part in parts for pair in part), key=lambda pair: pair[0])
    return Gathered(
        signals=tuple(signals for _, signals in ordered),
        embedding="" if embedding is None else embedding.name,
        embedding_identity="" if embedding is None else embedding.identity,
        missing=missing,
    )


async def _embedding(settings: Settings, progress: Progress | None) -> tuple[EmbeddingModel | None, str]:
    try:
        return await open_embedding(None, settings, progress), ""
    except (UserError, BackendUnavailable) as e:
        return None, str(e)


async def _look(
    question: Question, store: RunStore, model: LanguageModel | None, name: str, embedding: EmbeddingModel | None
) -> Signals:
    """The signals of a question, in a run of their own whose name follows from what is looked at."""
    config = RunConfig(
        question=question, strategy="auto", parameters={}, models={"main": name}, seed=SEED, reuse="store"
    )
    what = [None if model is None else model.identity, None if embedding is None else embedding.identity]
    text = json.dumps([what, question.model_dump(mode="json", exclude={"metadata"})], sort_keys=True)
    run = Run(f"signals-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}", config, store)
    try:
        await to_its_end(_begin(run, config, store))
    except asyncio.CancelledError:  # it has begun: of a run that could not begin, that is told instead
        await to_its_end(store.end_run(run.id, "interrupted"))
        raise
    try:
        found = await signals_of(
            question,
            run,
            model=None if model is None else MeteredModel(model, "main", run),
            embedding=None if embedding is None else MeteredEmbedding(embedding, "embedding", run),
        )
    except BaseException as e:  # whatever it is and wherever it strikes, the store must not say that the run goes on
        status: RunStatus = "interrupted" if isinstance(e, asyncio.CancelledError) else "failed"
        await to_its_end(store.end_run(run.id, status))
        raise
    await to_its_end(store.end_run(run.id, "finished"))  # cancelled so late, it has ended all the same
    return found


async def _begin(run: Run, config: RunConfig, store: RunStore) -> None:
    try:
        await store.get_run(run.id)
    except UnknownName:
        await store.create_run(run.id, config.model_dump(mode="json"))
    else:
        await store.take_run(run.id)
