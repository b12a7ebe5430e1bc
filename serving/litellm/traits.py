"""`Traits`: what is known of a model beyond its capabilities; it decides how requests are put."""

from __future__ import annotations

from ...core.messages import Frozen


class Traits(Frozen):
    """How a model takes requests.

    Attributes:
        many: Whether n samples can be asked for in one request; on vLLM it was also measured that sample i of a request
            with seed s is the sample of seed s + i.
        vllm: Whether vLLM's own fields work: reply prefixes, token ids, top_k, ignore_eos.
        tokenizer: Whether `/tokenize` works, so that prompts can be sent as tokens.
        prefill: Whether a last message of the assistant is continued (documented, for other providers).
        wants_usage: Whether the stream is asked for its usage.
        reports: Whether the server hands out what hooks measured (`serving/vllm/endpoint.py`).
        frame_tokens: Most tokens that a chat template is known to put around one short message; a longer prompt may
            need the exact count to see whether it fits. 0 if unknown.
    """

    many: bool = False
    vllm: bool = False
    tokenizer: bool = False
    prefill: bool = False
    wants_usage: bool = True
    reports: bool = False
    frame_tokens: int = 0
