r"""Multi-hop questions from a pool of encyclopaedia sentences, by patterns and rules alone; no language model is asked.

A *bridge* question tells of a page by what another page says of it: "In which year was the director of the 2013 film
"Brick" born?" needs a sentence that names the director and a sentence on the director's page. A *comparison* needs a
fact of two pages. Every candidate is reviewed by rules (`multihop_review`); how many each rule refused is printed. The
same pool gives the same questions, byte by byte.

    python benchmarks/multihop_questions.py --corpus sentences.jsonl --out questions.jsonl --documents docs/ \\
        [--count 80] [--most 12] [--source fever]

The questions are rows of the dataset `file` (`reason eval questions.jsonl`): `question`, `answer` (the right answer and
other ways to write it), `id`, `subject` (the type); besides `gold_sentences`, `gold_pages`, `bridge` and `hops`.
`--documents` writes the whole pool as text files, one a page, for a brain that has to find the pages. Neither the pool
nor what is made of it belongs into the repository.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from multihop_candidates import Candidate, bridges, comparisons
from multihop_corpus import Corpus, Sentence, read_corpus, write_documents
from multihop_review import Review

COMPARED = 0.35
"""Largest share of comparisons."""


def choose(candidates: Iterable[Candidate], count: int, most: int, refused: Counter[str]) -> list[Candidate]:
    """Take reviewed candidates in the order of their hashes, a type after the other in turn.

    Args:
        candidates: Candidates that no rule refuses.
        count: How many are wanted.
        most: Most of one type.
        refused: Counts what was left out, by why; added to.

    Returns:
        At most `count`, in the order of their hashes. No page is in two of them.
    """
    waiting: dict[str, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: c.id):
        waiting.setdefault(candidate.type, []).append(candidate)
    sizes = {name: (len(of), name) for name, of in waiting.items()}
    are_compared = {name: of[0].is_comparison for name, of in waiting.items()}
    taken: list[Candidate] = []
    used: set[str] = set()
    # bridges before comparisons, which can be made of any pages; the rarest type first, lest others use up its pages
    for compared in (False, True):
        types = sorted((t for t in waiting if are_compared[t] == compared), key=sizes.__getitem__)
        left = int(COMPARED * count) if compared else count
        enough = dict.fromkeys(types, most)
        while any(waiting[t] for t in types):
            for name in types:
                one = _next(waiting[name], used, refused)
                if one is None:
                    continue
                if enough[name] == 0 or left == 0 or len(taken) == count:
                    refused["enough of its type" if enough[name] == 0 else "enough questions"] += 1
                    continue
                taken.append(one)
                used.update(one.pages)
                enough[name] -= 1
                left -= 1
    return sorted(taken, key=lambda c: c.id)


def _next(waiting: list[Candidate], used: set[str], refused: Counter[str]) -> Candidate | None:
    """The first candidate of which no page is used; those before it are refused. None if there is none left."""
    while waiting:
        one = waiting.pop(0)
        if not used & set(one.pages):
            return one
        refused["a page is in another question"] += 1
    return None


def row_of(one: Candidate) -> dict[str, Any]:
    """A question as a row of the dataset `file`."""
    return {
        "id": one.id,
        "question": one.question,
        "answer": list(one.answers),
        "subject": one.type,
        "kind": "comparison" if one.is_comparison else "bridge",
        "bridge": one.bridge,
        "gold_sentences": [s.id for s in one.sentences],
        "gold_pages": list(one.pages),
        "hops": [
            {"page": s.page, "relation": how, "sentence": s.text}
            for s, how in zip(one.sentences, one.hops, strict=True)
        ],
    }


def build(
    corpus: Corpus, count: int, most: int, sources: Sequence[str] = ()
) -> tuple[list[Candidate], Counter[str], int]:
    """Make the questions.

    Args:
        corpus: The pool. All of it is looked at by the rules.
        count: How many are wanted; there may be fewer.
        most: Most of one type.
        sources: Collections that gold sentences may be from; empty for all.

    Returns:
        The questions, how many candidates each rule refused, and how many candidates there were.
    """

    def may_be_gold(sentence: Sentence) -> bool:
        return sentence.page is not None and (not sources or sentence.source in sources)

    review = Review(corpus)
    found = [*bridges(corpus, may_be_gold), *comparisons(corpus, may_be_gold)]
    refused: Counter[str] = Counter()
    passed: list[Candidate] = []
    for one in found:
        why = review.refuses(one)
        if why:
            refused[why] += 1
        else:
            passed.append(one)
    return choose(passed, count, most, refused), refused, len(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the pool, write questions and documents, and tell on standard error what was refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="sentences as JSON lines: id, page, text, source")
    parser.add_argument("--out", type=Path, required=True, help="where the questions go")
    parser.add_argument("--documents", type=Path, help="folder for the pool as documents, a file a page")
    parser.add_argument("--count", type=int, default=80, help="how many questions are wanted")
    parser.add_argument("--most", type=int, default=12, help="most questions of one type")
    parser.add_argument("--source", action="append", default=[], help="collection of gold sentences; may be repeated")
    given = parser.parse_args(arguments)
    if given.count < 1 or given.most < 1:
        parser.error("--count and --most must be at least 1")
    corpus = read_corpus(given.corpus)
    questions, refused, candidates = build(corpus, given.count, given.most, given.source)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row_of(one), ensure_ascii=False) + "\n" for one in questions]
    given.out.write_text("".join(lines), encoding="utf-8")
    print(f"{len(questions)} questions of {candidates} candidates; refused:", file=sys.stderr)
    for why, how_many in refused.most_common():
        print(f"  {how_many:6} {why}", file=sys.stderr)
    for name, how_many in sorted(Counter(one.type for one in questions).items()):
        print(f"  {how_many:6} of type {name}", file=sys.stderr)
    if given.documents is not None:
        print(f"{write_documents(corpus, given.documents)} documents in {given.documents}", file=sys.stderr)


if __name__ == "__main__":
    main()
