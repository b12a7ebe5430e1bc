"""What the pages presuppose: files, programs, and results of earlier commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from support.doc_blocks import ROOT
from support.doc_session import CommandForkServer, PageSession

NAVIGATOR = ROOT / "reasoning" / "rlot" / "default.safetensors"
MODELS = {
    "docs/quick-start.md": "real",
    "docs/json-schemas.md": "real",
    "docs/calibration.md": "scripted",
    "docs/choosing-a-strategy.md": "scripted",
    "docs/cli.md": "scripted",
    "docs/measuring-a-strategy.md": "scripted",
    "docs/routers.md": "scripted",
    "docs/sampling.md": "scripted",
    "docs/recipes/agents.md": "agent",
}
"""Replacement of the models by page; default: a tiny Llama."""

ITEMS = {
    "docs/calibration.md": 24,
    "docs/choosing-a-strategy.md": 44,
    "docs/measuring-a-strategy.md": 24,
    "docs/routers.md": 24,
    "docs/sampling.md": 24,
}
"""Number of records of each hub dataset by page; default: two."""


def _lines(*records: Mapping[str, object]) -> str:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)


def _sums(n: int) -> list[dict[str, object]]:
    return [
        {"id": f"s{i}", "question": f"Ann has {i} apples and buys 2. How many?", "answer": f"So\n#### {i + 2}"}
        for i in range(1, n + 1)
    ]


FILES = {
    "answer.txt": "Paris is the capital of France. It has 9 million inhabitants.\n",
    "answer.md": "```python\ndef is_leap(year):\n    return year % 4 == 0\n```\n",
    "tests.py": "assert is_leap(2000)\nassert not is_leap(1900)\n",
    "report.txt": "It was decided to build the bridge.\n",
    "question.txt": "What is the capital of France?\n",
    "handbook.md": "# Handbook\n\nParis has 2.1 million inhabitants.\n",
    "notes/europe.md": "# Europe\n\nParis is the capital of France. The bridge was built in 1932.\n",
    "docs/install.md": "# Install\n\nThe install guide was written by Ann. Prefixes are pinned by name.\n",
    "docs/towers.md": "# Towers\n\nThe Eiffel Tower was finished in 1889.\n",
    "quiz.csv": "ask,right,A,B,C,D\nWhich can fly?,B,pig,owl,cow,dog\n",
    "gsm8k.jsonl": _lines(*_sums(2)),
    "train.jsonl": _lines(*_sums(3)),
    "questions.jsonl": _lines({"prompt": "What is 2 + 3?", "target": "5"}),
    "recorded.jsonl": _lines(
        *(
            {"llm": "gpt-4o-mini", "question_id": f"gsm8k-test-000{i}", "prediction": str(4 + k % 4 // 3), "tokens": 90}
            for i in (1, 2)
            for k in range(40)
        )
    ),
    "sentences.jsonl": _lines(
        {"id": "s1", "text": "Skopje is the capital of North Macedonia.", "title": "Skopje"},
        {"id": "s2", "text": "Paris is the capital of France.", "title": "Paris"},
    ),
    "../data/fever/dev.jsonl": _lines(
        {
            "id": 1,
            "claim": "Paris is in France.",
            "label": "SUPPORTS",
            "evidence": [{"doc_id": "d1", "page": "Paris", "sent_id": 0, "text": "Paris is the capital of France."}],
            "evidence_sets": [[0]],
            "retrieved": ["d1", "d2"],
        }
    ),
    "../data/corpus/sentences.jsonl": _lines(
        *({"id": f"d{i}", "page": f"P{i}", "sent_id": 0, "text": f"Town {i} is in France."} for i in range(1, 9))
    ),
}

SWEEP = """models = [{ main = "local/smollm2-135m" }]

[[dataset]]
name = "gsm8k"

[[strategy]]
name = "cot"

[[strategy]]
name = "self-consistency"
parameters = { n = 2 }
"""

PRECEDING_COMMANDS = {
    "docs/search-trees.md": 'reason ask "What is 2 + 3?" -s coat --set association=none --set expansions=1',
    "docs/viewer.md": 'reason ask "What is 2 + 3?" -s coat --set association=none --set expansions=1',
    "docs/cli.md": "reason eval gsm8k -s glimprouter -m LARGE --small-model SMALL --out runs/glimprouter-dev",
    "docs/routers.md": "reason eval gsm8k -s glimprouter -m LARGE --small-model SMALL --limit 3"
    " --out runs/glimprouter-dev",
}
"""Commands that a page presupposes."""


def open_page(page: str, server: CommandForkServer, directory: Path) -> PageSession:
    """A session with the files, programs and earlier commands of a page."""
    session = PageSession(server, directory, MODELS.get(page, "tiny"), ITEMS.get(page, 2))
    if page == "docs/recipes/agents.md":  # the server is OpenAI too
        session.environment |= {
            "OPENAI_BASE_URL": f"http://127.0.0.1:{session.port}/v1",
            "OPENAI_API_KEY": "none",
            "REASON_SERVE__ALIASES": '{"gpt-5-mini": {"strategy": "cot"}}',
        }
    for name, text in {**FILES, "sweep.toml": SWEEP}.items():
        path = session.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "support" / "mcp_sdk_server.py", session.work / "server.py")
    for name in ("mine.safetensors", "nav.safetensors"):
        shutil.copy(NAVIGATOR, session.work / name)
    (session.work / "benchmarks").symlink_to(ROOT / "benchmarks", target_is_directory=True)
    if page in PRECEDING_COMMANDS:
        session.shell(PRECEDING_COMMANDS[page], f"before {page}")
    return session
