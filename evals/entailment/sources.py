"""The files of labelled claims that the embedded judge is trained and scored on, read as cases."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from ...core.errors import DataError, UserError
from ...core.registry import nearest
from ...verify.support import Label
from ..datasets.files import find_files, read_file, sha256_of
from ..datasets.rows import RawRow
from .cases import FOR_LABEL, Case, Text, joined

LICENCES: Final = {
    "fever": "CC BY-SA 3.0 (FEVER, Wikipedia)",
    "vitaminc": "CC BY-SA 3.0 (VitaminC, Wikipedia)",
    "sufficient_facts": "MIT (SufficientFacts); evidence: Wikipedia, CC BY-SA 3.0",
    "fever_symmetric": "CC BY-SA 3.0 (FEVER Symmetric)",
    "climate_fever": "none stated; evidence: Wikipedia, CC BY-SA 3.0",
    "corpus": "CC BY-SA 3.0 (sentences of Wikipedia)",
}
TRAINABLE: Final = ("fever", "vitaminc", "sufficient_facts")
"""What may be trained on. The labels of CLIMATE-FEVER come without a licence, and FEVER Symmetric is a test."""

_PAGE = re.compile(r"\[\[([^\]]{0,200})\]\]")

Corpus = Mapping[str, Text]


def read_corpus(path: Path) -> dict[str, Text]:
    """Sentences by id, from a file of lines with `id`, `page` and `text`.

    Raises:
        DataError: It is no such file.
    """
    return {row.text("id"): Text(row.optional("page"), row.text("text")) for row in read_file(_file("corpus", path))}


def read_cases(name: str, path: Path, corpus: Corpus | None = None) -> list[Case]:
    """The cases of a dataset.

    Args:
        name: "fever", "vitaminc", "sufficient_facts", "fever_symmetric" or "climate_fever".
        path: Its file, or the folder with its `dev.jsonl`.
        corpus: The sentences that FEVER's `retrieved` names.

    Raises:
        UserError: There is no such dataset.
        DataError: The file is not what it should be.
    """
    known = _READERS.get(name)
    if known is None:
        near = nearest(name, _READERS)
        raise UserError(
            f"there is no dataset {name!r} to train entailment on",
            hint=f"one of {', '.join(_READERS)}" + (f"; did you mean {near[0]}?" if near else ""),
        )
    cases = [case for row in read_file(_file(name, path)) for case in known(row, corpus or {})]
    if not cases:
        raise DataError(f"{path} holds no claims")
    return cases


def hash_of(name: str, path: Path) -> str:
    """SHA-256 of a dataset's file."""
    return sha256_of([_file(name, path)])


def _file(name: str, path: Path) -> Path:
    if name == "corpus" and path.is_dir():
        path = path / "sentences.jsonl"
    return find_files(path, (name,))[0]


def _label(row: RawRow, field: str = "label") -> Label:
    return FOR_LABEL[row.label(field, {spelling: spelling for spelling in FOR_LABEL})]


def _fever(row: RawRow, corpus: Corpus) -> Iterator[Case]:
    label = _label(row)
    gold = (
        [Text(e.optional("page"), e.text("text")) for e in row.rows("evidence")] if row.values.get("evidence") else []
    )
    names = row.texts("retrieved", least=0) if row.has("retrieved") else ()
    missing = next((name for name in names if name not in corpus), None)
    if missing is not None:
        raise row.bad(f"'retrieved' names {missing!r}, which the corpus does not have", hint="name it with --corpus")
    sets = row.values.get("evidence_sets")
    given = sets if isinstance(sets, list) else []
    texts = [joined([gold[i] for i in one if isinstance(i, int)]) for one in given if isinstance(one, list) and one]
    if gold and not texts:
        texts = [joined(gold)]  # which of them are enough is not known
    yield Case(
        source="fever",
        name=row.text("id"),
        claim=row.text("claim"),
        label=label,
        texts=tuple(texts) if label != "neutral" else (),
        retrieved=tuple(corpus[name] for name in names),
        gold=tuple(gold),
    )


def _vitaminc(row: RawRow, corpus: Corpus) -> Iterator[Case]:
    text = Text(row.optional("page"), row.text("evidence"))
    yield Case(
        source="vitaminc",
        name=row.text("id"),
        claim=row.text("claim"),
        label=_label(row),
        texts=(text,),
        case=row.text("case_id"),
    )


def _sufficient(row: RawRow, corpus: Corpus) -> Iterator[Case]:
    lacking = row.text("sufficiency").strip().upper().startswith("NOT ENOUGH")
    whole = _label(row, "label_full")
    left = joined([Text(e.optional("page"), e.text("text")) for e in row.rows("evidence")])
    name, claim = row.text("id"), row.text("claim")
    label: Label = "neutral" if lacking else whole
    yield Case(source="sufficient_facts", name=name, claim=claim, label=label, texts=(left,), case=name)
    full = _pages(row.optional("full_evidence"))
    if full:
        yield Case(source="sufficient_full", name=name, claim=claim, label=whole, texts=(joined(full),), case=name)


def _pages(text: str) -> list[Text]:
    """Sentences written as `[[page]] sentence [[page]] sentence`."""
    parts = _PAGE.split(text)
    return [Text(page, said.strip()) for page, said in zip(parts[1::2], parts[2::2], strict=True) if said.strip()]


def _symmetric(row: RawRow, corpus: Corpus) -> Iterator[Case]:
    yield Case(
        source="fever_symmetric",
        name=row.text("id"),
        claim=row.text("claim"),
        label=_label(row),
        texts=(Text("", row.text("evidence")),),
        case=row.optional("base_id"),
    )


def _climate(row: RawRow, corpus: Corpus) -> Iterator[Case]:
    """A case for each sentence: the label of the pair, not of the claim."""
    for i, entry in enumerate(row.rows("evidence")):
        yield Case(
            source="climate_fever",
            name=f"{row.text('id')}-{i}",
            claim=row.text("claim"),
            label=_label(entry),
            texts=(Text(entry.optional("page"), entry.text("text")),),
            case=row.text("id"),
        )


_READERS: Final[dict[str, Callable[[RawRow, Corpus], Iterator[Case]]]] = {
    "fever": _fever,
    "vitaminc": _vitaminc,
    "sufficient_facts": _sufficient,
    "fever_symmetric": _symmetric,
    "climate_fever": _climate,
}
