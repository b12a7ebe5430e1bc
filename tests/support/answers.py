"""An answer of a run that has nothing worth telling, but for what a test says."""

from __future__ import annotations

from typing import Any

from reason.core.types import Answer, RunUsage


def plain_answer(answer: str = "42", **fields: Any) -> Answer:
    known: dict[str, Any] = {
        "answer": answer,
        "text": answer,
        "strategy": "cot",
        "model": "m",
        "confidence": None,
        "stopped": "done",
        "candidates": (),
        "verification": None,
        "usage": RunUsage(),
        "run_id": "r",
        "seed": 1,
    }
    return Answer(**known | fields)
