"""Texts shortened from their middle until a prompt that holds them fits a model's context."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import JsonValue

from ..core.messages import Prompt
from ..core.run import Run
from ..serving.metered import MeteredModel
from .decisions import keep, recall

GAP = " […] "
LEAST = 40
"""Fewest characters that a shortened text keeps."""


def shortened(text: str, most: int) -> str:
    """A text of at most `most` characters: the longer one's beginning and end, a mark between the two.

    Args:
        text: The text.
        most: Most characters, at least those of the mark.
    """
    if len(text) <= most:
        return text
    kept = most - len(GAP)
    end = kept // 2
    return text[: kept - end] + GAP + (text[-end:] if end else "")


async def fit(
    model: MeteredModel,
    run: Run,
    make: Callable[[Sequence[str]], Prompt],
    texts: Sequence[str],
    reply_tokens: int,
) -> tuple[Prompt | None, int | None]:
    """The prompt that holds the texts, all of them shortened to the same length if it would not fit otherwise.

    What had to be shortened is noted in the run store, since a replay has no model that counts tokens. Where nobody can
    count, nothing is shortened.

    Args:
        model: Who reads the prompt.
        run: The run.
        make: Makes the prompt of the texts.
        texts: The texts.
        reply_tokens: Tokens that the reply takes.

    Returns:
        The prompt, None if it does not fit with the shortest texts either; and the most characters of a text that were
        kept, None if all are whole.
    """
    whole, limit = make(texts), model.capabilities.context_tokens
    if limit is None or not texts:
        return whole, None

    def fits(prompt: Prompt) -> bool | None:
        tokens = model.count_tokens(prompt)
        return None if tokens is None else tokens + reply_tokens <= limit

    what: dict[str, JsonValue] = {"fit": whole.model_dump(mode="json"), "reply_tokens": reply_tokens}
    found = fits(whole)
    if found is None:
        kept = (await recall(run, model, what) or {}).get("kept")
        if not isinstance(kept, int):
            return whole, None
        return (_with(make, texts, kept), kept) if kept else (None, None)
    if found:
        return whole, None
    # the most characters that fit, by bisection: `low` fits, `high` does not
    low, high = 0, max(map(len, texts))
    if fits(_with(make, texts, LEAST)):
        low = LEAST
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(_with(make, texts, middle)) else (low, middle)
    await keep(run, model, what, {"kept": low})
    return (_with(make, texts, low), low) if low else (None, None)


def _with(make: Callable[[Sequence[str]], Prompt], texts: Sequence[str], most: int) -> Prompt:
    return make([shortened(text, most) for text in texts])
