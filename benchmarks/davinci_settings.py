"""What the tables of verification are measured on: settings by name, and what of each has to be judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reason.core.settings import Settings
from reason.evals.verifying.judging import Form
from reason.evals.verifying.rows import ClaimRow, read_claims, read_passages
from reason.evals.verifying.settings import (
    by_page,
    first,
    oracle_padded,
    oracle_two,
    random_sentences,
    replaced,
    retrieved_by,
)
from reason.evals.verifying.unseen import unseen
from reason.serving.embeddings import open_embedding
from reason.verify.retrieval.index_opening import open_index
from reason.verify.retrieval.retriever import HybridRetriever

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of the evidence that are replaced by evidence of other claims."""
RETRIEVAL = ("random", "bm25@1", "bm25@3", "bm25", "own", "oracle")


@dataclass(frozen=True)
class Setting:
    """Claims with what is shown for them.

    Attributes:
        key: Its name.
        title: What a reader is told.
        rows: The claims.
        forms: What has to be judged of them.
    """

    key: str
    title: str
    rows: tuple[ClaimRow, ...]
    forms: tuple[Form, ...] = ("full",)


@dataclass(frozen=True)
class World:
    """All settings, and how FEVER's own retriever was made.

    Attributes:
        settings: By key.
        retriever: What found the passages of the setting "own".
    """

    settings: dict[str, Setting]
    retriever: str


async def read_world(
    data: Path, settings: Settings, *, limit: int | None = None, index: Path | None = None, seed: int = 0
) -> World:
    """Read the data sets and retrieve; only claims that the embedded judge was not trained on are kept.

    Args:
        data: Folder with a folder for each data set, and `corpus`.
        settings: Where model files are kept.
        limit: Most claims of each data set.
        index: Index that FEVER's own retriever searches; None searches the corpus by words.
        seed: Of random sentences and of replacing.
    """
    corpus = read_passages(data / "corpus")
    read = {
        name: read_claims(name, data / name, corpus)
        for name in ("fever", "climate_fever", "fever_symmetric", "vitaminc", "sufficient_facts")
    }
    everything = [row for rows in read.values() for row in rows]
    kept = {name: unseen(rows, beside=everything)[:limit] for name, rows in read.items()}
    fever, climate = kept["fever"], kept["climate_fever"]
    if index is None:
        retriever = await HybridRetriever.of(list(corpus.values()), name="corpus by words and titles")
    else:
        retriever = await open_index(index, lambda name: open_embedding(name, settings))
    try:
        own = await retrieved_by(fever, retriever)
    finally:
        await retriever.aclose()
    all_forms: tuple[Form, ...] = ("full", "span", "concat", "claim")
    made = [
        Setting(
            "oracle2", "FEVER, deciding sentences alone, supported and refuted", tuple(oracle_two(fever)), all_forms
        ),
        Setting(
            "oracle", "FEVER, deciding sentences among five", tuple(oracle_padded(fever, corpus, seed=seed)), all_forms
        ),
        Setting("bm25", "FEVER, five retrieved by BM25", tuple(fever), all_forms),
        Setting("bm25@1", "FEVER, one retrieved by BM25", tuple(first(fever, 1))),
        Setting("bm25@3", "FEVER, three retrieved by BM25", tuple(first(fever, 3))),
        Setting("own", "FEVER, five by the hybrid retriever", tuple(own)),
        Setting("random", "FEVER, five random sentences", tuple(random_sentences(fever, corpus, seed=seed))),
        Setting("pages", "FEVER, what BM25 found, a text for each page", tuple(by_page(fever)), ("full", "span")),
        Setting("climate", "CLIMATE-FEVER, its five sentences", tuple(climate), all_forms),
        Setting("symmetric", "FEVER Symmetric", tuple(kept["fever_symmetric"]), ("full", "claim")),
        Setting("vitaminc", "VitaminC", tuple(kept["vitaminc"]), ("full", "claim")),
        Setting("sufficient", "SufficientFacts", tuple(kept["sufficient_facts"]), ("full", "concat", "claim")),
        *replacing("bm25", fever, seed),
        *replacing("climate", climate, seed),
    ]
    return World({one.key: one for one in made}, retriever.name)


def replacing(key: str, rows: Sequence[ClaimRow], seed: int) -> Iterator[Setting]:
    """A setting for each share of evidence that is replaced."""
    for share in SHARES:
        if share:
            title = f"{key}, {100 * share:.0f} % replaced"
            yield Setting(f"{key}~{share:g}", title, tuple(replaced(rows, share, seed)))
