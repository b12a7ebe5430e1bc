"""Agreement of two judges: what an embedded judge says of the claims that a language model has judged.

The second verdict is for comparison alone. It never changes the first one, so it can never make a claim more certain;
a claim that the model finds supported and the embedded judge finds refuted is marked.

Source: our own. That a model tends to agree with texts like its own, so that a judge of another kind is worth having:
Panickssery, Bowman and Feng 2024, "LLM Evaluators Recognize and Favor Their Own Generations", arXiv:2404.13076.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ...core.errors import BackendError, BudgetExceeded
from ...core.run import Run
from ...core.types import Verdict
from ..types import ClaimReport, Entailment, Label, SecondJudge
from .decision import Decision

_LABEL_OF: dict[Verdict, Label] = {"supported": "supports", "refuted": "refutes"}
_JUDGED: tuple[Verdict, ...] = ("supported", "refuted", "disputed", "not_enough_evidence")


async def add_second_judge(
    reports: Sequence[ClaimReport],
    decide: Callable[[Entailment], Awaitable[Sequence[Decision | None]]],
    second: Entailment | None,
    run: Run,
) -> list[ClaimReport]:
    """Reports with the verdicts of a second judge; unchanged without one, or where its passes exceed the budget.

    Args:
        reports: The reports on claims by their passages.
        decide: Decides on the same claims, in order, by a judge; None for a claim that the budget did not reach.
        second: The second judge, metered.
        run: The run, which is told of a judge that failed.
    """
    if second is None or not any(map(_is_judged, reports)):
        return list(reports)
    try:
        decisions = await decide(second)
    except BudgetExceeded:
        return list(reports)
    except BackendError as e:
        run.degrade(f"no second judge: {e.message}")
        return list(reports)
    return [
        report.model_copy(update={"second_judge": _second(decision, second)})
        if decision is not None and _is_judged(report)
        else report
        for report, decision in zip(reports, decisions, strict=True)
    ]


def judges_agree(report: ClaimReport) -> bool | None:
    """Whether the verdicts of both judges are the same; None without a second one."""
    second = report.second_judge
    return None if second is None else second.label == _LABEL_OF.get(report.verdict, "neutral")


def is_contradicted_by_second(report: ClaimReport) -> bool:
    """Whether the second judge refutes, beyond its own threshold, what the first one finds supported."""
    second = report.second_judge
    return second is not None and report.verdict == "supported" and second.label == "refutes"


def agreement_note(reports: Sequence[ClaimReport]) -> str:
    """The agreement on the claims of an answer in a few words; empty without a second judge."""
    agreements = [agrees for report in reports if (agrees := judges_agree(report)) is not None]
    if not agreements:
        return ""
    return f"judges agree on {sum(agreements)} of {len(agreements)} claim{'' if len(agreements) == 1 else 's'}"


def second_judge_note(report: ClaimReport) -> str:
    """A warning for people where the second judge refutes a supported claim; empty otherwise."""
    return "another judge finds that the evidence refutes it" if is_contradicted_by_second(report) else ""


def _is_judged(report: ClaimReport) -> bool:
    return report.verdict in _JUDGED and report.reason not in ("program", "no_evidence", "verifier_failed")


def _second(decision: Decision, judge: Entailment) -> SecondJudge:
    return SecondJudge(
        backend=judge.identity, label=_LABEL_OF.get(decision.verdict, "neutral"), probs=tuple(decision.probs)
    )
