"""Markdown and formulas in texts: drawn as elements, never as markup, and as written on request."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reason.core.events import RunFinished, RunStarted, SolutionFinished
from reason.core.types import Candidate, Question, Solution
from reason.sidecar.viewer.page import trace_html
from support.viewer_runs import answer_of, numbered

pytestmark = pytest.mark.nightly
Look = Callable[..., Any]
TEXT = r"""## Solution

The roots of $x^2 - 5x + 6 = 0$ are **2** and *3*:
\[
x = \frac{5 \pm \sqrt{25 - 24}}{2}.
\]

1. first
2. second, with `code`

| root | check |
| --- | --- |
| 2 | \(4 - 10 + 6 = 0\) |

```py
x = "<b>"
```

> See [the page](https://example.org/x), which costs $5, not $6. <img src=x onerror="window.pwned = 1">
"""
HOSTILE = r"""
**bold** $\href{javascript:window.pwned=1}{x}$ $\includegraphics{https://evil.example/x.png}$
$\htmlStyle{background:url(https://evil.example/y)}{x}$ $\class{a}{x}$ $\unknowncommand$ $\def\a{\a\a}\a$
[link](javascript:window.pwned=1) ![image](https://evil.example/z.png) <https://evil.example/w>
<script>window.pwned = 1</script> <a href="javascript:window.pwned=1">x</a> &lt;b&gt;

[ref]: javascript:window.pwned=1 "title"
"""


def run_of(text: str, answer: str, question: str = "Solve $x$.") -> list[Any]:
    asked = RunStarted(question=Question(text=question), strategy="cot", models={"main": "m"}, seed=1)
    solved = Solution(chosen=0, candidates=(Candidate(text=text, answer=answer),))
    return numbered([asked, SolutionFinished(solution=solved), RunFinished(answer=answer_of(text, answer))])


def test_markdown_and_formulas_are_drawn(look: Look, tmp_path: Path) -> None:
    tab = look()
    tab.show(trace_html(run_of(TEXT, r"\frac{3}{4}")), tmp_path)
    inside = "#answer .text .md"
    assert tab.texts(f"{inside} .title") == ["Solution"]
    assert tab.texts(f"{inside} strong, {inside} em, {inside} li") == ["2", "3", "first", "second, with code"]
    assert tab.texts(f"{inside} pre") == ['x = "<b>"']
    assert tab.texts(f"{inside} td")[0] == "2"
    assert "See the page (https://example.org/x), which costs $5, not $6. <img src=x" in tab.text(
        f"{inside} blockquote"
    )
    assert tab.page.locator(f"{inside} math").count() == 3
    assert tab.page.locator(f"{inside} .display math mfrac msqrt").count() == 1
    assert tab.page.locator("#answer .answer math mfrac").count() == 1  # an extracted answer needs no dollars
    assert tab.page.locator("h1 math").count() == 1
    tab.page.click("#candidates summary")
    assert tab.page.locator("#candidates .text math").count() == 3
    tab.page.click("button[value=raw]")
    assert tab.page.locator("math, .md").count() == 0
    assert (tab.text("h1"), tab.text("#answer .answer")) == ("Solve $x$.", r"\frac{3}{4}")
    assert tab.text("#answer .text") == TEXT
    tab.page.click("button[value=raw]")
    assert tab.page.locator(f"{inside} math").count() == 3
    tab.check()
    assert tab.requests == [(tmp_path / "page.html").as_uri()]


def test_a_hostile_text_stays_text(look: Look, tmp_path: Path) -> None:
    tab = look()
    tab.show(trace_html(run_of(HOSTILE, r"\href{javascript:window.pwned=1}{x}")), tmp_path)
    tab.page.click("#candidates summary")
    elements = set(tab.js("[...document.querySelectorAll('.md, .md *, .answer *')].map((e) => e.localName)"))
    assert not {"script", "img", "a", "iframe", "style", "object", "svg"} & elements
    names = "[...document.querySelectorAll('.md *')].flatMap((e) => [...e.attributes].map((a) => a.name))"
    assert not {"href", "src", "xlink:href", "srcset", "action", "onerror", "onclick"} & set(tab.js(names))
    shown = tab.text("#answer .text")
    assert "<script>window.pwned = 1</script>" in shown
    assert "link (javascript:window.pwned=1) image (https://evil.example/z.png)" in shown
    assert r"$\unknowncommand$" in shown  # as it was written
    tab.check()
    assert tab.requests == [(tmp_path / "page.html").as_uri()]


def test_the_events_are_downloaded_as_json_lines(look: Look, tmp_path: Path) -> None:
    tab = look()
    events = run_of("text", "x")
    tab.show(trace_html(events), tmp_path)
    with tab.page.expect_download() as waiting:
        tab.page.click("button[value=download]")
    assert waiting.value.suggested_filename == "r.jsonl"
    lines = Path(waiting.value.path()).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [event.model_dump(mode="json") for event in events]
    tab.check()
