"""A pool of sentences grouped by the page they stand on: read, looked up by title, and written as documents.

A record of the pool is one JSON object a line: `id`, `text`, and where they are known `page` (the title), `page_source`
and `source`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reason.core.errors import DataError

_BRACKET = re.compile(r"\s*\(([^()]*)\)$")
_NOT_A_NAME = re.compile(r"[^\w]+")
LONGEST_STEM = 60
"""Characters of a title that a document's file name keeps."""


@dataclass(frozen=True)
class Sentence:
    """A sentence of the pool.

    Attributes:
        id: Its name, unique in the pool.
        page: Title of its page; None where the pool does not know it.
        text: What it says.
        source: Which of the pool's collections it is from.
    """

    id: str
    page: str | None
    text: str
    source: str = ""


@dataclass(frozen=True)
class Corpus:
    """The pool.

    Attributes:
        sentences: All of them, in the file's order.
        pages: Those of each title.
        titles: Titles by what they are without the bracket that tells namesakes apart ("Creed" of "Creed (film)").
    """

    sentences: tuple[Sentence, ...]
    pages: dict[str, tuple[Sentence, ...]] = field(init=False)
    titles: dict[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        pages: dict[str, list[Sentence]] = {}
        for sentence in self.sentences:
            if sentence.page is not None:
                pages.setdefault(sentence.page, []).append(sentence)
        titles: dict[str, list[str]] = {}
        for title in pages:
            titles.setdefault(bare(title), []).append(title)
        object.__setattr__(self, "pages", {k: tuple(v) for k, v in pages.items()})
        object.__setattr__(self, "titles", {k: tuple(v) for k, v in titles.items()})


def bare(title: str) -> str:
    """A title without its closing bracket."""
    return _BRACKET.sub("", title)


def bracket(title: str) -> str:
    """What stands in a title's closing bracket; empty if there is none."""
    found = _BRACKET.search(title)
    return found[1] if found else ""


def read_corpus(path: Path) -> Corpus:
    """Read a pool of sentences.

    Raises:
        DataError: A line is no record with an `id` and a `text`, an id occurs twice, or there is no sentence at all.
    """
    found: dict[str, Sentence] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                one = Sentence(
                    str(record["id"]),
                    _plain(record.get("page")) or None,
                    _plain(record["text"]),
                    record.get("source", ""),
                )
            except (ValueError, KeyError, AttributeError, TypeError) as wrong:
                raise DataError(f"{path} line {number}: no record with id and text ({wrong!r})") from None
            if one.id in found:
                raise DataError(f"{path} line {number}: the id {one.id!r} occurs twice")
            found[one.id] = one
    if not found:
        raise DataError(f"{path} holds no sentence")
    return Corpus(tuple(found.values()))


def _plain(text: str | None) -> str:
    """A text with each letter as one character, so that a title is the same wherever it stands (Unicode's NFC)."""
    return "" if text is None else unicodedata.normalize("NFC", text)


def write_documents(corpus: Corpus, folder: Path) -> int:
    """Write a text file for each page: its title, an empty line, then its sentences, one a line, each once.

    A sentence without a page gets a file of its own, named by its id and without a title.

    Args:
        corpus: The pool.
        folder: Where to; made if need be. What is in it already must be of an earlier call.

    Returns:
        The number of files.

    Raises:
        DataError: The folder holds files that this did not write; a brain would read them too.
    """
    made = {_file_name(title): _document([title, ""], of) for title, of in corpus.pages.items()}
    made |= {_file_name(s.id): _document([], [s]) for s in corpus.sentences if s.page is None}
    folder.mkdir(parents=True, exist_ok=True)
    foreign = sorted({p.name for p in folder.iterdir()} - set(made))
    if foreign:
        raise DataError(f"{folder} holds {len(foreign)} other files ({foreign[0]}, …); name an empty folder")
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    return len(made)


def _document(head: Sequence[str], sentences: Iterable[Sentence]) -> str:
    return "\n".join([*head, *dict.fromkeys(s.text.strip() for s in sentences)]) + "\n"


def _file_name(title: str) -> str:
    """Readable, and different for titles that differ in case or signs alone."""
    stem = _NOT_A_NAME.sub("-", title).strip("-")[:LONGEST_STEM]
    return f"{stem}-{hashlib.sha256(title.encode()).hexdigest()[:8]}.txt"
