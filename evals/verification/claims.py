"""`LabelledClaim`: labelled claims of the datasets, the evidence shown for them, and which of them are test claims.

Evidence is the oracle's, the oracle's padded to the same number for all claims, the first k of a retriever, random
sentences, or merged pages. Test claims are those that the embedded entailment model was not trained on, by the rule of
`evals/training/entailment/data.py`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ...core.errors import DataError, UserError
from ...core.registry import nearest
from ...reasoning.retrieval.protocol import Passage, Retriever
from ...verify.metrics import GoldLabel, parse_gold_label
from ..datasets.items import is_held_out
from ..datasets.records import Record, find_files, read_file
from ..training.entailment.data import TEST_SHARE, TRAINABLE, ClaimCase, normalize_claim, split_cases

RANK_CONSTANT: Final = 60
"""A passage at rank r, from 1, that has no score of its own gets 1 / (60 + r), as of one ranking that is fused."""

Corpus = Mapping[str, Passage]
"""Sentences by id, in the order of their file."""
_Reader = Callable[[Record, Corpus], "LabelledClaim"]


@dataclass(frozen=True, slots=True)
class LabelledClaim:
    """One labelled claim.

    Attributes:
        source: The dataset.
        name: Its name there; unique within the source.
        claim: The claim.
        gold: The right label.
        passages: What is shown, best first; None if a retriever has yet to look.
        right: The passages that decide it, in the source's order; none where there are none or they are not known.
        sets: Ids of passages that are enough together, one tuple for each sufficient set; none if not known.
        group: Claims of one group are not independent: they share a text or differ in little.
        about: A part of the dataset, such as why evidence was removed; empty if it has none.
    """

    source: str
    name: str
    claim: str
    gold: GoldLabel
    passages: tuple[Passage, ...] | None
    right: tuple[Passage, ...] = ()
    sets: tuple[tuple[str, ...], ...] = ()
    group: str = ""
    about: str = ""

    @property
    def right_ids(self) -> frozenset[str]:
        """Ids of the passages that decide it."""
        return frozenset(p.id for p in self.right)


def read_passages(path: Path) -> dict[str, Passage]:
    """The sentences of a corpus by id; a page is both title and source.

    Raises:
        DataError: It is no such file, or an id occurs twice.
    """
    file = path / "sentences.jsonl" if path.is_dir() and (path / "sentences.jsonl").is_file() else path
    results: dict[str, Passage] = {}
    for row in read_file(find_files(file, ("corpus",))[0]):
        name = row.text("id")
        if name in results:
            raise row.bad(f"the id {name!r} occurs twice")
        results[name] = _passage(name, row.optional("page"), row.text("text"))
    return results


def read_claims(name: str, path: Path, corpus: Corpus | None = None) -> list[LabelledClaim]:
    """The claims of a dataset, in the order of its file.

    Shown are: FEVER's `retrieved` sentences, or none yet (None) where a row has no such list; CLIMATE-FEVER's five; the
    one passage of VitaminC and FEVER Symmetric; what SufficientFacts left of the evidence.

    Raises:
        UserError: There is no such dataset.
        DataError: The file is not what it should be, or holds no claims.
    """
    reader = _READERS.get(name)
    if reader is None:
        near = nearest(name, _READERS)
        hint = f"one of {', '.join(_READERS)}" + (f"; did you mean {near[0]}?" if near else "")
        raise UserError(f"there is no dataset of claims {name!r}", hint=hint)
    rows = [reader(row, corpus or {}) for row in read_file(find_files(path, (name,))[0])]
    if not rows:
        raise DataError(f"{path} holds no claims")
    return rows


def ranked(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """The same passages with a score for their rank (`RANK_CONSTANT`)."""
    return tuple(p.model_copy(update={"score": 1 / (RANK_CONSTANT + r)}) for r, p in enumerate(passages, 1))


def _passage(name: str, page: str, text: str) -> Passage:
    return Passage(id=name, source=page or name, title=page, text=text)


def _gold(row: Record, field: str = "label") -> GoldLabel:
    try:
        return parse_gold_label(row.text(field))
    except DataError as e:
        raise row.bad(e.message, hint=e.hint) from e


def _fever(row: Record, corpus: Corpus) -> LabelledClaim:
    provided = [_evidence(e) for e in row.rows("evidence")] if row.values.get("evidence") else []
    sets = tuple(
        dict.fromkeys(tuple(dict.fromkeys(provided[i].id for i in one)) for one in _places(row, len(provided)))
    )
    shown: tuple[Passage, ...] | None = None
    if row.has("retrieved"):
        names = row.texts("retrieved", least=0)
        missing = next((name for name in names if name not in corpus), None)
        if missing is not None:
            raise row.bad(
                f"'retrieved' names {missing!r}, which the corpus does not have", hint="name it with --corpus"
            )
        shown = ranked([corpus[name] for name in names])
    claim, gold = row.text("claim"), _gold(row)
    right = tuple({p.id: p for p in provided}.values()) if gold != "neutral" else ()
    return LabelledClaim(
        "fever", row.text("id"), claim, gold, shown, right, sets if right else (), normalize_claim(claim)
    )


def _evidence(entry: Record) -> Passage:
    return _passage(entry.text("doc_id"), entry.optional("page"), entry.text("text"))


def _places(row: Record, count: int) -> list[list[int]]:
    """`evidence_sets`, without empty ones."""
    provided = row.values.get("evidence_sets") or []
    results: list[list[int]] = []
    for one in provided if isinstance(provided, list) else [None]:
        if not isinstance(one, list) or not all(isinstance(i, int) and 0 <= i < count for i in one):
            raise row.bad("the field 'evidence_sets' must be lists of positions within 'evidence'")
        if one:
            results.append([i for i in one if isinstance(i, int)])
    return results


def _climate(row: Record, corpus: Corpus) -> LabelledClaim:
    gold, claim = _gold(row), row.text("claim")
    sides = {"disputed": ("supports", "refutes"), "neutral": ()}.get(gold, (gold,))
    entries = [(_evidence(e), _gold(e)) for e in row.rows("evidence")]
    right = tuple(passage for passage, label in entries if label in sides)
    sets: tuple[tuple[str, ...], ...] = tuple((p.id,) for p in right)
    if gold == "disputed":  # one of each side
        by_side = [[p.id for p, label in entries if label == side] for side in sides]
        sets = tuple((a, b) for a in by_side[0] for b in by_side[1])
    shown = ranked([passage for passage, _ in entries])
    return LabelledClaim("climate_fever", row.text("id"), claim, gold, shown, right, sets, normalize_claim(claim))


def _single(source: str, group: str) -> _Reader:
    def read(row: Record, corpus: Corpus) -> LabelledClaim:
        gold, claim, name = _gold(row), row.text("claim"), row.text("id")
        passage = _passage(f"{source}:{name}", row.optional("page"), row.text("evidence"))
        right = (passage,) if gold != "neutral" else ()
        sets = tuple((p.id,) for p in right)
        return LabelledClaim(
            source, name, claim, gold, ranked([passage]), right, sets, row.optional(group) or normalize_claim(claim)
        )

    return read


def _sufficient(row: Record, corpus: Corpus) -> LabelledClaim:
    name, claim, why = row.text("id"), row.text("claim"), row.text("sufficiency").strip()
    gold: GoldLabel = "neutral" if why.upper().startswith("NOT ENOUGH") else _gold(row, "label_full")
    left = [
        _passage(f"{name}:{i}", e.optional("page"), e.text("text"))
        for i, e in enumerate(row.rows("evidence"))
        if e.optional("text")
    ]
    return LabelledClaim("sufficient_facts", name, claim, gold, ranked(left), (), (), normalize_claim(claim), why)


_READERS: Final[dict[str, _Reader]] = {
    "fever": _fever,
    "climate_fever": _climate,
    "fever_symmetric": _single("fever_symmetric", "base_id"),
    "vitaminc": _single("vitaminc", "case_id"),
    "sufficient_facts": _sufficient,
}


SHOWN_PASSAGES: Final = 5
"""Sentences that are shown for a claim."""
_CLAIMS_AT_ONCE: Final = 256


def oracle_two(rows: Sequence[LabelledClaim]) -> list[LabelledClaim]:
    """Supported and refuted claims with the passages that decide them."""
    return [
        replace(row, passages=ranked(row.right)) for row in rows if row.gold in ("supports", "refutes") and row.right
    ]


def oracle_padded(
    rows: Sequence[LabelledClaim], corpus: Corpus, k: int = SHOWN_PASSAGES, seed: int = 0
) -> list[LabelledClaim]:
    """All classes with the same number of passages, so that their number carries no information.

    Deciding passages come first into the k, those of a smallest sufficient set before the others; then what was
    retrieved; then, for the few claims of which less was, sentences sampled from the corpus. They are shown in the
    retriever's order, what it did not find last.

    Raises:
        DataError: A claim has no retrieved passages, or the corpus is too small.
    """
    results = []
    for row in rows:
        retrieved = _shown(row)
        smallest = min(row.sets, key=len, default=())
        first = sorted(row.right, key=lambda p: p.id not in smallest)
        taken = {p.id: p for p in (*first, *retrieved)}
        chosen = list(taken.values())[:k]
        if len(chosen) < k:
            chosen += _drawn(row, corpus, k - len(chosen), seed, without=set(taken))
        rank = {p.id: i for i, p in enumerate(retrieved)}
        results.append(replace(row, passages=ranked(sorted(chosen, key=lambda p: rank.get(p.id, len(rank))))))
    return results


def first_passages(rows: Sequence[LabelledClaim], k: int) -> list[LabelledClaim]:
    """The best k of what is shown."""
    return [replace(row, passages=_shown(row)[:k]) for row in rows]


def random_sentences(
    rows: Sequence[LabelledClaim], corpus: Corpus, k: int = SHOWN_PASSAGES, seed: int = 0
) -> list[LabelledClaim]:
    """Sentences of the corpus for each claim, shuffled by seed and claim; gold ones may be among them."""
    return [replace(row, passages=ranked(_drawn(row, corpus, k, seed))) for row in rows]


async def retrieve_passages(
    rows: Sequence[LabelledClaim], retriever: Retriever, k: int = SHOWN_PASSAGES
) -> list[LabelledClaim]:
    """What a retriever finds.

    Raises:
        ReasonError: As `Retriever.retrieve`.
    """
    results: list[LabelledClaim] = []
    for start in range(0, len(rows), _CLAIMS_AT_ONCE):
        part = rows[start : start + _CLAIMS_AT_ONCE]
        values = await retriever.retrieve([row.claim for row in part], k)
        results += [replace(row, passages=tuple(passages)) for row, passages in zip(part, values, strict=True)]
    return results


def merge_pages(rows: Sequence[LabelledClaim]) -> list[LabelledClaim]:
    """Passages of one page as one passage, best first within it: texts that a span can be cut from.

    Right passages and sufficient sets are then by page.
    """
    results = []
    for row in rows:
        pages: dict[str, list[Passage]] = {}
        for passage in _shown(row):
            pages.setdefault(passage.source, []).append(passage)
        full = [
            one[0].model_copy(update={"id": f"page:{page}", "text": " ".join(p.text for p in one)})
            for page, one in pages.items()
        ]
        position = {p.id: f"page:{p.source}" for p in (*row.right, *_shown(row))}
        results.append(
            replace(
                row,
                passages=tuple(full),
                right=tuple(p.model_copy(update={"id": position[p.id]}) for p in row.right),
                sets=tuple(tuple(dict.fromkeys(position[i] for i in one)) for one in row.sets),
            )
        )
    return results


def replace_passages(rows: Sequence[LabelledClaim], share: float, seed: int = 0) -> list[LabelledClaim]:
    """Each passage replaced, with a probability, by one that is shown for another claim.

    What is replaced at a share stays so, by the same passage, at every larger one.

    Args:
        rows: Two or more claims with passages.
        share: The probability, in [0, 1].

    Raises:
        DataError: There are no two claims.
    """
    if len(rows) < 2:
        raise DataError("evidence of other claims needs at least two claims")
    results = []
    for number, row in enumerate(rows):
        rng = random.Random(_seed(f"replaced {seed}", row))  # noqa: S311 (a draw that can be repeated)
        shown = []
        for passage in _shown(row):
            chance, other, at = rng.random(), rng.randrange(len(rows) - 1), rng.random()
            offered = _shown(rows[other + (other >= number)])
            if chance < share and offered:
                passage = offered[int(at * len(offered))].model_copy(update={"score": passage.score})
            shown.append(passage)
        results.append(replace(row, passages=tuple(shown)))
    return results


def _shown(row: LabelledClaim) -> tuple[Passage, ...]:
    if row.passages is None:
        raise DataError(f"nothing was retrieved for the claim {row.name} of {row.source}", hint="retrieve first")
    return row.passages


def _drawn(row: LabelledClaim, corpus: Corpus, count: int, seed: int, without: set[str] | None = None) -> list[Passage]:
    names = list(corpus)
    kept_out = without or set()
    if len(names) - len(kept_out) < count:
        raise DataError(f"the corpus has {len(names)} sentences, too few to show {count}")
    rng = random.Random(_seed(f"drawn {seed}", row))  # noqa: S311 (a draw that can be repeated)
    sampled: dict[str, None] = {}
    while len(sampled) < count:
        name = names[rng.randrange(len(names))]
        if name not in kept_out:
            sampled[name] = None
    return [corpus[name] for name in sampled]


def _seed(what: str, row: LabelledClaim) -> int:
    return int.from_bytes(hashlib.sha256(f"{what}\x1f{row.source}\x1f{row.name}".encode()).digest()[:8], "big")


FOLDS: Final = 5
_CONTRASTED: Final = ("vitaminc",)
"""Datasets whose groups the training keeps on one side."""


def is_test_claim(claim: str, share: float = TEST_SHARE) -> bool:
    """Whether a claim that belongs to no contrast group is held out of the training.

    Args:
        share: Share of all claims that is; a larger one only adds to them.
    """
    return is_held_out(hashlib.sha256(normalize_claim(claim).encode()).hexdigest(), share)


def unseen_claims(
    rows: Sequence[LabelledClaim], share: float = TEST_SHARE, other_rows: Sequence[LabelledClaim] = ()
) -> list[LabelledClaim]:
    """The rows that the judge was not trained on, in order; all of those of datasets that are never trained on.

    Raises:
        UserError: None of the rows is unseen.
    """
    together = [row for row in (*rows, *other_rows) if row.source in TRAINABLE]
    cases = [
        ClaimCase(
            source=row.source,
            name=str(i),
            claim=row.claim,
            label="neutral",  # the sides do not depend on labels
            case=row.group if row.source in _CONTRASTED else "",
        )
        for i, row in enumerate(together)
    ]
    held = {together[int(case.name)] for case in split_cases(cases, holdout=share).test}
    results = [row for row in rows if row.source not in TRAINABLE or row in held]
    if not results:
        raise UserError(f"none of {len(rows)} claims is held out of the training", hint="give more claims")
    return results


def fold_of(group: str, folds: int = FOLDS) -> int:
    """The part, from 0, that claims of a group are measured in; it does not depend on the held-out share."""
    return int.from_bytes(hashlib.sha256(f"fold\x1f{group}".encode()).digest()[:8], "big") % folds
