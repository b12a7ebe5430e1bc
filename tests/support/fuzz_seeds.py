"""The inputs that a fuzzer begins with, and those that once broke a target, by target."""

from __future__ import annotations

import json
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
LONGEST = 200


def seeds(target: str) -> list[bytes]:
    """Seed inputs of a target: those in fuzz/seeds and fuzz/found, and for extraction short texts of its corpus."""
    files = [path for kind in ("seeds", "found") for path in sorted((TESTS / "fuzz" / kind / target).glob("*"))]
    inputs = [path.read_bytes() for path in files]
    if target == "answer_extraction":
        lines = (TESTS / "reasoning" / "nasty_outputs.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [text for text in (json.loads(line)["text"] for line in lines) if len(text) < LONGEST]
        inputs += [f"{n % 6}{text}".encode("utf-8", "surrogatepass") for n, text in enumerate(texts)]
    return inputs
