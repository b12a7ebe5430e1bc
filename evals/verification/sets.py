"""`EvaluationSet`: the claims with evidence that verification is fitted to and measured on; one list for both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...core.errors import UserError
from .claims import (
    LabelledClaim,
    oracle_padded,
    oracle_two,
    read_claims,
    read_passages,
    search_documents,
    trained_claims,
    unseen_claims,
)

MAX_CLAIMS: Final = 1500
"""Claims of a set: more would change the intervals little, and the time of a slow judge much."""


@dataclass(frozen=True)
class EvaluationSet:
    """Claims with the passages shown for them.

    Attributes:
        key: Its name.
        title: Its title in tables.
        dataset: The dataset; what is fitted without a dataset is measured on all its sets.
        rows: The claims.
        two_labels: Whether every claim is supported or refuted, so that the two can be told apart without abstaining.
    """

    key: str
    title: str
    dataset: str
    rows: tuple[LabelledClaim, ...]
    two_labels: bool = False

    @property
    def is_fitted(self) -> bool:
        """Whether the decision may be fitted to it: plain claims only measure, and no claim counts twice."""
        return self.key not in ("plain_claims", "climate_fever_three")


async def read_evaluation_sets(
    paths: Mapping[str, Path], corpus: Path, *, trained: Mapping[str, Path], limit: int = MAX_CLAIMS, seed: int = 0
) -> list[EvaluationSet]:
    """The evaluation sets of the datasets that are there, of claims that no judge was trained on.

    A set with more claims than the limit is a sample of whole groups, by a hash of group and seed.

    Args:
        paths: Files or directories of datasets (`DATASETS`).
        corpus: The sentences that FEVER's lists name.
        trained: Files that the judges were trained on a share of (`trained_claims`).
        limit: Maximum claims of a set.
        seed: Of the samples.

    Raises:
        UserError: There is no such dataset.
        DataError: A file is not what it should be.
    """
    unknown = next((name for name in paths if name not in DATASETS), None)
    if unknown is not None:
        raise UserError(f"there is no evaluation set of {unknown!r}", hint=f"one of {', '.join(DATASETS)}")
    passages = read_passages(corpus)
    seen = trained_claims(trained, corpus)
    rows = {name: unseen_claims(read_claims(name, path, passages), seen) for name, path in paths.items()}
    for name in ("wice", "plain_claims"):
        if name in rows:
            rows[name] = await search_documents(rows[name])
    sets: list[EvaluationSet] = []
    for name, title in DATASETS.items():
        own = rows.get(name)
        if not own:
            continue
        sampled = sample_groups(own, limit, seed)
        if name == "fever":
            sets += [
                EvaluationSet("fever_two", "FEVER, deciding sentences", name, tuple(oracle_two(sampled)), True),
                EvaluationSet(
                    "fever_oracle",
                    "FEVER, deciding sentences among five",
                    name,
                    tuple(oracle_padded(sampled, passages, seed=seed)),
                ),
                EvaluationSet("fever_retrieved", "FEVER, five retrieved", name, tuple(sampled)),
            ]
            continue
        if name == "climate_fever":
            plain = tuple(row for row in sampled if row.gold != "disputed")
            sets.append(EvaluationSet("climate_fever_three", f"{title}, without disputed", name, plain))
            title = f"{title}, with disputed"
        golds = {row.gold for row in sampled}
        sets.append(EvaluationSet(name, title, name, tuple(sampled), two_labels=golds <= {"supports", "refutes"}))
    return sets


DATASETS: Final = {
    "fever": "FEVER",
    "vitaminc": "VitaminC",
    "fever_symmetric": "FEVER Symmetric",
    "climate_fever": "CLIMATE-FEVER",
    "sufficient_facts": "SufficientFacts",
    "fm2": "Fool-Me-Twice, gold evidence",
    "wice": "WiCE, five chunks of the article",
    "factcheck_gpt": "Factcheck-GPT",
    "plain_claims": "Plain claims",
}
"""The datasets, with their names."""


def sample_groups(rows: Sequence[LabelledClaim], limit: int, seed: int = 0) -> list[LabelledClaim]:
    """At most `limit` rows, of whole groups that a hash of their name and the seed selects, in order."""
    if len(rows) <= limit:
        return list(rows)
    sizes: dict[str, int] = {}
    for row in rows:
        group = row.group or row.name
        sizes[group] = sizes.get(group, 0) + 1
    kept: set[str] = set()
    total = 0
    for group in sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}\x1f{name}".encode()).digest()):
        if total + sizes[group] > limit:
            break
        kept.add(group)
        total += sizes[group]
    return [row for row in rows if (row.group or row.name) in kept]
