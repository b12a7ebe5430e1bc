"""Labelled claims with the passages shown for them, and the sets that verdicts are fitted to and measured on.

Held-out claims are those that the embedded judges were not trained on (`cases.split_cases`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cases import EvidenceText, join_sentences, normalize_claim, read_cases, read_corpus, split_cases
from reason.core.errors import DataError, UserError
from reason.core.types import Document
from reason.evals.datasets.records import Record, find_files, read_file
from reason.reasoning.knowledge import Passage
from reason.reasoning.retrieval.passages import document_passages
from reason.reasoning.retrieval.retriever import HybridRetriever
from reason.verify.davinci.davinci import fill_up
from verdict_fit import GoldLabel

RANK_CONSTANT: Final = 60
"""A passage at rank r, from 1, that has no score of its own gets 1 / (60 + r), as of one ranking that is fused."""

Corpus = Mapping[str, Passage]
"""Sentences by id, in the order of their file."""
_Reader = Callable[[Record, Corpus], "LabelledClaim"]


@dataclass(frozen=True, slots=True)
class LabelledClaim:
    """One labelled claim."""

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
    """The sentences of a corpus by id; a page is both title and source."""
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
    one passage of VitaminC and FEVER Symmetric; what SufficientFacts left of the evidence; Fool-Me-Twice's gold
    evidence; the excerpts of Factcheck-GPT; all chunks of the document of WiCE and plain claims, to be searched
    (`search_documents`). Any other dataset has rows with `id`, `claim`, `label`, `evidence` (objects with `text` and
    `page`) and, for rows that belong together, `case_id`; its evidence is one passage.
    """
    rows = [_reader_of(name)(row, corpus or {}) for row in read_file(find_files(path, (name,))[0])]
    if not rows:
        raise DataError(f"{path} holds no claims")
    return rows


def ranked(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """The same passages with a score for their rank (`RANK_CONSTANT`)."""
    return tuple(p.model_copy(update={"score": 1 / (RANK_CONSTANT + r)}) for r, p in enumerate(passages, 1))


def _passage(name: str, page: str, text: str) -> Passage:
    return Passage(id=name, source=page or name, title=page, text=text)


_GOLD_NAMES: Final[dict[str, GoldLabel]] = {
    "supports": "supports",
    "supported": "supports",
    "refutes": "refutes",
    "refuted": "refutes",
    "neutral": "neutral",
    "nei": "neutral",
    "not enough": "neutral",
    "not enough info": "neutral",
    "not enough evidence": "neutral",
    "partially supported": "neutral",
    "disputed": "disputed",
}


def _gold(row: Record, field: str = "label") -> GoldLabel:
    """The label of a dataset's name for it, in any case, with spaces or underscores."""
    name = row.text(field)
    label = _GOLD_NAMES.get(" ".join(name.casefold().replace("_", " ").split()))
    if label is None:
        raise row.bad(
            f"unknown label of a claim {name[:60]!r}", hint="expected SUPPORTS, REFUTES, NOT ENOUGH INFO or DISPUTED"
        )
    return label


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


def _labelled(source: str, row: Record, corpus: Corpus) -> LabelledClaim:
    texts = [EvidenceText(e.optional("page"), e.text("text")) for e in row.rows("evidence")]
    name, claim, gold = row.text("id"), row.text("claim"), _gold(row)
    title, text = join_sentences(texts)
    passage = _passage(f"{source}:{name}", title, text)
    right = (passage,) if gold != "neutral" else ()
    group = row.optional("case_id") or normalize_claim(claim)
    return LabelledClaim(source, name, claim, gold, ranked([passage]), right, tuple((p.id,) for p in right), group)


def _fm2(row: Record, corpus: Corpus) -> LabelledClaim:
    """Fool-Me-Twice with its gold evidence, sentences of one page, as one passage."""
    name, title, gold = row.text("question_id"), row.text("title"), _gold(row)
    text = " ".join(e.text("text") for e in row.rows("evidence") if e.optional("text"))
    passage = _passage(f"fm2:{name}", title, text)
    group = row.text("split_group")
    return LabelledClaim("fm2", name, row.text("claim"), gold, ranked([passage]), (passage,), ((passage.id,),), group)


_TITLE: Final = "(meta data) TITLE: "


def _wice(row: Record, corpus: Corpus) -> LabelledClaim:
    """WiCE with the article that a sentence of Wikipedia cites, in chunks to be searched."""
    lines = [e.optional("text") for e in row.rows("evidence")]
    title = next((line.removeprefix(_TITLE) for line in lines if line.startswith(_TITLE)), "article")
    text = "\n".join(line for line in lines if line and not line.startswith("(meta data)"))
    passages = tuple(document_passages([Document(name=title, text=text)]))
    return LabelledClaim(
        "wice", row.text("question_id"), row.text("claim"), _gold(row), passages, group=row.text("split_group")
    )


def _factcheck(row: Record, corpus: Corpus) -> LabelledClaim:
    """Factcheck-GPT with up to five excerpts of web pages; the label is what these allow."""
    name, gold = row.text("question_id"), _gold(row, "label_given_evidence")
    entries = [(_passage(f"{name}:{i}", "", e.text("text")), e) for i, e in enumerate(row.rows("evidence"))]
    right = tuple(p for p, e in entries if _STANCES.get(e.text("stance")) == gold and gold != "neutral")
    shown = ranked([p for p, _ in entries])
    sets = tuple((p.id,) for p in right)
    return LabelledClaim("factcheck_gpt", name, row.text("claim"), gold, shown, right, sets, row.text("split_group"))


_STANCES: Final[dict[str, GoldLabel]] = {"supports": "supports", "refutes": "refutes"}


def _plain(row: Record, corpus: Corpus) -> LabelledClaim:
    """A claim about a document; `document` is its Markdown, and `title` the name of its file."""
    name, title, claim = row.text("id"), row.text("title"), row.text("claim")
    passages = document_passages([Document(name=title, text=row.text("document"))])
    return LabelledClaim("plain_claims", name, claim, _gold(row), tuple(passages), group=title, about=row.text("kind"))


_READERS: Final[dict[str, _Reader]] = {
    "fever": _fever,
    "climate_fever": _climate,
    "fever_symmetric": _single("fever_symmetric", "base_id"),
    "vitaminc": _single("vitaminc", "case_id"),
    "sufficient_facts": _sufficient,
    "fm2": _fm2,
    "wice": _wice,
    "factcheck_gpt": _factcheck,
    "plain_claims": _plain,
}


def _reader_of(name: str) -> _Reader:
    return _READERS.get(name) or (lambda row, corpus: _labelled(name, row, corpus))


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
    """
    results = []
    for row in rows:
        retrieved = shown_passages(row)
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
    return [replace(row, passages=shown_passages(row)[:k]) for row in rows]


async def search_documents(rows: Sequence[LabelledClaim], k: int = SHOWN_PASSAGES) -> list[LabelledClaim]:
    """The k passages that `davinci` would judge for each claim of its own passages, best first."""
    retrievers: dict[tuple[str, ...], HybridRetriever] = {}
    results = []
    for row in rows:
        passages = shown_passages(row)
        key = tuple(p.text for p in passages)
        if key not in retrievers:
            retrievers[key] = await HybridRetriever.build(list(passages), name="document")
        (found,) = await retrievers[key].retrieve([row.claim], k)
        results.append(replace(row, passages=tuple(fill_up(found, passages, k))))
    return results


def shown_passages(row: LabelledClaim) -> tuple[Passage, ...]:
    if row.passages is None:
        raise DataError(f"nothing was retrieved for the claim {row.name} of {row.source}", hint="retrieve first")
    return row.passages


def _drawn(row: LabelledClaim, corpus: Corpus, count: int, seed: int, without: set[str] | None = None) -> list[Passage]:
    names = list(corpus)
    kept_out = without or set()
    if len(names) - len(kept_out) < count:
        raise DataError(f"the corpus has {len(names)} sentences, too few to show {count}")
    rng = random.Random(_seed(f"drawn {seed}", row))
    sampled: dict[str, None] = {}
    while len(sampled) < count:
        name = names[rng.randrange(len(names))]
        if name not in kept_out:
            sampled[name] = None
    return [corpus[name] for name in sampled]


def _seed(what: str, row: LabelledClaim) -> int:
    return int.from_bytes(hashlib.sha256(f"{what}\x1f{row.source}\x1f{row.name}".encode()).digest()[:8], "big")


def trained_claims(paths: Mapping[str, Path], corpus: Path) -> frozenset[str]:
    """The claims, by their words, that the embedded judges were trained on (`normalize_claim`)."""
    sentences = read_corpus(corpus)
    cases = [case for name, path in paths.items() for case in read_cases(name, path, sentences)]
    return frozenset(normalize_claim(case.claim) for case in split_cases(cases).train)


def unseen_claims(rows: Sequence[LabelledClaim], trained: frozenset[str]) -> list[LabelledClaim]:
    """The rows whose claims are not among those trained on, in order."""
    results = [row for row in rows if normalize_claim(row.claim) not in trained]
    if rows and not results:
        raise UserError(f"none of {len(rows)} claims is held out of the training", hint="give more claims")
    return results


MAX_CLAIMS: Final = 1500
"""Claims of a set: more would change the intervals little, and the time of a slow judge much."""


@dataclass(frozen=True)
class EvaluationSet:
    """Claims with the passages shown for them."""

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
