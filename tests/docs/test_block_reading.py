"""Finding the blocks of a page, and the commands of a block."""

from __future__ import annotations

import pytest
from support.doc_blocks import blocks_of, indented_code
from support.doc_commands import commands, refused, shown_commands
from support.doc_skip_reasons import reason_problem

PAGE = """Text.

```bash
reason ask
```

<!-- not run: it needs Docker -->
```bash
docker run
```

<!-- not run: it needs Docker -->
Another text in between.

  ```python
  a = 1
    b
  ```
"""


def test_blocks_have_their_line_language_text_and_reason():
    first, second, third = blocks_of("a.md", PAGE)
    assert (first.line, first.language, first.code, first.not_run) == (4, "bash", "reason ask\n", "")
    assert (second.code, second.not_run) == ("docker run\n", "it needs Docker")
    assert (third.line, third.language, third.code, third.not_run) == (16, "python", "a = 1\n  b\n", "")
    with pytest.raises(ValueError, match=r"a\.md:1: the fence"):
        blocks_of("a.md", "```bash\nreason ask\n")


def test_only_indented_code_is_detected():
    assert indented_code("So:\n\n    reason ask\n") == [3]
    assert indented_code("- a\n\n    more of a\n") == []
    assert indented_code("So\n    it goes on\n") == []
    assert indented_code("```text\n\n    inside\n```\n") == []


def test_commands_of_a_shell_block():
    code = """A=1 reason ask "a | b" --set 'x={"n": 1}' | jq -c . > out   # and more
for name in a b; do
    reason eval sweep $name.toml \\
        --out runs && echo done
done
export B=…
curl -d '{
  "a": 1}' http://x
"""
    assert commands(code) == [
        ["reason", "ask", "a | b", "--set", 'x={"n": 1}'],
        ["jq", "-c", "."],
        ["reason", "eval", "sweep", "$name.toml", "--out", "runs"],
        ["echo", "done"],
        ["curl", "-d", '{\n  "a": 1}', "http://x"],
    ]
    assert (
        shown_commands("$ reason ask \\\n  x\nParis\n$ reason runs list\n") == "reason ask \\\n  x\nreason runs list\n"
    )


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("reason ask Q --strategy cot --set n=8 --json", ""),
        ("reason eval gsm8k --limit 3", ""),
        ("reason eval compare a b", ""),
        ("reason eval --resume --out a", ""),
        ("reason --version", ""),
        ("reason runs show RUN --events --json", ""),
        ("reason ask Q --stragety cot", "No such option"),
        ("reason runs shwo RUN", "No such command"),
        ("reason eval gsm8k --limit many", "valid integer"),
        ("reason runs show", "Missing argument"),
        ("reason verifiers list twice", "unexpected extra argument"),
    ],
)
def test_parser_accepts_or_refuses_commands(typed, why):
    message = refused(typed.split())
    assert message == "" if not why else why in message


def test_skip_reason_is_known_and_matches_its_block():
    assert reason_problem("it needs Docker", "docker run x\n") == ""
    assert "nothing in the block" in reason_problem("it needs Docker", "reason ask x\n")
    assert "unknown reason" in reason_problem("it is slow", "reason ask x\n")
