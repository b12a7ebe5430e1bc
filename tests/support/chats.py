"""Messages of chats as clients of the APIs send them."""

from __future__ import annotations

from typing import Any


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
