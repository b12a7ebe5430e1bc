"""What happens in a run beside the writing of texts, as short lines among the thoughts."""

from __future__ import annotations

from ...core.events import (
    BudgetExhausted,
    ClaimChecked,
    Degraded,
    EventFields,
    MemoryAssociated,
    NodesSearched,
    StageStarted,
    StepRouted,
    Verified,
    VoteUpdated,
)
from ...core.jury_events import OpinionGiven, OpinionsRanked, ReviewGiven

MOST_VOTES = 5
MOST_CHARS = 60
QUIET_STAGES = frozenset({"route", "solve", "finish"})
STAGES = {
    "verify": "The answer is being verified.",
    "repair": "The answer did not pass: it is asked for again, with what was found.",
}


def line_of(event: EventFields) -> str:
    """An event as one line; empty for those that are not told."""
    match event:
        case StageStarted(stage=stage):
            return "" if stage in QUIET_STAGES else STAGES.get(stage, f"Stage: {stage}.")
        case VoteUpdated(votes=votes):
            best = [f"{_short(answer)} ({count})" for answer, count in list(votes.items())[:MOST_VOTES]]
            return f"Votes: {', '.join(best)}." if best else ""
        case NodesSearched(search=search, expanded=expanded, nodes=nodes):
            scores = [node.score for node in nodes if node.score is not None]
            best_score = f", best score {max(scores):.2f}" if scores else ""
            ended = sum(node.terminal for node in nodes)
            whole = f", {ended} of them solutions" if ended else ""
            return f"{search}: {len(expanded)} expanded, {len(nodes)} nodes told{whole}{best_score}."
        case MemoryAssociated(node=node, items=items, snippets=snippets):
            return f"Knowledge for node {node}: {len(items)} pieces kept, {snippets} found."
        case StepRouted(index=index, model=model, why=why):
            return f"Step {index + 1} was written by {model}" + (f" ({why})." if why else ".")
        case OpinionGiven(juror=juror):
            return f"Juror {juror + 1} has given an opinion."
        case ReviewGiven(reviewer=reviewer):
            return f"Juror {reviewer + 1} has reviewed the opinions."
        case OpinionsRanked():
            return "The opinions are ranked."
        case ClaimChecked(index=index, report=report):
            return f"Claim {index + 1}: {str(report.get('verdict', 'unchecked')).replace('_', ' ')}."
        case Verified(verification=verification):
            return f"Verification: {verification.verdict.replace('_', ' ')}."
        case Degraded(what=what):
            return f"Note: {what}."
        case BudgetExhausted(kind=kind, limit=limit):
            return f"The budget of {limit:g} {kind} is spent."
    return ""


def _short(text: str) -> str:
    """A text on one line, cut where it is long."""
    one = " ".join(text.split())
    return one if len(one) <= MOST_CHARS else one[: MOST_CHARS - 1] + "…"
