"""Every defence in the threat model names a test that there is."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_threat_model_names_exists():
    page = (ROOT / "docs" / "threat-model.md").read_text()
    named = re.findall(r"`(test_\w+)`", page)
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 30
    assert [name for name in named if not re.search(rf"def {name}\(", sources)] == []
    rows = page.partition("## What is defended")[2].partition("\n## ")[0].splitlines()[4:]
    assert [row for row in rows if row.startswith("|") and "`test_" not in row] == []
