"""Passages as a judge reads them: without instructions to it, and with a title that states something; `fill_up`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from ...reasoning.knowledge import Passage
from ..injection import without_instructions
from ..types import Pair

_FILE_NAME = re.compile(
    r".*\.(?:txt|md|markdown|rst|html?|pdf|json|jsonl|csv|tsv|xml|docx?|odt|rtf|log|tex|yaml|yml|toml)", re.IGNORECASE
)


@lru_cache(maxsize=8192)
def _clean(text: str) -> str:
    """A text without instructions to its judge, of the same length; cached, since claims share passages."""
    return without_instructions(text)


def judged_claim(claim: str) -> str:
    """The claim as it is judged: without instructions to the judge, unless it is nothing else."""
    clean = _clean(claim)
    return claim if clean == claim else " ".join(clean.split()) or claim


def judged_passage(passage: Passage) -> Passage:
    """The passage as it is judged, compared and shown; its text has the length of the original.

    Instructions to the judge are blank in text and title, and a title that is the name of a file, which states nothing,
    is left out.
    """
    title = "" if _FILE_NAME.fullmatch(passage.title) else _clean(passage.title)
    title = title if title == passage.title else " ".join(title.split())
    text = _clean(passage.text)
    if (title, text) == (passage.title, passage.text):
        return passage
    return passage.model_copy(update={"title": title, "text": text})


def judged_pair(claim: str, passage: Passage) -> Pair:
    """A passage and a claim as the judge reads them."""
    judged = judged_passage(passage)
    return Pair(judged.text, judged_claim(claim), judged.title)


def fill_up(retrieved: Sequence[Passage], passages: Sequence[Passage], k: int) -> list[Passage]:
    """The first k retrieved passages; where fewer were, the others of a document follow in its order, with score 0.

    A claim may share no word with the passage that decides it ("You can't get your wine paid for", "Alcohol is not
    reimbursed"), and a document of few passages can be read completely.
    """
    known = {passage.id for passage in retrieved}
    others = [passage.model_copy(update={"score": 0.0}) for passage in passages if passage.id not in known]
    return [*retrieved, *others][:k]
