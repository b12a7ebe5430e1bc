"""Chat templates of self-hosted models: a conversation as text, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from support.wires.kinds import Kind
from support.wires.script import Body, content_of


@dataclass(frozen=True)
class State:
    """Where a response begins: (thought so far, whether it is open; None if there is none), and the answer so far."""

    thought: str | None
    is_open: bool
    answer: str


def render(kind: Kind, messages: Sequence[Body], body: Body) -> str:
    """The prompt as the chat template renders it."""
    continued = bool(body.get("continue_final_message"))
    turns = list(messages[:-1] if continued else messages)
    if kind.is_harmony:
        start, middle, end = "<|start|>", "<|message|>", "<|end|>"
        effort = (body.get("chat_template_kwargs") or {}).get("reasoning_effort") or body.get("reasoning_effort")
        system = f"Reasoning: {effort or 'medium'}\n\n# Valid channels: analysis, commentary, final."
        parts = [f"{start}system{middle}{system}{end}"]
        parts += [f"{start}{m['role']}{middle}{content_of(m)}{end}" for m in turns]
        head = f"{start}assistant"
    else:
        parts = [f"<|im_start|>{m['role']}\n{content_of(m)}<|im_end|>\n" for m in turns]
        head = "<|im_start|>assistant\n"
    text = "".join(parts)
    if continued:
        prefix = content_of(messages[-1]).strip()  # chat templates commonly strip what they are given
        if kind.is_harmony:
            return f"{text}{head}<|channel|>final<|message|>{prefix}"
        empty = "<think>\n\n</think>\n\n" if kind.inserts_empty_thought else ""
        return f"{text}{head}{empty}{prefix}"
    if not body.get("add_generation_prompt", True):
        return text
    if kind.template_opens:
        return f"{text}{head}<think>\n"
    if kind.inserts_empty_thought and not kind.is_thinking(body):
        return f"{text}{head}<think>\n\n</think>\n\n"
    return text + head


def state(kind: Kind, rendered: str) -> tuple[list[Body], State]:
    """The conversation of a rendered prompt, and where the response begins."""
    if kind.is_harmony:
        body, _, tail = rendered.rpartition("<|end|><|start|>assistant")
        if tail.startswith("<|channel|>final") and body.rfind("<|channel|>analysis") > body.rfind("<|start|>user"):
            body, _, before = body.rpartition("<|start|>assistant")
            tail = f"{before}<|end|><|start|>assistant{tail}"
        turns = re.findall(r"<\|start\|>(\w+)<\|message\|>(.*?)(?=<\|end\|>|$)", body, re.S)
    else:
        body, _, tail = rendered.rpartition("<|im_start|>assistant\n")
        turns = re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", body, re.S)
    messages = [{"role": role, "content": content} for role, content in turns] or [
        {"role": "user", "content": rendered}
    ]
    if not turns:
        return messages, State(None, False, rendered)
    opens, closes = kind.tags
    if closes in tail:
        before, _, after = tail.partition(closes)
        return messages, State(before.partition(opens)[2], False, after.lstrip("\n"))
    if opens in tail:
        return messages, State(tail.partition(opens)[2], True, "")
    final = "<|channel|>final<|message|>"  # answers without a thought
    return messages, State("" if tail.startswith(final) else None, False, tail.removeprefix(final))
