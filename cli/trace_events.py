"""The events of a run as a tree of HTML, each under the one it belongs to."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from ..core.events import (
    BudgetCharged,
    BudgetExhausted,
    CallFinished,
    CallStarted,
    CandidateFound,
    ClaimChecked,
    Degraded,
    EventFields,
    EventsDropped,
    LeafSelected,
    MemoryAssociated,
    NodesSearched,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleFinished,
    SearchEnded,
    SolutionFound,
    StageFinished,
    StageStarted,
    StepRouted,
    StrategyNote,
    TextDelta,
    Verified,
    VoteUpdated,
)
from ..core.jury_events import JuryEvent
from .search_figures import figure, plural
from .search_notes import source_of
from .trace_jury import jury_line
from .trace_samples import sample_html

MOST_SAMPLES_OPEN = 2
MOST_NAMED = 6
"""Expanded nodes named in an entry."""


class Entry(NamedTuple):
    """One event on the page; `body` is HTML, the others are text."""

    kind: str
    what: str
    body: str = ""
    style: str = ""
    is_open: bool = False


def events_html(events: Sequence[EventFields]) -> str:
    """The tree of events; text deltas are shown within their samples, ends within their beginnings."""
    tree = _Tree(events)
    parts: list[str] = []
    waiting: list[EventFields | str] = list(reversed(tree.roots))
    while waiting:  # a stack and no recursion: a search tree may be deeper than Python's
        next_ = waiting.pop()
        if isinstance(next_, str):
            parts.append(next_)
            continue
        entry = tree.entry(next_)
        inner = tree.children[next_.number]
        at = f'<span class="at">{next_.at_s:.2f} s</span>'
        style = f" {entry.style}" if entry.style else ""
        head = f'{at}<span class="kind{style}">{escape(entry.kind)}</span> {escape(entry.what)}'
        if not entry.body and not inner:
            parts.append(f'<div class="leaf">{head}</div>\n')
            continue
        parts.append(f"<details{' open' if entry.is_open else ''}><summary>{head}</summary>{entry.body}\n")
        waiting.append("</details>\n")
        waiting.extend(reversed(inner))
    return "".join(parts)


class _Tree:
    """Who belongs under whom."""

    def __init__(self, events: Iterable[EventFields]) -> None:
        self.roots: list[EventFields] = []
        self.children: dict[int, list[EventFields]] = defaultdict(list)
        self._ends: dict[int, CallFinished | StageFinished] = {}
        self._deltas: dict[tuple[int, int, int], list[TextDelta]] = defaultdict(list)
        seen: set[int] = set()
        for event in events:
            parent = event.parent if event.parent in seen else None  # of a trace that begins half-way
            if isinstance(event, TextDelta):
                self._deltas[event.parent or 0, event.request, event.sample].append(event)
            elif isinstance(event, (CallFinished, StageFinished)) and parent is not None:
                self._ends[parent] = event
            else:
                seen.add(event.number)
                (self.roots if parent is None else self.children[parent]).append(event)

    def entry(self, event: EventFields) -> Entry:
        """How an event is shown."""
        match event:
            case RunStarted():
                how = "goes on" if event.resumed else "begins"
                models = ", ".join(f"{role}: {model}" for role, model in event.models.items())
                return Entry("run", f"{how}: {event.strategy} on {models}, seed {event.seed}")
            case StageStarted():
                end = self._ends.get(event.number)
                took = f"{end.seconds:.2f} s" if isinstance(end, StageFinished) else "not finished"
                return Entry("stage", f"{event.stage}, {took}", is_open=True)
            case CallStarted():
                return self._call(event)
            case SampleFinished():
                return self._sample(event)
            case BudgetCharged():
                usd = f", {event.total_usd:.4f} USD" if event.total_usd else ""
                spent = f"{event.total_tokens:,} tokens, {event.total_calls:,} calls{usd} so far"
                return Entry("budget", f"{event.tokens:,} tokens charged to {event.role}; {spent}")
            case BudgetExhausted():
                spent = f"the limit of {event.limit:g} {event.kind} is met ({event.used:g} used)"
                return Entry("budget spent", spent, style="warn")
            case CandidateFound():
                score = "" if event.score is None else f", score {event.score:.3g}"
                found = "no answer found in it" if event.answer is None else event.answer
                return Entry(f"candidate {event.index + 1}", f"{_short(found)}{score}")
            case VoteUpdated():
                votes = ", ".join(f"{_short(answer, 40)} x{count}" for answer, count in event.votes.items())
                return Entry("votes", f"{votes or 'none'} (of {event.total})")
            case LeafSelected() | MemoryAssociated() | NodesSearched() | SearchEnded():
                return _search_entry(event)
            case _:
                return self._ending(event)

    def _ending(self, event: EventFields) -> Entry:
        match event:
            case StepRouted():
                return Entry(f"step {event.index + 1}", _routed(event))
            case _ if isinstance(event, JuryEvent):
                line = jury_line(event)
                return Entry(line.kind, _short(line.what), _json(event.report), style=line.style)
            case StrategyNote():
                return Entry(event.name, _noted(event), _json(event.data) if event.data else "")
            case Degraded():
                return Entry("degraded", event.what, style="warn")
            case SolutionFound():
                best = event.solution.best
                found = "no candidate" if best is None else _short(best.answer or "no answer found in the text")
                return Entry("solution", f"{found} ({event.solution.stopped})", _json(event.solution.notes))
            case ClaimChecked():
                return _claim(event)
            case Verified():
                return Entry("verified", event.verification.verdict.replace("_", " "), _json(event.verification))
            case RunFailed():
                return Entry("run failed", f"{event.message} ({event.code})", style="bad")
            case RunFinished():
                answer = event.answer
                return Entry("run ended", f"{_short(answer.answer or '-')} ({answer.stopped})", style="good")
            case EventsDropped():
                return Entry("missing", f"{event.count} events are missing here", style="warn")
            case _:
                return Entry(str(getattr(event, "type", "event")), "", _json(event))

    def _call(self, event: CallStarted) -> Entry:
        end = self._ends.get(event.number)
        what = f"{event.operation} as {event.role}, {event.model}"
        if event.samples:  # a prefix that is pinned has none
            what += f", {event.samples} sample{'s' if event.samples != 1 else ''}"
        if event.replayed:
            what += f" ({event.replayed} from the store)"
        if isinstance(end, CallFinished):
            rate = f", {end.tokens / end.seconds:,.0f} tokens/s" if end.tokens and end.seconds > 0.01 else ""
            what += f": {end.tokens:,} tokens in {end.seconds:.2f} s{rate}"
            if end.failed:
                what += f", {end.failed} failed"
        else:
            what += ": not finished"
        return Entry("call", what, is_open=True)

    def _sample(self, event: SampleFinished) -> Entry:
        done = event.completion
        what = f"{done.usage.completion_tokens:,} tokens, {done.finish_reason}"
        if done.logprobs:
            what += f", mean log-probability {sum(done.logprobs) / len(done.logprobs):.3f}"
        if event.replayed:
            what += ", from the store"
        siblings = sum(isinstance(e, SampleFinished) for e in self.children[event.parent or 0])
        return Entry(
            f"sample {event.request + 1}.{event.sample + 1}",
            what,
            sample_html(done, self._deltas[event.parent or 0, event.request, event.sample]),
            style="" if done.ok else "bad",
            is_open=siblings <= MOST_SAMPLES_OPEN,
        )


def _claim(event: ClaimChecked) -> Entry:
    """A claim's verdict in the line, its whole record behind it."""
    verdict, confidence, claim = (event.report.get(name) for name in ("verdict", "confidence", "claim"))
    sure = f" {confidence:.2f}" if isinstance(confidence, float) else ""
    text = claim.get("text") if isinstance(claim, dict) else ""
    styles = {"supported": "good", "refuted": "bad", "disputed": "warn"}
    return Entry(
        f"claim {event.index + 1}",
        f"{str(verdict).replace('_', ' ')}{sure}: {_short(str(text))}",
        _json(event.report),
        style=styles.get(str(verdict), ""),
    )


def _routed(event: StepRouted) -> str:
    """Who wrote a step, and what decided that: `the small model m, 45 tokens: entropy 0.420 against 1 (full)`."""
    who = "the large model" if event.role == "main" else "the small model"
    parts = [event.why] if event.why else []
    if event.entropy is not None:
        against = "" if event.threshold is None else f" against {figure(event.threshold)}"
        parts = [f"entropy {figure(event.entropy)}{against}" + (f" ({event.kind})" if event.kind else "")]
    if event.score is not None:
        parts.append(f"score {figure(event.score)}")
    return f"{who} {event.model}, {event.tokens:,} tokens: {', '.join(parts)}"


def _noted(event: StrategyNote) -> str:
    """Who noted it, and what of it fits a line: single values and flat lists of them."""
    parts = []
    for name, value in event.data.items():
        values = value if isinstance(value, list) else [value]
        if values and all(isinstance(v, str | int | float) for v in values):  # no mapping, no nothing
            parts.append(f"{name.replace('_', ' ')} {' '.join(map(str, values))}")
    return _short(f"({event.strategy}) {', '.join(parts)}".strip())


def _search_entry(event: LeafSelected | MemoryAssociated | NodesSearched | SearchEnded) -> Entry:
    match event:
        case LeafSelected():
            return Entry("selected", _selected(event))
        case MemoryAssociated():
            return Entry("notes", _associated(event), _notes_html(event))
        case NodesSearched():
            return Entry("search", _searched(event))
        case SearchEnded():
            chosen = "no node" if event.chosen is None else f"node {event.chosen}"
            return Entry("search ended", f"{event.search}: {event.stopped}, {chosen} chosen")


def _selected(event: LeafSelected) -> str:
    """The leaf, and the way to it; behind each node what it was chosen by among its siblings."""
    way = [str(node_id) for node_id in event.path]
    by = ["", *(f" ({figure(value)})" for value in event.attractions)]
    if len(by) == len(way):
        way = [node_id + value for node_id, value in zip(way, by, strict=True)]
    if len(way) > MOST_NAMED:
        way = [way[0], "…", *way[1 - MOST_NAMED :]]
    leaf = f"node {event.path[-1]}" if event.path else "no node"
    return f"{event.search}: {leaf}" + (f", path {' → '.join(way)}" if len(way) > 1 else "")


def _associated(event: MemoryAssociated) -> str:
    parts = [f"node {event.node}: {plural(len(event.items), 'note')}"]
    if event.snippets or event.query:
        parts.append(f"of {plural(event.snippets, 'snippet')}")
    dropped = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in event.dropped.items())
    return f"{event.search}: {' '.join(parts)}" + (f"; not kept: {dropped}" if dropped else "")


def _notes_html(event: MemoryAssociated) -> str:
    asked = f'<div class="soft">asked: {escape(event.query)}</div>' if event.query else ""
    notes = "".join(
        f'<li><span class="source">{escape(source_of(item))}</span> {escape(item.text)} '
        f'<span class="soft">{figure(item.score, 2)}</span></li>'
        for item in event.items
    )
    return asked + (f'<ul class="sources">{notes}</ul>' if notes else "")


def _searched(event: NodesSearched) -> str:
    """What a search took in: new nodes of `expanded` ones, or new values of old ones."""
    parts = []
    if event.expanded:
        which = ", ".join(map(str, event.expanded[:MOST_NAMED])) + (", …" if len(event.expanded) > MOST_NAMED else "")
        parts.append(f"node{'s' if len(event.expanded) > 1 else ''} {which} expanded")
    parts.append(f"{plural(len(event.nodes), 'node')} told")
    complete = sum(node.terminal for node in event.nodes)
    if complete:
        parts.append(f"{complete} complete")
    scores = [node.score for node in event.nodes if node.score is not None]
    if scores:
        parts.append(f"best score {figure(max(scores), 2)}")
    if event.discarded:
        parts.append(f"{event.discarded} discarded")
    return f"{event.search}: {', '.join(parts)}"


def _json(value: object) -> str:
    data = value.model_dump(mode="json") if isinstance(value, EventFields) or hasattr(value, "model_dump") else value
    if not data:
        return ""
    return f'<pre class="text">{escape(json.dumps(data, indent=2, ensure_ascii=False))}</pre>'


def _short(text: str, most: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
