"""FEVER: claims with evidence. A claim is a question with documents and a choice for each label.

Source: Thorne et al., "FEVER: a Large-scale Dataset for Fact Extraction and VERification" (NAACL 2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ...core.errors import DataError, UserError
from ...core.types import Document, Question
from .items import EvidenceSets, Item, LabelGold
from .records import HubSource, Record, read_file
from .spec import DatasetSpec, ReadOptions

SUPPORTS, REFUTES, NOT_ENOUGH = "SUPPORTS", "REFUTES", "NOT ENOUGH INFO"
THREE = (SUPPORTS, REFUTES, NOT_ENOUGH)
SPELLINGS = {
    "SUPPORTS": SUPPORTS,
    "SUPPORTED": SUPPORTS,
    "REFUTES": REFUTES,
    "REFUTED": REFUTES,
    "NOT ENOUGH INFO": NOT_ENOUGH,
    "NOT_ENOUGH_INFO": NOT_ENOUGH,
}
"""What the sources call the labels."""

CLAIM_ONLY = "claim-only"
"""The variant without evidence: what a method gets from the claims' wording only."""

_BY_DOCUMENTS = {
    SUPPORTS: "The documents support the claim.",
    REFUTES: "The documents refute the claim.",
    NOT_ENOUGH: "The documents do not hold enough information to tell.",
}
_BY_ITSELF = {
    SUPPORTS: "The claim is true.",
    REFUTES: "The claim is false.",
    NOT_ENOUGH: "It cannot be told.",
}


def claim_item(
    reading: ReadOptions,
    *,
    name: str,
    claim: str,
    label: str,
    labels: Sequence[str],
    documents: Sequence[Document],
    evidence: EvidenceSets,
) -> Item:
    """A claim with its documents as a multiple-choice question.

    The order of the documents is shuffled by the seed, since a source may list the gold ones first; so is the order of
    the choices.
    """
    alone = reading.variant == CLAIM_ONLY
    order = reading.order(name, len(labels))
    shown = tuple(labels[i] for i in order)
    texts = _BY_ITSELF if alone else _BY_DOCUMENTS
    request = "Is the claim true?" if alone else "What do the documents say of the claim?"
    placed = () if alone else tuple(documents[i] for i in reading.order(f"{name}\x1fdocuments", len(documents)))
    return Item(
        id=name,
        question=Question(
            text=f"Claim: {claim}\n\n{request}",
            choices=tuple(texts[one] for one in shown),
            documents=placed,
            kind="choice",
        ),
        gold=LabelGold(label=label, labels=tuple(labels), shown=shown, evidence=None if alone else evidence),
    )


def sentence(name: str, page: str, text: str) -> Document:
    """A sentence with the title of its page, without which many a pronoun hangs in the air."""
    return Document(name=name, text=f"{page}: {text}" if page else text)


def label_of(row: Record, field: str, labels: Sequence[str]) -> str:
    """A label field, in our spelling.

    Raises:
        DataError: It is none of the labels.
    """
    return row.label(field, {spelling: ours for spelling, ours in SPELLINGS.items() if ours in labels})


NUM_SENTENCES = 5
"""Sentences shown for a claim of the variant `oracle`."""
_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-COLON-": ":"}


def _hub(variant: str) -> tuple[HubSource, ...]:
    if variant == "oracle":
        raise UserError(
            "fever:oracle needs a retriever's lists and their sentences, which the hub does not have",
            hint="give them with --data, or ask fever:oracle-sr",
        )
    revision = "a6b8d891d393e97a4efac791afffb2d7de5e57c6"
    return (HubSource("copenlu/fever_gold_evidence", "validation", revision=revision),)


def _read(rows: Iterator[Record], reading: ReadOptions) -> Iterator[Item]:
    labels = (SUPPORTS, REFUTES) if reading.variant == "oracle-sr" else THREE
    is_padded = reading.variant == "oracle"
    corpus = _corpus(reading.data, reading.options.get("corpus")) if is_padded and reading.data else {}
    for row in rows:
        label = label_of(row, "label", THREE)
        if label not in labels:
            continue
        gold, sets = _evidence(row) if label != NOT_ENOUGH else ((), ())
        shown = _padded(row, gold, sets, corpus, reading) if is_padded else list(gold)
        names = {d.name for d in shown}
        yield claim_item(
            reading,
            name=row.text("id"),
            claim=row.text("claim"),
            label=label,
            labels=labels,
            documents=shown,
            evidence=EvidenceSets(
                names=tuple(d.name for d in gold if d.name in names), sets=tuple(s for s in sets if set(s) <= names)
            ),
        )


def _evidence(row: Record) -> tuple[tuple[Document, ...], tuple[tuple[str, ...], ...]]:
    """The gold sentences, and which of them are enough together."""
    value = row.value("evidence")
    if isinstance(value, list) and value and isinstance(value[0], list):
        return _hub_evidence(row, value), ()
    result = tuple(sentence(e.text("doc_id"), e.optional("page"), e.text("text")) for e in row.rows("evidence"))
    if not result:
        raise row.bad("a claim that is supported or refuted has no evidence")
    sets: list[tuple[str, ...]] = []
    values = row.values.get("evidence_sets") or []
    for indices in values if isinstance(values, list) else []:
        if not isinstance(indices, list) or not all(isinstance(i, int) and 0 <= i < len(result) for i in indices):
            raise row.bad("the field 'evidence_sets' must be lists of positions within 'evidence'")
        sets.append(tuple(result[i].name for i in indices if isinstance(i, int)))
    return _once(result), tuple(s for s in sets if s)


def _hub_evidence(row: Record, value: Sequence[object]) -> tuple[Document, ...]:
    """The hub's copy: lists of page, number and text, brackets spelled out."""
    results = []
    for entry in value:
        if not isinstance(entry, list) or len(entry) < 3:
            raise row.bad("an entry of 'evidence' must be page, number and text")
        page, number, text = (str(part) for part in entry[:3])
        results.append(sentence(f"{page}:{number}", _spoken(page.replace("_", " ")), _spoken(text)))
    return _once(results)


def _once(documents: Sequence[Document]) -> tuple[Document, ...]:
    return tuple({d.name: d for d in documents}.values())


def _spoken(text: str) -> str:
    for spelled, sign in _BRACKETS.items():
        text = text.replace(spelled, sign)
    return text


def _padded(
    row: Record,
    gold: Sequence[Document],
    sets: Sequence[tuple[str, ...]],
    corpus: Mapping[str, Document],
    reading: ReadOptions,
) -> list[Document]:
    """The same number of sentences for every class: the smallest sufficient set, other gold, retrieved, then any."""
    smallest = min(sets, key=len, default=())
    first = sorted(gold, key=lambda d: d.name not in smallest)
    names = {d.name for d in gold}
    filling = [_lookup(row, corpus, name) for name in row.texts("retrieved", least=0) if name not in names]
    shown = [*first, *filling][:NUM_SENTENCES]
    if len(shown) < NUM_SENTENCES:
        taken = names | {d.name for d in filling}
        others = [name for name in corpus if name not in taken]
        order = reading.order(f"{row.text('id')}\x1ffilling", len(others))
        shown += [corpus[others[i]] for i in order[: NUM_SENTENCES - len(shown)]]
    if len(shown) < NUM_SENTENCES:
        raise row.bad(f"evidence, 'retrieved' and the corpus have {len(shown)} sentences, fewer than {NUM_SENTENCES}")
    return shown


def _corpus(data: Path, values: str | None) -> dict[str, Document]:
    """The sentences by name."""
    path = Path(values) if values else _beside(data)
    if not path.is_file():
        raise DataError(
            f"the sentences that 'retrieved' names are not at {path}",
            hint="name their file with the option corpus=FILE",
        )
    results: dict[str, Document] = {}
    for row in read_file(path):
        name = row.text("id")
        if name in results:
            raise row.bad(f"the id {name!r} occurs twice")
        results[name] = sentence(name, row.optional("page"), row.text("text"))
    return results


def _beside(data: Path) -> Path:
    """Where the corpus is: in a directory next to the dataset's."""
    root = data if data.is_dir() and (data / "corpus").is_dir() else (data if data.is_dir() else data.parent).parent
    return root / "corpus" / "sentences.jsonl"


def _lookup(row: Record, corpus: Mapping[str, Document], name: str) -> Document:
    if name not in corpus:
        raise row.bad(f"'retrieved' names {name!r}, which the corpus does not have")
    return corpus[name]


FEVER = DatasetSpec(
    name="fever",
    summary="FEVER: is a claim supported or refuted by sentences of Wikipedia?",
    licence="CC BY-SA 3.0 (FEVER, Wikipedia)",
    warning=(
        "Public for years: models may have seen claims and labels in training, and know much of Wikipedia; compare "
        "with fever:claim-only. NOT ENOUGH INFO carries label noise: some of these claims are contradicted by a "
        "sentence that the annotators did not see."
    ),
    read=_read,
    hub=_hub,
    variants={
        "oracle": "gold sentences, filled up with retrieved ones so that every class has as many; needs a local corpus",
        "oracle-sr": "gold sentences alone, supported and refuted claims alone",
        CLAIM_ONLY: "without evidence",
    },
    folders=("fever",),
    options={
        "corpus": "file of the sentences; by default corpus/sentences.jsonl in the directory beside the dataset's",
    },
)
