"""docs/cli-reference.md is the output of docs/cli_reference.py."""

from __future__ import annotations

from support.doc_blocks import ROOT
from support.script_modules import load_script

SCRIPT = ROOT / "docs" / "cli_reference.py"


def test_the_reference_is_up_to_date():
    script = load_script(SCRIPT)
    assert script.PAGE.read_text(encoding="utf-8") == script.reference(), "run python docs/cli_reference.py"


def test_the_reference_has_every_command_and_option():
    text = load_script(SCRIPT).reference()
    for heading in ("reason ask", "reason eval run", "reason eval compare", "reason runs resume", "reason doctor"):
        assert f"\n## {heading}\n" in text
    assert "| `-s`, `--strategy` `NAME` | Use this reasoning strategy" in text
    assert "`reason pool show POOL [OPTIONS]`" in text
    assert "[b]" not in text
