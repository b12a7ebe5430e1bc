"""How a model thinks, from what its chat template renders with and without the arguments that are usual for it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Final, NamedTuple

from pydantic import JsonValue

from .profiles.profile import switch_efforts
from .thoughts import COMMON_TAGS

SWITCHES: Final = ("enable_thinking", "thinking")
"""Arguments by which chat templates turn thinking on and off: Qwen, GLM, Gemma, SmolLM; DeepSeek, Kimi, Granite."""
RENDERS: Final[Mapping[str, Mapping[str, JsonValue]]] = {
    "default": {},
    **{f"{name}={str(value).lower()}": {name: value} for name in SWITCHES for value in (True, False)},
}
"""Names of the renders of one conversation, with the arguments of the chat template of each."""
_GEMMA_MARK, _GEMMA_TAGS = "<|think|>", ("<|channel>thought\n", "<channel|>")
"""Gemma's template asks for a thought in the system message, and may leave the assistant's turn as it is."""
_HARMONY_END, _HARMONY_HEAD = "<|start|>assistant", "<|channel|>"


class _Tail(NamedTuple):
    """The end of a render: a thought that is open or closed, with its tags as they are written; or none."""

    state: str = "none"
    tags: tuple[str, str] = ("", "")
    open_tag: str = ""
    close_tag: str = ""


def profile_of_renders(renders: Mapping[str, str]) -> dict[str, JsonValue]:
    """The fields of a profile (`ModelProfile`) that a chat template shows; empty if it shows nothing.

    The tags are those that the template writes, white space included, so that `open_tag + close_tag` is an empty
    thought as the model knows it.

    Args:
        renders: A conversation of one user message up to the start of the assistant's turn, by the name of the
            arguments (`RENDERS`); those that could not be rendered are missing, except for "default".
    """
    default = renders["default"]
    if default.rstrip().endswith(_HARMONY_END) and "analysis" in default:
        efforts = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "max": "high"}
        return {
            "thinks": "always",
            "thought": "channel",
            "efforts": {effort: _reasoning_effort(sent) for effort, sent in efforts.items()},
        }
    for switch in SWITCHES:
        on, off = renders.get(f"{switch}=true"), renders.get(f"{switch}=false")
        if on is None or off is None or on == off:
            continue
        tail_on, tail_off = _tail(on), _tail(off)
        if tail_on.state == tail_off.state == "none" and not (_GEMMA_MARK in on and _GEMMA_MARK not in off):
            continue  # the difference need not be about thoughts
        if tail_on.state == "closed" or tail_off.state == "open":
            continue
        is_default = default == on or (default != off and _tail(default).state != "closed")
        return {
            "thinks": "default" if is_default else "opt-in",
            "efforts": switch_efforts(switch),
            **_tags(tail_on, tail_off),
            "opened_by_template": tail_on.state == "open",
        }
    tail = _tail(default)
    if tail.state == "open":
        return {"thinks": "always", **_tags(tail), "opened_by_template": True}
    if tail.state == "closed":
        return {"thinks": "never", **_tags(tail)}
    return {}


def _reasoning_effort(effort: str) -> JsonValue:
    return {"reasoning_effort": effort, "chat_template_kwargs": {"reasoning_effort": effort}}


def _tail(render: str) -> _Tail:
    """The thought at the end of a render."""
    text = render.rstrip()
    space = render[len(text) :]
    for tags in COMMON_TAGS:
        opening, closing = tags[0].strip(), tags[1].strip()
        if text.endswith(opening):
            return _Tail("open", tags, opening + space)
        if text.endswith(closing):
            before = text[: -len(closing)]
            inner = before[len(before.rstrip()) :]
            if not before.rstrip().endswith(opening):
                return _Tail("closed", tags, "", closing + space)
            half = (len(inner) + 1) // 2
            return _Tail("closed", tags, opening + inner[:half], inner[half:] + closing + space)
    return _Tail()


def _tags(*tails: _Tail) -> dict[str, JsonValue]:
    """The tags of the first tail that has any; of an empty thought, where one tail shows it, the complete text."""
    shown = [tail for tail in tails if tail.state != "none"]
    if not shown:
        return {"thought": "tags", "open_tag": _GEMMA_TAGS[0], "close_tag": _GEMMA_TAGS[1]}
    opening = next((tail.open_tag for tail in shown if tail.state == "open"), "")
    empty = next((tail.open_tag + tail.close_tag for tail in shown if tail.open_tag and tail.close_tag), "")
    closing = next((tail.close_tag for tail in shown if tail.close_tag), "")
    if empty and opening:
        shared = zip(opening, empty, strict=False)
        opening = opening[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], shared))]
        closing = empty[len(opening) :]
    elif empty:
        opening = next(tail.open_tag for tail in shown if tail.open_tag and tail.close_tag)
    plain = shown[0].tags
    return {"thought": "tags", "open_tag": opening or plain[0], "close_tag": closing or plain[1]}
