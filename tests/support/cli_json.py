"""The JSON that commands print, as the values of the SDK: without what only the commands add."""

from __future__ import annotations

import json

from reason.agents.verification import TextVerification
from reason.core.types import Answer

ADDED = ("question", "choices", "limits")


def printed_answer(out: str) -> Answer:
    """The answer that `reason ask --json` printed."""
    fields = {name: value for name, value in json.loads(out).items() if name not in ADDED}
    return Answer.model_validate({**fields, **{n: fields[n] or "" for n in ("calibration", "selected_strategy")}})


def printed_verification(out: str) -> TextVerification:
    """The verification that `reason verify --json` printed."""
    fields = {name: value for name, value in json.loads(out).items() if name not in ("limits", "stopped_by")}
    return TextVerification.model_validate({**fields, "question": fields["question"] or ""})
