"""A saved index of passages: time to build and to add, query times, memory, and recall of the approximate search.

    python benchmarks/verify_index.py DIRECTORY --corpus /work/shared/data/corpus/sentences.jsonl --passages 1000000

Passages are sentences of a corpus with words exchanged for others of similar frequency, so that lengths, word
frequencies and titles are those of real text and no two are equal. Vectors are `random` (unit vectors without
structure: the worst case of approximate indexes), `clustered` (unit vectors around centres, as real embeddings are), or
of a real model with `--vectors model`.

Claims are passages without a third of their words; their vectors are the passages' with noise of the same length, or
the model's. Recall@10 compares the approximate search with an exact one over all vectors.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import random
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reason.core.settings import load_settings
from reason.reasoning.retrieval.index.builder import add_to_index, build_index
from reason.reasoning.retrieval.index.manifest import VECTORS_DIR
from reason.reasoning.retrieval.index.saved_index import load_index
from reason.reasoning.retrieval.index.shards import ArrayShards
from reason.reasoning.retrieval.vector_index import load_faiss, read_vectors
from reason.serving.encoders.factory import load_embedding_model
from reason.serving.encoders.protocols import EmbeddingModel, TextKind, UsageCallback


class DrawnVectors:
    """Unit vectors sampled from a generator seeded by the text: an embedding model that costs nothing.

    A claim, as a query, gets the vector of the passage that it was made of with noise of length `noise`.

    Attributes:
        made_of: The passage that each claim was made of.
    """

    max_tokens = None
    price_known = True

    def __init__(self, kind: str, dimension: int, centres: int = 2000, noise: float = 0.5) -> None:
        self.name = self.identity = f"drawn/{kind}-{dimension}"
        self.dimension, self._noise = dimension, noise
        self.made_of: dict[str, str] = {}
        sampled = np.random.default_rng(1).normal(size=(centres, dimension)) if kind == "clustered" else None
        self._centres = None if sampled is None else sampled / np.linalg.norm(sampled, axis=1, keepdims=True)

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "text", unit: bool = True, charged: UsageCallback | None = None
    ) -> NDArray[np.float32]:
        """See `EmbeddingModel`."""
        return np.stack([self._vector(text, kind) for text in texts]).astype(np.float32)

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        """See `EmbeddingModel`."""
        return [len(text.split()) for text in texts]

    def max_usd(self, texts: Sequence[str]) -> float:
        """Nothing."""
        return 0.0

    async def aclose(self) -> None:
        """Do nothing."""

    def _vector(self, text: str, kind: TextKind) -> NDArray[np.float64]:
        known = self.made_of.get(text, text) if kind == "query" else text
        draw = np.random.default_rng(int.from_bytes(hashlib.blake2b(known.encode(), digest_size=8).digest(), "big"))
        vector = _unit(draw.normal(size=self.dimension))
        if self._centres is not None:
            vector = _unit(self._centres[draw.integers(len(self._centres))] + 0.7 * vector)
        return _unit(vector + self._noise * _unit(draw.normal(size=self.dimension))) if kind == "query" else vector


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)


def write_passages(corpus: Path, path: Path, first: int, count: int, seed: int) -> None:
    """Write made passages as JSON lines."""
    rows = [json.loads(line) for line in corpus.open(encoding="utf-8")]
    words = [row["text"].split() for row in rows]
    pool = [word for sentence in words for word in sentence]  # as often as the corpus has them
    draw = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(first, first + count):
            at = draw.randrange(len(rows))
            made = [word if draw.random() < 0.5 else draw.choice(pool) for word in words[at]]
            made.append(f"n{number}.")
            title = rows[at].get("page") or ""
            file.write(json.dumps({"id": f"p{number}", "page": title, "text": " ".join(made)}) + "\n")


def claims_of(path: Path, count: int, seed: int) -> list[tuple[str, str]]:
    """(claim, what its passage shows) of some made passages."""
    draw = random.Random(seed)
    lines = path.open(encoding="utf-8").readlines()
    results = []
    for line in draw.sample(lines, min(count, len(lines))):
        row = json.loads(line)
        shown = f"{row['page']}\n{row['text']}" if row["page"] else row["text"]
        results.append((" ".join(w for w in row["text"].split() if draw.random() > 0.33) or row["text"], shown))
    return results


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Build, add, ask; what it took."""
    options.directory.mkdir(parents=True, exist_ok=True)
    documents = options.directory / "documents"
    documents.mkdir(exist_ok=True)
    first, more = documents / "first.jsonl", documents / "more.jsonl"
    write_passages(options.corpus, first, 0, options.passages, 1)
    added = max(1, options.passages // 100)
    sampled = options.vectors != "model"
    embedding: EmbeddingModel = (
        DrawnVectors(options.vectors, options.dimension)
        if sampled
        else await load_embedding_model(None, load_settings())
    )
    index = options.directory / "index"
    stages: dict[str, float] = {}
    last = ("", time.monotonic())

    def report_progress(stage: str, done: int, total: int | None) -> None:
        nonlocal last
        if stage != last[0]:
            now = time.monotonic()
            if last[0]:
                stages[last[0]] = stages.get(last[0], 0.0) + now - last[1]
            last = (stage, now)
            print(f"{stage} …", file=sys.stderr)

    begun = time.monotonic()
    built = await build_index(index, [first], embedding, progress=report_progress)
    build_s = time.monotonic() - begun
    report_progress("", 0, None)
    by_stage = {stage: round(seconds, 1) for stage, seconds in stages.items()}
    write_passages(options.corpus, more, options.passages, added, 2)
    begun = time.monotonic()
    built = await add_to_index(index, [more], embedding)
    add_s = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    async def opened(_name: str | None) -> EmbeddingModel:
        return embedding

    begun = time.monotonic()
    retriever = await load_index(index, opened, owned=False)
    open_s = time.monotonic() - begun
    args = claims_of(first, options.queries, 3)
    if isinstance(embedding, DrawnVectors):
        embedding.made_of = dict(args)
    seconds, hits = [], 0
    for claim, shown in args:
        begun = time.monotonic()
        [result] = await retriever.retrieve([claim], 10)
        seconds.append(time.monotonic() - begun)
        hits += any(passage.text in shown for passage in result)
    near = built.manifest.vectors
    assert near is not None
    vectors = await embedding.embed([claim for claim, _ in args], kind="query")
    recall = recall_at(10, index, retriever, vectors, embedding.dimension)
    await embedding.aclose()
    return {
        "passages": built.manifest.num_passages,
        "dimension": embedding.dimension,
        "vectors": options.vectors,
        "search": f"{near.kind}, {near.num_lists} lists" if near.num_lists else near.kind,
        "build seconds": round(build_s, 1),
        "of these": by_stage,
        f"add {added} seconds": round(add_s, 1),
        "open seconds": round(open_s, 2),
        "query p50 ms": round(1000 * float(np.percentile(seconds, 50)), 1),
        "query p95 ms": round(1000 * float(np.percentile(seconds, 95)), 1),
        "found in 10 by hybrid search": round(hits / len(args), 3),
        "recall@10 of the vector search": round(recall, 3),
        "peak RSS of build and add MB": round(peak),
        "index MB": round(sum(p.stat().st_size for p in index.rglob("*") if p.is_file()) / 1e6),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
    }


def recall_at(k: int, index: Path, retriever: Any, vectors: NDArray[np.float32], dimension: int) -> float:
    """Share of the exact `k` nearest that the index finds."""
    faiss = load_faiss()
    shards = ArrayShards(index / VECTORS_DIR, ".npy")
    best_scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
    best_positions = np.full((len(vectors), k), -1, dtype=np.int64)
    for start in range(0, shards.end, 65_536):
        positions = np.arange(start, min(start + 65_536, shards.end))
        scores, rows = faiss.knn(vectors, read_vectors(shards, positions, dimension), k, faiss.METRIC_INNER_PRODUCT)
        every = np.concatenate([best_scores, scores], 1)
        where = np.concatenate([best_positions, positions[rows]], 1)
        order = np.argsort(-every, axis=1)[:, :k]
        best_scores, best_positions = np.take_along_axis(every, order, 1), np.take_along_axis(where, order, 1)
    result = retriever._searched.vectors.nearest(vectors, k)
    return float(
        np.mean([len(set(row) & set(exact.tolist())) / k for row, exact in zip(result, best_positions, strict=True)])
    )


def main() -> int:
    """Print the metrics as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="an empty directory for documents and index; it stays")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--vectors", choices=("random", "clustered", "model"), default="clustered")
    parser.add_argument("--queries", type=int, default=200)
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
