"""`ClaimRow`: a labelled claim with what is shown for it and what is right; and readers of the datasets of claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...core.errors import DataError, UserError
from ...core.registry import nearest
from ...verify.calibration.gold import Gold, gold_of
from ...verify.evidence import Passage
from ..datasets.files import find_files, read_file
from ..datasets.rows import RawRow
from ..entailment.cases import normal

RANK_CONSTANT: Final = 60
"""A passage at rank r, from 1, that has no score of its own gets 1 / (60 + r), as of one ranking that is fused."""

Corpus = Mapping[str, Passage]
"""Sentences by id, in the order of their file."""
_Reader = Callable[[RawRow, Corpus], "ClaimRow"]


@dataclass(frozen=True, slots=True)
class ClaimRow:
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
    gold: Gold
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

    Args:
        path: A file of lines with `id`, `page` and `text`, or the folder with its `sentences.jsonl`.

    Raises:
        DataError: It is no such file, or an id occurs twice.
    """
    file = path / "sentences.jsonl" if path.is_dir() and (path / "sentences.jsonl").is_file() else path
    found: dict[str, Passage] = {}
    for row in read_file(find_files(file, ("corpus",))[0]):
        name = row.text("id")
        if name in found:
            raise row.bad(f"the id {name!r} occurs twice")
        found[name] = _passage(name, row.optional("page"), row.text("text"))
    return found


def read_claims(name: str, path: Path, corpus: Corpus | None = None) -> list[ClaimRow]:
    """The claims of a dataset, in the order of its file.

    Shown are: FEVER's `retrieved` sentences, or none yet (None) where a row has no such list; CLIMATE-FEVER's five; the
    one passage of VitaminC and FEVER Symmetric; what SufficientFacts left of the evidence.

    Args:
        name: "fever", "climate_fever", "fever_symmetric", "vitaminc" or "sufficient_facts".
        path: Its file, or the folder with its `dev.jsonl`.
        corpus: The sentences that FEVER's `retrieved` names.

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


def _gold(row: RawRow, field: str = "label") -> Gold:
    try:
        return gold_of(row.text(field))
    except DataError as e:
        raise row.bad(e.message, hint=e.hint) from e


def _fever(row: RawRow, corpus: Corpus) -> ClaimRow:
    given = [_evidence(e) for e in row.rows("evidence")] if row.values.get("evidence") else []
    sets = tuple(dict.fromkeys(tuple(dict.fromkeys(given[i].id for i in one)) for one in _places(row, len(given))))
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
    right = tuple({p.id: p for p in given}.values()) if gold != "neutral" else ()
    return ClaimRow("fever", row.text("id"), claim, gold, shown, right, sets if right else (), normal(claim))


def _evidence(entry: RawRow) -> Passage:
    return _passage(entry.text("doc_id"), entry.optional("page"), entry.text("text"))


def _places(row: RawRow, count: int) -> list[list[int]]:
    """`evidence_sets`, without empty ones."""
    given = row.values.get("evidence_sets") or []
    found: list[list[int]] = []
    for one in given if isinstance(given, list) else [None]:
        if not isinstance(one, list) or not all(isinstance(i, int) and 0 <= i < count for i in one):
            raise row.bad("the field 'evidence_sets' must be lists of positions within 'evidence'")
        if one:
            found.append([i for i in one if isinstance(i, int)])
    return found


def _climate(row: RawRow, corpus: Corpus) -> ClaimRow:
    gold, claim = _gold(row), row.text("claim")
    sides = {"disputed": ("supports", "refutes"), "neutral": ()}.get(gold, (gold,))
    entries = [(_evidence(e), _gold(e)) for e in row.rows("evidence")]
    right = tuple(passage for passage, said in entries if said in sides)
    sets: tuple[tuple[str, ...], ...] = tuple((p.id,) for p in right)
    if gold == "disputed":  # one of each side
        by_side = [[p.id for p, said in entries if said == side] for side in sides]
        sets = tuple((a, b) for a in by_side[0] for b in by_side[1])
    shown = ranked([passage for passage, _ in entries])
    return ClaimRow("climate_fever", row.text("id"), claim, gold, shown, right, sets, normal(claim))


def _single(source: str, group: str) -> _Reader:
    def read(row: RawRow, corpus: Corpus) -> ClaimRow:
        gold, claim, name = _gold(row), row.text("claim"), row.text("id")
        passage = _passage(f"{source}:{name}", row.optional("page"), row.text("evidence"))
        right = (passage,) if gold != "neutral" else ()
        sets = tuple((p.id,) for p in right)
        return ClaimRow(source, name, claim, gold, ranked([passage]), right, sets, row.optional(group) or normal(claim))

    return read


def _sufficient(row: RawRow, corpus: Corpus) -> ClaimRow:
    name, claim, why = row.text("id"), row.text("claim"), row.text("sufficiency").strip()
    gold: Gold = "neutral" if why.upper().startswith("NOT ENOUGH") else _gold(row, "label_full")
    left = [
        _passage(f"{name}:{i}", e.optional("page"), e.text("text"))
        for i, e in enumerate(row.rows("evidence"))
        if e.optional("text")
    ]
    return ClaimRow("sufficient_facts", name, claim, gold, ranked(left), (), (), normal(claim), why)


_READERS: Final[dict[str, _Reader]] = {
    "fever": _fever,
    "climate_fever": _climate,
    "fever_symmetric": _single("fever_symmetric", "base_id"),
    "vitaminc": _single("vitaminc", "case_id"),
    "sufficient_facts": _sufficient,
}
