"""A page of HTML as its elements and texts."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any


class Read(HTMLParser):
    """The page's elements, and the text of each kind of element; tags must be closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def scripts(self) -> tuple[list[str], list[str]]:
        """Texts of the scripts that run, and of those that are data."""
        kinds = [attrs.get("type") for tag, attrs in self.elements if tag == "script"]
        texts = self.texts.get("script", [])
        assert len(kinds) == len(texts)
        pairs = list(zip(kinds, texts, strict=True))
        return [t for kind, t in pairs if kind is None], [t for kind, t in pairs if kind == "application/json"]


def carried(page: str) -> Any:
    """What a page of the viewer carries: its one piece of JSON."""
    _, (data,) = Read(page).scripts()
    return json.loads(data)
