"""Claims with their evidence given: CLIMATE-FEVER, VitaminC, FEVER Symmetric, SufficientFacts."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.question import Document
from ..items import EvidenceSets, Item
from .claims import CLAIM_ONLY, DISPUTED, NOT_ENOUGH, REFUTES, SUPPORTS, THREE, claim_item, label_of, sentence
from .hub import HubSource
from .recipe import Reading, Recipe
from .rows import RawRow

_SEEN = "Public for years: models may have seen claims and labels in training; compare with the variant claim-only."
_WITHOUT = {CLAIM_ONLY: "without evidence"}

# -- CLIMATE-FEVER (Diggelmann et al. 2020, arXiv:2012.00614)


def _read_climate(rows: Iterator[RawRow], reading: Reading) -> Iterator[Item]:
    labels = THREE if reading.variant == "three-way" else (*THREE, DISPUTED)
    for row in rows:
        label = label_of(row, row.first("label", "claim_label"), (*THREE, DISPUTED))
        if label not in labels:
            continue
        name = row.text(row.first("id", "claim_id"))
        documents, right = [], []
        for i, entry in enumerate(row.rows(row.first("evidence", "evidences"))):
            one = entry.text(entry.first("doc_id", "evidence_id")) if entry.has("doc_id") else f"{name}-{i}"
            documents.append(
                sentence(
                    one, entry.optional(entry.first("page", "article")), entry.text(entry.first("text", "evidence"))
                )
            )
            if label_of(entry, entry.first("label", "evidence_label"), THREE) in (SUPPORTS, REFUTES):
                right.append(one)
        yield claim_item(
            reading,
            name=name,
            claim=row.text("claim"),
            label=label,
            labels=labels,
            documents=list({d.name: d for d in documents}.values()),
            evidence=EvidenceSets(names=tuple(dict.fromkeys(right))),
        )


CLIMATE_FEVER = Recipe(
    name="climate-fever",
    summary="CLIMATE-FEVER: claims about the climate, five sentences of Wikipedia for each",
    licence="none stated; the evidence is Wikipedia text: CC BY-SA 3.0",
    warning=_SEEN,
    read=_read_climate,
    hub=lambda variant: (HubSource("tdiggelm/climate_fever", "test"),),
    variants={
        "four-way": "with the label DISPUTED: sentences on both sides",
        "three-way": "disputed claims left out",
        **_WITHOUT,
    },
    folders=("climate_fever",),
)

# -- VitaminC (Schuster, Fisch and Barzilay 2021, arXiv:2103.08541)


def _read_vitaminc(rows: Iterator[RawRow], reading: Reading) -> Iterator[Item]:
    for row in rows:
        name = row.text(row.first("id", "unique_id"))
        yield claim_item(
            reading,
            name=name,
            claim=row.text("claim"),
            label=label_of(row, "label", THREE),
            labels=THREE,
            documents=[sentence("evidence", row.optional("page"), row.text("evidence"))],
            group=row.text("case_id"),
        )


VITAMINC = Recipe(
    name="vitaminc",
    summary="VitaminC: claims against passages that differ in little and change the verdict",
    licence="CC BY-SA 3.0",
    warning=f"{_SEEN} Claims of one case are no independent questions; standard errors are clustered by case.",
    read=_read_vitaminc,
    hub=lambda variant: (HubSource("tals/vitaminc", "test", revision="be6febb761b0b2807687e61e0b5282e459df2fa0"),),
    variants={"evidence": "with the passage", **_WITHOUT},
    folders=("vitaminc",),
)

# -- FEVER Symmetric (Schuster et al. 2019, arXiv:1908.05267)


def _read_symmetric(rows: Iterator[RawRow], reading: Reading) -> Iterator[Item]:
    for row in rows:
        yield claim_item(
            reading,
            name=row.text("id"),
            claim=row.text("claim"),
            label=label_of(row, row.first("label", "gold_label"), (SUPPORTS, REFUTES)),
            labels=(SUPPORTS, REFUTES),
            documents=[Document(name="evidence", text=row.text(row.first("evidence", "evidence_sentence")))],
            group=row.optional("base_id"),
        )


FEVER_SYMMETRIC = Recipe(
    name="fever-symmetric",
    summary="FEVER Symmetric: every claim with evidence for it and with evidence against it",
    licence="data: CC BY-SA 3.0; code: MIT",
    warning="A verifier that ignores the evidence scores 50%. Pairs of one claim are clustered.",
    read=_read_symmetric,
    variants={"evidence": "with the sentence", **_WITHOUT},
    folders=("fever_symmetric",),
)

# -- SufficientFacts (Atanasova et al. 2022, arXiv:2204.02007)


def _read_sufficient(rows: Iterator[RawRow], reading: Reading) -> Iterator[Item]:
    for row in rows:
        lacking = row.text("sufficiency").strip().upper().startswith("NOT ENOUGH")
        whole = label_of(row, "label_full", THREE)
        name = row.text("id")
        yield claim_item(
            reading,
            name=name,
            claim=row.text("claim"),
            label=NOT_ENOUGH if lacking else whole,
            labels=THREE,
            documents=[
                sentence(f"{name}-{i}", e.optional("page"), e.text("text")) for i, e in enumerate(row.rows("evidence"))
            ],
            subject=row.optional("part"),
            group=row.text("claim"),
        )


SUFFICIENT_FACTS = Recipe(
    name="sufficient-facts",
    summary="SufficientFacts: is the evidence still enough after a part of it was removed?",
    licence="MIT (its authors' card); evidence: Wikipedia, CC BY-SA 3.0",
    warning=f"{_SEEN} Rows of one claim are clustered.",
    read=_read_sufficient,
    variants={"evidence": "with what is left of it", **_WITHOUT},
    folders=("sufficient_facts",),
)
