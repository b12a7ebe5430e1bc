"""What measuring finds: `Finding`, one line of the table of capabilities, and `Speed`."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from ...core.messages import Frozen

State = Literal["ok", "differs", "more", "declared"]


class Finding(Frozen):
    """One capability: what the model says of it, and what a request showed.

    Attributes:
        feature: Its name, as in `Capabilities`; a hook is `hook <name>`.
        declared: What the model says.
        measured: What was seen; None if nothing was measured.
        state: "ok": as declared. "differs": declared and not there. "more": there and not declared, which misleads
            nobody. "declared": not measured.
        note: Figures, or why it was not measured.
    """

    feature: str
    declared: JsonValue
    measured: JsonValue = None
    state: State
    note: str = ""


class Speed(Frozen):
    """How fast a model is, for one short look; not a benchmark.

    Attributes:
        prompt_tokens_per_s: Tokens of a fresh prompt a second, its first new token included; None if nothing says how
            many tokens it has.
        decode_tokens_per_s: New tokens a second of one sample, without its first.
        batch_tokens_per_s: Likewise of all samples of a batch together.
        batch: Samples of that batch.
    """

    prompt_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    batch_tokens_per_s: float | None
    batch: int


def judged(feature: str, declared: bool, measured: bool, note: str = "") -> Finding:
    """The finding on a capability that is there or not."""
    state: State = "ok" if declared == measured else "differs" if declared else "more"
    return Finding(feature=feature, declared=declared, measured=measured, state=state, note=note)


def unmeasured(feature: str, declared: JsonValue, note: str) -> Finding:
    """The finding on a capability that was not measured."""
    return Finding(feature=feature, declared=declared, state="declared", note=note)
