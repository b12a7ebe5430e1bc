"""Small files of labelled claims in the datasets' formats: towns, their years and what was built there."""

from __future__ import annotations

import json
from pathlib import Path

TOWNS = [f"Town{a}{b}" for a in "abcdefgh" for b in "klmnop"]


def write_claims(folder: Path) -> dict[str, Path]:
    """Write `fever`, `vitaminc`, `fever_symmetric` and `corpus`; returns their paths."""
    sentences, fever, vitaminc, symmetric = [], [], [], []
    for i, town in enumerate(TOWNS):
        year = 1800 + 3 * i
        gold = {"id": f"s{i}", "page": town, "text": f"It was founded in {year} by settlers from Spain."}
        sentences += [
            gold,
            {"id": f"t{i}", "page": town, "text": f"{town} is a small town with a harbour, near the sea."},
        ]
        for label, said in (("SUPPORTS", year), ("REFUTES", year + 40), ("NOT ENOUGH INFO", None)):
            claim = f"{town} was founded in {said}." if said else f"{town} was painted by Goya in {year}."
            evidence = [{"doc_id": gold["id"], **gold}] if said else []
            sets = [[0]] if said else []
            row = {"id": f"{i}{label[0]}", "claim": claim, "label": label, "evidence": evidence, "evidence_sets": sets}
            fever.append({**row, "retrieved": [f"s{i}", f"t{i}"]})
        for label, people in (("SUPPORTS", 120), ("REFUTES", 80)):
            row = {
                "id": f"v{i}{label[0]}",
                "case_id": f"c{i}",
                "claim": f"{town} has more than 100 people.",
                "label": label,
            }
            vitaminc.append({**row, "evidence": f"{town} has {people} people.", "page": town})
    for i, town in enumerate(TOWNS[:6]):
        for label, year in (("SUPPORTS", 1800 + 3 * i), ("REFUTES", 1900)):
            row = {"id": f"y{i}{label[0]}", "claim": f"{town} was founded in {1800 + 3 * i}.", "label": label}
            symmetric.append({**row, "evidence": f"{town} was founded in {year}.", "base_id": f"{i}S"})
    files = {"fever": fever, "vitaminc": vitaminc, "fever_symmetric": symmetric, "corpus": sentences}
    paths = {}
    for name, rows in files.items():
        paths[name] = folder / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths
