"""How a sample on vLLM ends, without vLLM: outputs like its engine's, over tokens that are characters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from reason.core.messages import Completion, Prompt, Request, SamplingParams
from reason.serving.profiles.profile import ModelProfile
from reason.serving.vllm.generation import CompletionBuilder

END = 2


class Characters:
    """Stands for the tokenizer of a model that never thinks: a token is a character."""

    profile = ModelProfile()

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def grown(*outputs: tuple[str, str | None], report: dict[str, Any] | None = None, **sampling: Any) -> Completion:
    """The sample made of outputs, each the new tokens as characters and vLLM's finish reason."""
    request = Request(prompt=Prompt(text="a"), sampling=SamplingParams(**sampling))
    growing = CompletionBuilder(request, 0, 0, [ord("a")], frozenset({END}), Characters())
    for text, finish in outputs:
        made = SimpleNamespace(token_ids=list(map(ord, text)), logprobs=None, finish_reason=finish)
        growing.add(SimpleNamespace(num_cached_tokens=0, metrics=None, outputs=[made]))
        if growing.finish_reason is not None:
            break
    return growing.build(report)


@pytest.mark.parametrize(
    ("outputs", "text", "reason", "stopped_by"),
    [
        ([("one,", None), (" two", None)], "one", "stop", ", "),
        ([("one;, two", None)], "one", "stop", ";"),
        ([("one", None), (";" + chr(END), "stop")], "one", "stop", ";"),
        ([("one", None), (chr(END), "stop")], "one", "stop", ""),
        ([("one,", None), (chr(END), "stop")], "one,", "stop", ""),
        ([("one", None), ("", "stop")], "one", "stop", ""),
        ([("one;", "length")], "one", "stop", ";"),
        ([("one", "length")], "one", "length", None),
        ([("one", "abort")], "one", "cancelled", None),
        ([("one", None)], "one", "cancelled", None),
    ],
)
def test_a_sample_reports_whether_a_stop_string_or_the_model_ended_it(outputs, text, reason, stopped_by):
    made = grown(*outputs, stop=(", ", ";"))
    assert (made.text, made.finish_reason, made.stop_reason) == (text, reason, stopped_by)


def test_a_sample_that_ignores_eos_stops_only_by_length():
    made = grown((chr(END) + "x", "length"), ignore_eos=True)
    assert (made.finish_reason, made.stop_reason, made.token_ids) == ("length", None, (END, ord("x")))


def test_a_sample_whose_logits_processor_failed_was_stopped_by_nothing():
    made = grown((chr(END), "stop"), report={"extras": {}, "failure": ["user_error", "no"]})
    assert (made.finish_reason, made.stop_reason) == ("error", None)
