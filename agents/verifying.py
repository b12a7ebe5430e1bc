"""What verifies a run's answers: opened from what its configuration names, noted in the store, recorded for replays."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ..core.answer import Answer
from ..core.errors import BackendUnavailable, DataError, UserError
from ..core.question import Question
from ..core.run import Run, RunConfig
from ..core.settings import Settings
from ..core.store import RunRecord
from ..reasoning.brains.folder_files import Note
from ..reasoning.strategy import STRATEGIES, Models, make_strategy
from ..serving.embeddings import EmbeddingModel, open_embedding
from ..serving.pulling import Progress
from ..verify.entailment.judge import JudgeEntailment
from ..verify.entailment.lexical import LexicalEntailment
from ..verify.entailment.metered import MeteredEntailment
from ..verify.entailment.opening import open_entailment
from ..verify.entailment.protocol import Entailment
from ..verify.entailment.recorded import RecordedEntailment
from ..verify.retrieval.documents import read_passages
from ..verify.retrieval.index_manifest import read_manifest
from ..verify.retrieval.index_opening import open_index
from ..verify.retrieval.metered import MeteredRetriever, RecordedRetriever
from ..verify.retrieval.retriever import HybridRetriever, Retriever
from ..verify.retrieval.several import SeveralRetrievers
from ..verify.verifier import Means, make_verifier
from .given import GIVEN

_NOTES_TOLD = 5
JUDGE, LEXICAL = "judge", "lexical"
"""Entailments that need nothing opened: the run's own judge model, and shared words."""


@dataclass(frozen=True)
class Verifying:
    """What verifies the answers of one run.

    Attributes:
        entailments: What judges, by its string; not metered.
        retriever: Where evidence is looked for; None if nowhere.
    """

    entailments: Mapping[str, Entailment] = field(default_factory=dict)
    retriever: Retriever | None = None

    def for_strategy(self, run: Run) -> MeteredEntailment | None:
        """What a run's strategy compares texts with, charged to the run; None if it names none that was opened."""
        found = self.entailments.get(_wanted(run.config))
        return None if found is None else MeteredEntailment(found, run)

    def means(self, run: Run, models: Models, entailment: str) -> Means:
        """What a verifier works with in a run, charged to it."""
        if entailment == JUDGE:
            judge: Entailment = JudgeEntailment(models.judge)
        elif entailment == LEXICAL:
            judge = LexicalEntailment()
        else:
            judge = MeteredEntailment(self.entailments[entailment], run)
        retriever = None if self.retriever is None else MeteredRetriever(self.retriever, run)
        for what in self._lacking():
            run.degrade(f"evidence: {what}")
        return Means(run=run, models=models, entailment=judge, retriever=retriever)

    def described(self) -> dict[str, Any]:
        """What a replay needs to know, by role."""
        found: dict[str, Any] = {
            f"entailment:{name}": {"identity": e.identity, "max_words": e.max_words}
            for name, e in self.entailments.items()
        }
        if self.retriever is not None:
            found["retriever"] = {
                "identity": self.retriever.identity,
                "name": self.retriever.name,
                "degraded": self._lacking(),
            }
        return found

    def _lacking(self) -> list[str]:
        """What the retriever does less well than it could, and what it left out."""
        return [str(what) for what in getattr(self.retriever, "degraded", ())]


@dataclass
class OpenedVerifying:
    """Entailments and retrievers that are open, by name; they serve many runs and are closed together."""

    entailments: dict[str, Entailment] = field(default_factory=dict)
    retrievers: dict[tuple[str, ...], Retriever] = field(default_factory=dict)

    async def open(self, config: RunConfig, settings: Settings, progress: Progress | None) -> Verifying:
        """What verifies a run's answers.

        Raises:
            ReasonError: An entailment, a document or an index cannot be opened.
        """
        used: dict[str, Entailment] = {}
        for name in config.verify:
            verifier, _ = make_verifier(name, config.verify_parameters.get(name, {}))
            if verifier.entailment not in (JUDGE, LEXICAL):
                used[verifier.entailment] = await self._entailment(verifier.entailment, settings, progress)
        wanted = _wanted(config)
        if wanted and wanted not in used:
            with suppress(UserError, BackendUnavailable):  # a strategy does without, and says so
                used[wanted] = await self._entailment(wanted, settings, progress)
        if not config.verify:
            return Verifying(used)
        places = [await self._retriever(names, settings, progress) for names in await _places(config.evidence)]
        if not places:
            return Verifying(used)
        return Verifying(used, places[0] if len(places) == 1 else SeveralRetrievers(places))

    async def aclose(self) -> None:
        """Close everything; idempotent."""
        opened: list[Entailment | Retriever] = [*self.entailments.values(), *self.retrievers.values()]
        self.entailments.clear()
        self.retrievers.clear()
        for one in opened:
            await one.aclose()

    async def _entailment(self, name: str, settings: Settings, progress: Progress | None) -> Entailment:
        if name not in self.entailments:
            self.entailments[name] = await open_entailment(name, settings, progress=progress)
        return self.entailments[name]

    async def _retriever(self, names: tuple[str, ...], settings: Settings, progress: Progress | None) -> Retriever:
        if names not in self.retrievers:
            self.retrievers[names] = await open_place(names, settings, progress)
        return self.retrievers[names]


def _wanted(config: RunConfig) -> str:
    return compares_with(config.strategy, config.parameters, config.question)


def compares_with(strategy: str, parameters: Mapping[str, JsonValue], question: Question) -> str:
    """The entailment that a strategy wants for a question and that has to be opened for it; empty if it wants none."""
    if strategy == GIVEN or not hasattr(STRATEGIES.load(strategy), "comparing"):
        return ""  # parameters are checked where they are used
    wants = getattr(make_strategy(strategy, parameters)[0], "comparing", None)
    wanted = "" if wants is None else str(wants(question))
    return "" if wanted in (JUDGE, LEXICAL) else wanted


async def open_place(names: Sequence[str], settings: Settings, progress: Progress | None) -> Retriever:
    """A place where evidence is looked for: a saved index, or files and folders that are read now.

    Documents are found by words and meaning, or by words alone where no embedding model can be had.

    Args:
        names: One saved index, or files and folders, which are searched together.
        settings: Where model files are kept.
        progress: Told how far reading and embedding are.

    Raises:
        DataError: There is nothing there, or it cannot be read.
        UserError: A library is not installed.
    """
    located = [await asyncio.to_thread(_located, name) for name in names]

    async def embedding(model: str | None) -> EmbeddingModel:
        return await open_embedding(model or settings.embedding_model, settings, progress)

    if len(located) == 1 and located[0][1]:
        return await open_index(located[0][0], embedding)
    if progress is not None:
        progress("reading", 0, None)
    gathered = await asyncio.to_thread(read_passages, [path for path, _ in located])
    model: EmbeddingModel | None = None
    lacking = ""
    try:
        model = await embedding(None)
    except (UserError, BackendUnavailable) as e:
        lacking = f"passages are found by their words alone: {e.message}"

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress("embedding", done, total)

    try:
        made = await HybridRetriever.of(gathered.passages, model, name=", ".join(names), told=told)
    except BaseException:
        if model is not None:
            await model.aclose()
        raise
    degraded = (lacking,) if lacking else made.degraded
    return _Owning(made, model, (*degraded, *_notes(gathered.notes)))


async def _places(names: Sequence[str]) -> list[tuple[str, ...]]:
    """What is searched together: all documents, so that what is rare is rare among all of them; each index alone."""
    indexed = {name: (await asyncio.to_thread(_located, name))[1] for name in dict.fromkeys(names)}
    documents = tuple(name for name, is_index in indexed.items() if not is_index)
    return [*([documents] if documents else []), *((name,) for name, is_index in indexed.items() if is_index)]


def _notes(notes: Sequence[Note]) -> tuple[str, ...]:
    """What was left out of the documents or read otherwise, the first few of it named."""
    told = [
        f"{note.path} {'was left out' if note.left_out else 'was read otherwise'}: {note.why}"
        for note in notes[:_NOTES_TOLD]
    ]
    more = len(notes) - len(told)
    return (*told, *((f"{more:,} more documents were left out or read otherwise",) if more else ()))


def _located(name: str) -> tuple[Path, bool]:
    """The path of a place, and whether a saved index lies there."""
    path = Path(name).expanduser()
    return path, path.is_dir() and read_manifest(path) is not None


class _Owning:
    """A retriever that closes the embedding model that was opened for it."""

    def __init__(self, retriever: HybridRetriever, model: EmbeddingModel | None, degraded: tuple[str, ...]) -> None:
        self._retriever, self._model, self.degraded = retriever, model, degraded
        self.name, self.identity = retriever.name, retriever.identity
        self.retrieve = retriever.retrieve

    async def aclose(self) -> None:
        """Close retriever and model; idempotent."""
        await self._retriever.aclose()
        if self._model is not None:
            await self._model.aclose()


def recorded_verifying(record: RunRecord, config: RunConfig) -> Verifying:
    """What verified a stored run, for showing it again: it answers from the run store alone.

    Raises:
        DataError: What the store says of it is damaged.
    """
    try:
        stopped = record.answer is not None and _was_stopped(Answer.model_validate(record.answer))
        entailments = {
            role.removeprefix("entailment:"): RecordedEntailment(
                role.removeprefix("entailment:"),
                str(known["identity"]),
                None if (words := known["max_words"]) is None else int(str(words)),
                finished=record.status == "finished",
                spent="seconds" if stopped and config.budget.seconds is not None else None,
            )
            for role, known in record.identities.items()
            if role.startswith("entailment:") and isinstance(known, dict)
        }
        found = record.identities.get("retriever")
        retriever = None
        if isinstance(found, dict):
            told = found.get("degraded")
            lacking = tuple(map(str, told)) if isinstance(told, list) else ()
            retriever = RecordedRetriever(str(found["name"]), str(found["identity"]), lacking)
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"the record of run {record.id} is damaged: {e!r}") from e
    return Verifying(entailments, retriever)


def _was_stopped(answer: Answer) -> bool:
    """Whether a limit ended the run, or kept its verifiers from claims."""
    checked = answer.verification
    return answer.stopped == "budget" or (checked is not None and any(c.verdict == "unchecked" for c in checked.claims))


def complete_parameters(
    names: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, Mapping[str, Any]] | None,
) -> dict[str, dict[str, Any]]:
    """The parameters of each verifier, complete.

    Args:
        names: The verifiers.
        settings: Parameters that the settings have, of any verifier.
        given: Parameters that the caller gave; these win.

    Raises:
        UnknownName: There is no such verifier or parameter.
        UserError: A parameter has a value that is not allowed, or the caller gave some to a verifier that is not named.
    """
    given = given or {}
    strange = next((name for name in given if name not in names), None)
    if strange is not None:
        raise UserError(f"parameters are given for the verifier {strange!r}, which is not named", hint="name it too")
    return {name: make_verifier(name, {**settings.get(name, {}), **given.get(name, {})})[1] for name in names}
