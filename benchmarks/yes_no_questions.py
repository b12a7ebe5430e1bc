r"""Yes-no questions that need two facts and a comparison, made from the comparisons of `multihop_questions.py`.

    python benchmarks/multihop_questions.py --corpus sentences.jsonl --source fever --count 1000 --most 100 \
        --out many.jsonl --documents docs/
    python benchmarks/yes_no_questions.py many.jsonl --out yes_no.jsonl

"Who was born later, A or B?" becomes "Was A born later than B?", a question of StrategyQA's kind: its steps are not in
the wording. A hash of the question's id decides which is named first, so that about half of the answers are yes. The
rows are a custom dataset with `answer_kind` "yes_no". Neither the pool nor the questions belong into the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

WORDINGS = {
    "Who was born": "Was {a} born {when} than {b}?",
    "Which film was released": "Was the film {a} released {when} than the film {b}?",
    "Which band was formed": "Was the band {a} formed {when} than the band {b}?",
}
_EITHER = re.compile(r"(?P<asks>[A-Z][\w ]+?) (?P<when>first|earlier|later), (?P<a>.+) or (?P<b>.+)\?")


def main() -> int:
    """Write the questions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=Path, help="what multihop_questions.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="where the yes-no questions go")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.questions.read_text(encoding="utf-8").splitlines()]
    made = list(yes_no(rows))
    args.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    print(f"{len(made)} questions, {dict(Counter(row['answer'] for row in made))}", file=sys.stderr)
    return 0


def yes_no(rows: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """The yes-no questions, in the order of the rows; rows that are no comparison are left out."""
    for row in rows:
        if row.get("kind") != "comparison":
            continue
        answers = [str(answer) for answer in row["answer"]]
        if set(answers) <= {"yes", "no"}:
            yield made_row(row, row["question"], answers[0])
            continue
        result = _EITHER.fullmatch(row["question"])
        wording = None if result is None else WORDINGS.get(result["asks"])
        if result is None or wording is None:
            continue
        pair = [result["a"], result["b"]]
        right = [name for name in pair if name.strip('"') in answers]
        if len(right) != 1:
            continue
        if hashlib.sha256(row["id"].encode()).digest()[0] % 2:
            pair.reverse()
        when = "earlier" if result["when"] == "first" else result["when"]
        yield made_row(row, wording.format(a=pair[0], b=pair[1], when=when), "yes" if pair[0] == right[0] else "no")


def made_row(row: Mapping[str, Any], question: str, answer: str) -> dict[str, Any]:
    """A line of the file."""
    return {"id": row["id"], "question": question, "answer": answer, "answer_kind": "yes_no", "subject": row["subject"]}


if __name__ == "__main__":
    sys.exit(main())
