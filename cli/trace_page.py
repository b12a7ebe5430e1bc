"""A run's trace as one page of HTML to look at: nothing loaded from elsewhere, every text escaped.

A page has no script, but for that of its search trees; its policy allows that one alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeVar

from ..core.answer import Answer, RunUsage, Verification
from ..core.events import (
    BudgetCharged,
    BudgetExhausted,
    EventFields,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleFinished,
)
from ..core.search_tree import search_trees
from ..core.version import __version__
from .claim_marks import counted, placed_source, word_of
from .search_notes import search_notes
from .search_script import SCRIPT, SCRIPT_SOURCE
from .search_section import searches_html
from .search_style import SEARCH_STYLE
from .trace_events import events_html
from .trace_samples import legend_html
from .trace_style import STYLE
from .usage_cells import USAGE_HEADS, usage_cells

E = TypeVar("E", bound=EventFields)

_VERDICT_STYLES = {"supported": "good", "refuted": "bad", "disputed": "warn"}
_STOPPED_STYLES = {"done": "good", "budget": "warn", "cancelled": "warn", "error": "bad"}


def render_trace(events: Sequence[EventFields]) -> str:
    """The page.

    Args:
        events: The run's events, in order; with text deltas, tokens are shaded within the text.

    Returns:
        A complete HTML document.
    """
    started = _last(events, RunStarted)
    finished = _last(events, RunFinished)
    failed = _last(events, RunFailed)
    answer = None if finished is None else finished.answer
    question = "a run that did not begin" if started is None else started.question.text
    question = question if question.strip() else "An answer that was given"
    parts = [f"<h1>{escape(question)}</h1>"]
    if started is not None and started.question.choices:
        options = "".join(f"<li>{escape(c)}</li>" for c in started.question.choices)
        parts.append(f'<ol type="A" class="soft">{options}</ol>')
    parts.append(_answer_html(answer, failed))
    parts.append(_chips(_facts(started, answer)))
    searches = search_trees(events)
    if searches:
        parts.append(_section("Search", searches_html(searches, search_notes(events, searches))))
    charged = _last(events, BudgetCharged)
    if charged is not None and charged.limits:
        parts.append(_section("Budget", _meters(charged, _last(events, BudgetExhausted), events[-1].at_s)))
    if answer is not None:
        parts += [_section("Note", f"<p>{escape(what)}</p>") for what in answer.degraded]
        if answer.verification is not None and answer.verification.claims:
            parts.append(_section("Claims", f"<p>{escape(counted(answer.verification))}</p>"))
            parts.append(_claims(answer.verification))
        parts.append(_section("Usage", _usage(answer.usage)))
    parts.append("<h2>What happened</h2>")
    if any(isinstance(e, SampleFinished) and e.completion.logprobs for e in events):
        parts.append(legend_html())
    parts.append(events_html(events))
    run_id = "" if started is None else started.run_id
    policy, style, script = "default-src 'none'; style-src 'unsafe-inline'", STYLE, ""
    if searches:
        policy += f"; script-src {SCRIPT_SOURCE}"
        style, script = STYLE + SEARCH_STYLE, f"<script>{SCRIPT}</script>\n"
    title = question if len(question) <= 80 else question[:79] + "…"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)} · reason</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + f"\n<footer>run {escape(run_id)} · reason {escape(__version__)}</footer>\n</main>\n{script}</body>\n</html>\n"
    )


def _answer_html(answer: Answer | None, failed: RunFailed | None) -> str:
    if answer is None:
        why = "The run was not finished." if failed is None else f"The run failed: {failed.message}"
        return f'<div class="card"><div class="answer">{escape(why)}</div></div>'
    found = answer.answer if answer.answer is not None else "No answer was found in the text."
    text = ""
    if answer.text.strip() and answer.text.strip() != found.strip():
        inner = f'<div class="text">{escape(answer.text)}</div>'
        text = f'<details><summary class="soft">the whole text</summary>{inner}</details>'
    return f'<div class="card"><div class="answer">{escape(found)}</div>{text}{_sources(answer)}</div>'


def _sources(answer: Answer) -> str:
    """What the answer cites, numbered as in its text."""
    if not answer.citations:
        return ""
    cited = "".join(
        f'<li><span class="source">{escape(e.source)}</span> {escape(e.text)}</li>' for e in answer.citations
    )
    return f'<h3 class="soft">Sources</h3><ol class="sources">{cited}</ol>'


def _facts(started: RunStarted | None, answer: Answer | None) -> list[tuple[str, str, str]]:
    """Label, value and style of what is worth knowing at a glance."""
    facts: list[tuple[str, str, str]] = []
    if answer is not None:
        facts.append(("", answer.stopped, _STOPPED_STYLES[answer.stopped]))
        if answer.confidence is not None:
            facts.append(("confidence", f"{answer.confidence:.2f}", ""))
        if answer.verification is not None:
            verdict = answer.verification.verdict
            facts.append(("", verdict.replace("_", " "), _VERDICT_STYLES.get(verdict, "")))
    if started is not None:
        facts.append(("strategy", started.strategy, ""))
        facts += [("model" if role == "main" else role, model, "") for role, model in started.models.items()]
        facts.append(("seed", str(started.seed), ""))
    if answer is not None:
        facts.append(("tokens", f"{answer.usage.completion_tokens:,}", ""))
        facts.append(("time", f"{answer.usage.wall_seconds:.1f} s", ""))
    return facts


def _chips(facts: Iterable[tuple[str, str, str]]) -> str:
    chips = []
    for label, value, style in facts:
        name = f"{escape(label)} " if label else ""
        chips.append(f'<span class="{f"chip {style}".strip()}">{name}<b>{escape(value)}</b></span>')
    return f'<div class="chips">{"".join(chips)}</div>'


def _meters(charged: BudgetCharged, exhausted: BudgetExhausted | None, seconds: float) -> str:
    spent: dict[str, float] = {
        "tokens": charged.total_tokens,
        "calls": charged.total_calls,
        "usd": charged.total_usd or 0.0,
        "seconds": seconds,
    }
    rows: list[str] = []
    for kind, limit in charged.limits.items():
        if kind not in spent or limit <= 0:
            continue
        share = min(1.0, spent[kind] / limit)
        full = " full" if share >= 1.0 or (exhausted is not None and exhausted.kind == kind) else ""
        rows.append(
            f'<div class="meter"><span>{escape(kind)}</span><div class="track">'
            f'<div class="fill{full}" style="width:{100 * share:.1f}%"></div></div>'
            f'<span class="n">{spent[kind]:,.4g} of {limit:,.6g}</span></div>'
        )
    return "".join(rows)


def _claims(verification: Verification) -> str:
    rows = []
    for claim in verification.claims:
        spans = "".join(
            f'<div class="soft">“{escape(e.text)}” ({escape(placed_source(e.source, e.start, e.end))})</div>'
            for e in claim.evidence
        )
        if claim.note:
            spans += f'<div class="soft">{escape(claim.note)}</div>'
        style = _VERDICT_STYLES.get(claim.verdict, "")
        sure = "" if claim.confidence is None else f"{claim.confidence:.2f}"
        rows.append(
            f"<tr><td>{escape(claim.text)}{spans}</td>"
            f'<td><span class="kind {style}">{escape(word_of(claim.verdict))}</span></td>'
            f'<td class="n">{sure}</td></tr>'
        )
    head = '<tr><th>claim</th><th>verdict</th><th class="n">confidence</th></tr>'
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _usage(usage: RunUsage) -> str:
    rows = ["<tr><th>role</th><th>model</th>" + "".join(f'<th class="n">{h}</th>' for h in USAGE_HEADS) + "</tr>"]
    for key, row in usage.by_role.items():
        figures = "".join(f'<td class="n">{cell}</td>' for cell in usage_cells(row))
        rows.append(f"<tr><td>{escape(key.partition(':')[0])}</td><td>{escape(row.model)}</td>{figures}</tr>")
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}"


def _last(events: Sequence[EventFields], kind: type[E]) -> E | None:
    return next((e for e in reversed(events) if isinstance(e, kind)), None)
