"""`Check`: one finding of `reason doctor`."""

from __future__ import annotations

from typing import Literal, NamedTuple

State = Literal["ok", "note", "fail"]


class Check(NamedTuple):
    """One finding.

    Attributes:
        name: What was looked at.
        state: "ok"; "note" is worth knowing and stops nothing; "fail" is something installed, or chosen, that does not
            work.
        detail: What was found.
        hint: What to do about it; empty if nothing.
    """

    name: str
    state: State
    detail: str
    hint: str = ""
