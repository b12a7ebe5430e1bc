"""Small files of labelled claims, and a judge that reads what a passage says of a claim from its words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labelled_claims import LabelledClaim, ranked
from reason.reasoning.knowledge import Passage
from reason.verify.types import Pair, Support
from verdict_fit import GoldLabel
from verdicts import JudgedClaim

SAYS = {"yes": Support(0.8, 0.1, 0.1), "no": Support(0.1, 0.8, 0.1), "hm": Support(0.1, 0.1, 0.8)}


def said(pair: Pair) -> Support:
    """Passages say "yes", "no" or nothing; the last such word counts."""
    words = [word for word in (w.strip(".") for w in pair.evidence.split()) if word in SAYS]
    return SAYS[words[-1]] if words else SAYS["hm"]


def passage(name: str, text: str, page: str = "") -> Passage:
    return Passage(id=name, source=page or name, title=page, text=text)


def row(
    name: str, gold: GoldLabel, texts: list[str], *, claim: str = "", group: str = "", source: str = "fever"
) -> LabelledClaim:
    """A claim with a passage for each text; those that are "yes" or "no" are right, each enough."""
    shown = ranked([passage(f"{name}-{i}", text) for i, text in enumerate(texts)])
    right = tuple(p for p in shown if p.text.split()[-1] != "hm") if gold != "neutral" else ()
    sets = tuple((p.id,) for p in right)
    return LabelledClaim(source, name, claim or f"claim {name}", gold, shown, right, sets, group or name)


def judged(one: LabelledClaim) -> JudgedClaim:
    """The row with what its passages say."""
    return JudgedClaim(one, tuple(said(Pair(p.text, one.claim, p.title)) for p in one.passages or ()))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def write_fever(folder: Path, claims: int = 60) -> tuple[Path, Path]:
    """A corpus, and claims of three labels whose deciding sentence is among five that are listed.

    Returns:
        The file of claims and the corpus.
    """
    words = {"SUPPORTS": "yes", "REFUTES": "no", "NOT ENOUGH INFO": "hm"}
    corpus: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for i in range(claims):
        label = list(words)[i % 3]
        ids = [f"s{i}-{j}" for j in range(5)]
        for j, name in enumerate(ids):
            text = f"topic{i} word{j} of number{i} {words[label] if j == i % 5 else 'hm'}"
            corpus.append({"id": name, "source": "fever", "page": f"Page {i} {j}", "sent_id": j, "text": text})
        gold = corpus[-5 + i % 5]
        evidence = [{"doc_id": gold["id"], "page": gold["page"], "sent_id": 0, "text": gold["text"]}]
        verifiable = label != "NOT ENOUGH INFO"
        rows.append(
            {
                "id": i,
                "claim": f"topic{i} is number{i}",
                "label": label,
                "evidence": evidence if verifiable else [],
                "evidence_sets": [[0]] if verifiable else None,
                "retrieved": ids,
            }
        )
    return write_lines(folder / "fever" / "dev.jsonl", rows), write_lines(folder / "corpus" / "sentences.jsonl", corpus)
