"""`shortened`: the sentences of a snippet that bear most on what is asked, as many as may be quoted."""

from __future__ import annotations

from ..memory.content_words import content_words
from ..sentences import sentence_spans

GAP = " … "
"""What stands where sentences were left out."""


def shortened(text: str, about: str, most: int) -> str:
    """A text that is too long, without the sentences that have least to do with what is asked.

    Whole sentences only, in their order: half a fact may be false. A heading on a line of its own is a sentence. Those
    with most content words of `about` stay, of equals the earlier, as long as they fit.

    Args:
        text: The snippet.
        about: Question and step.
        most: Most tokens (see `approximate_tokens`).

    Returns:
        The text itself if it is short enough; empty if not one of its sentences is.
    """
    if approximate_tokens(text) <= most:
        return text
    sentences = [text[start:end] for start, end in sentence_spans(text)]
    asked = content_words(about)
    by_bearing = sorted(range(len(sentences)), key=lambda i: (-len(content_words(sentences[i]) & asked), i))
    kept: list[int] = []
    for i in by_bearing:
        if approximate_tokens(_joined(sentences, wider := sorted([*kept, i]))) <= most:
            kept = wider
    return _joined(sentences, kept)


def approximate_tokens(text: str) -> int:
    """About so many tokens: one for four bytes, whoever's tokens they are.

    Not what a model's tokenizer counts, on purpose: a replay has none, and must leave out what its run left out.
    """
    return len(text.encode("utf-8", "replace")) // 4 + 1


def _joined(sentences: list[str], kept: list[int]) -> str:
    parts: list[str] = []
    for at, i in enumerate(kept):
        if at:
            parts.append(" " if kept[at - 1] == i - 1 else GAP)
        parts.append(sentences[i])
    return "".join(parts)
