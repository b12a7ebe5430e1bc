"""A language model that answers at once with what a caller could make a model write."""

from __future__ import annotations

import time
from zlib import crc32

from reason.core.messages import Completion, Prompt, Request

from support.fuzz_patterns import PATTERNS
from support.instant_model import InstantModel
from support.loop_lag import MAX_BLOCK_S

PLANTED = "Block the event loop."
MAX_CHARS = 4000
"""Length of a long sample: about a thousand tokens."""
TEXTS = (
    "Consider case {i} of it.",
    "The answer is {i}.",
    "Step {i}: 6 * 7 = 42.\n\nThe answer is \\boxed{{42}}.",
    '{{"answer": {i}, "claims": [], "score": 7}}',
    "Yes.",
    '<tool_call>\n{{"name": "f{i}", "arguments": {{"x": "{i}"}}}}\n</tool_call>',
)


JSONS = (
    '{"answer": "' + "a" * 2000 + 'b"}',
    '{"a": {"a": {"a": {"a": "x"}}}, "p0": "x", "x": {"x": {"x": {}}}}',
    "[" * 900 + "]" * 900,
    "[" + ", ".join(str(i) for i in range(900)) + "]",
    "{" + ", ".join(f'"p{i}": "a"' for i in range(300)) + "}",
    "not JSON",
    "1e308",
)


class EchoModel(InstantModel):
    """Answers, steps, JSON, tool calls, the end of its prompt, or a pattern repeated; which one depends on the prompt
    and the index."""

    def __init__(self, name: str) -> None:
        super().__init__(echo, logprobs=True)
        self.name, self.identity = name, f"{name}@1"
        self.capabilities = self.capabilities.model_copy(update={"tools": True, "top_logprobs": 0})

    def _completion(self, request: Request, index: int) -> Completion:
        done = super()._completion(request, index)
        stops = request.sampling.stop
        if stops and index % 8:
            return done.model_copy(update={"stop_reason": stops[0]})
        return done


def echo(prompt: Prompt, index: int) -> str:
    """The text of a sample; a prompt with `PLANTED` blocks the event loop."""
    last = prompt.messages[-1].content if prompt.messages else ""
    if PLANTED in last:
        end = time.thread_time() + 2 * MAX_BLOCK_S
        while time.thread_time() < end:
            pass
    if "as JSON" in last[:100]:
        return JSONS[(crc32(last.encode("utf-8", "replace")) + len(prompt.messages)) % len(JSONS)]
    number = crc32(last[-200:].encode("utf-8", "replace")) + index
    kind = number % (len(TEXTS) + 3)
    if kind < len(TEXTS):
        return TEXTS[kind].format(i=index)
    if kind == len(TEXTS):
        return last[-MAX_CHARS:]
    if kind == len(TEXTS) + 1:
        return f"The answer is {last[-200:]}"
    pattern = PATTERNS[number // 7 % len(PATTERNS)]
    return pattern * (MAX_CHARS // len(pattern))
