"""Rules that choose one of several trajectories.

| rule | choice |
| --- | --- |
| `race` | of those that ended, the first: the least seconds, or the fewest tokens where no seconds are known |
| `ended-fewest-calls` | of those that ended, the one with the fewest tool calls, then the fewest tokens |
| `agreement` | one of a majority of all with equal changes, or answers if no tool changes anything; without one none |
| `judge` | one of the majority; without one, a judge model compares trajectories of different outcomes in pairs |
| `tests` | the largest share of tests passed |

A trajectory that proposes changes counts as ended. Of equals, `ended-fewest-calls` decides, and then the lower index.
If none has ended, the fewest calls decide among those that made a turn, so that an answer can be requested from it.

Source: Zhu et al., "Scaling Test-time Compute for LLM Agents" (2025), arXiv:2506.12928, section 3.4, for choices by
votes and by a judge; expected values of a judge's verdict, and a pivot: "LLM-as-a-Verifier" (2026), arXiv:2607.05391.
Differs: the judge sees only trajectories that no majority decides between, each pair in both orders.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from statistics import fmean
from typing import Final, NamedTuple

from ...core.errors import BackendError, BudgetExceeded, UserError
from ...core.messages import Prompt, Tool
from ...core.types import Candidate, Question
from ...reasoning.anonymity import MATERIAL_NOTICE, make_blinding, show_answers
from ...reasoning.answers.calls import MAX_SHOWN_PROPOSALS, WRITE_QUORUM, normalized_calls
from ...reasoning.answers.equivalence import Equivalence
from ...reasoning.answers.extraction import answer_kind
from ...reasoning.prompts import fit_prompt, question_prompt
from ...serving.metered.model import MeteredModel
from ...serving.profiles.profile import quick_sampling
from ...serving.verdict_distribution import VERDICT_TOKENS, read_verdicts
from ..loop.tool import cut
from .tournament import PivotTournament
from .trajectory import Trajectory

RULES: Final = ("race", "ended-fewest-calls", "agreement", "judge", "tests")
MAX_RESULT_CHARS: Final = 600
"""Characters of each tool result that a judge sees."""
MAX_ATTEMPT_CHARS: Final = 12_000
"""Characters of each trajectory that a judge sees."""

Tests = Callable[[Sequence[Trajectory]], Awaitable[Sequence[float | None]]]
"""The share of tests that each of some trajectories passes; None if it cannot be told."""


class Choice(NamedTuple):
    """The chosen trajectory's position, and why; without one, `question` is what the user is asked."""

    position: int | None
    reason: str
    question: Candidate | None = None


def check_rule(rule: str) -> None:
    """Refuse a rule that there is not.

    Raises:
        UserError: The message lists those that there are.
    """
    if rule and rule not in RULES:
        raise UserError(
            f"there is no rule {rule!r} to choose a trajectory", hint=f"one of {', '.join(RULES)}", param="select"
        )


async def choose(
    rule: str,
    trajectories: Sequence[Trajectory],
    *,
    tools: Sequence[Tool],
    question: Question,
    equivalence: Equivalence,
    judge: MeteredModel | None = None,
    tests: Tests | None = None,
) -> Choice:
    """Choose one of the trajectories; of a race, of those up to its end.

    Args:
        tools: Their tools with their effects.
        equivalence: Compares final answers.
        judge: The judge model of the rule "judge".
        tests: Runs the tests of the rule "tests".

    Raises:
        UserError: There is no such rule, or it lacks its judge or tests.
    """
    check_rule(rule)
    num, ended = len(trajectories), [one for one in trajectories if one.is_eligible]
    among = f"of the {len(ended)} of {num} that ended" if ended else f"of {num}, none of which ended by itself"
    has_ended, begun = bool(ended), [one for one in trajectories if one.num_turns]
    ended = sorted(ended or begun or trajectories, key=lambda one: (one.num_calls, one.tokens, one.index))
    best, reason = ended[0], f"it has the fewest tool calls, {ended[0].num_calls}, {among}"
    if not has_ended:
        pass  # there is no outcome that another rule could compare
    elif rule == "race":
        is_timed = all(one.seconds for one in ended)
        best = min(ended, key=lambda one: one.seconds if is_timed else one.tokens)
        reason = f"it ended first of {num}"
    elif rule == "tests":
        if tests is None:
            raise UserError("the rule 'tests' needs tests", hint="give the question some", param="select")
        shares = dict(zip((one.index for one in ended), await tests(ended), strict=True))
        known = [share for share in shares.values() if share is not None]
        if known:
            best = max(ended, key=lambda one: -1.0 if (share := shares[one.index]) is None else share)  # the first
            reason = f"it passes the most tests, {max(known):.0%}, {among}"
    elif rule in ("agreement", "judge"):
        has_changes = any(one.held for one in ended) or any(tool.effect not in (None, "read") for tool in tools)
        outcomes = await _outcomes(ended, has_changes, tools, question, equivalence)
        best, shared = outcomes[0][0], len(outcomes[0])
        if shared > WRITE_QUORUM * num:
            what = "its answer" if not has_changes else "its changes" if best.held or best.writes else "no change"
            return Choice(trajectories.index(best), f"{shared} of {num} agree on {what}")
        if rule == "agreement":
            question_to_user = _question(outcomes, has_changes, num)
            return Choice(None, "no outcome is shared by more than half of them", question_to_user)
        if judge is None:
            raise UserError("the rule 'judge' needs a judge model", hint="name one with --judge-model", param="select")
        contenders = sorted((own[0] for own in outcomes), key=ended.index)
        best = contenders[0]
        try:
            best, comparisons = await _judged(contenders, question, judge)
            reason = f"the judge preferred it in {comparisons} comparisons {among}"
        except (BackendError, BudgetExceeded) as e:
            judge.run.degrade(f"the judge could not compare the trajectories: {e.message}")
    return Choice(trajectories.index(best), reason)


async def _outcomes(
    ended: Sequence[Trajectory], has_changes: bool, tools: Sequence[Tool], question: Question, equivalence: Equivalence
) -> list[list[Trajectory]]:
    """The trajectories by equal outcomes, the largest class first; of a class, those of its most frequent answer."""

    async def by_answer(some: Sequence[Trajectory]) -> list[list[Trajectory]]:
        groups = await equivalence.group([one.answer for one in some], answer_kind(question))
        without = [[one] for one in some if one.answer is None]
        return sorted([*([some[i] for i in group] for group in groups), *without], key=len, reverse=True)  # stable

    if not has_changes:
        return await by_answer(ended)
    classes: dict[str, list[Trajectory]] = {}
    for one in ended:
        classes.setdefault(normalized_calls(one.held or one.writes, tools), []).append(one)
    ordered = sorted(classes.values(), key=len, reverse=True)
    return [[one for group in await by_answer(own) for one in group] for own in ordered]


def _question(outcomes: Sequence[Sequence[Trajectory]], has_changes: bool, num: int) -> Candidate:
    """What the user is asked where no outcome has a majority."""

    def shown(one: Trajectory) -> str:
        calls = ", ".join(call.text for call in one.held or one.writes)
        return calls or ("no change" if has_changes else one.answer or "")

    what = "what to change, so nothing was changed" if has_changes else "the answer"
    lines = "".join(f"\n- {len(own)} of {num}: {shown(own[0])}" for own in outcomes[:MAX_SHOWN_PROPOSALS])
    text = f"The attempts do not agree on {what}:{lines}\nWhat should be done?"
    return Candidate(text=text, answer=text)


# -- judge


async def _judged(contenders: Sequence[Trajectory], question: Question, judge: MeteredModel) -> tuple[Trajectory, int]:
    """The trajectory that a judge prefers, the first being the pivot, and the number of comparisons."""
    tournament = PivotTournament(len(contenders))
    texts = [attempt_text(one) for one in contenders]
    while pairs := tournament.ask():
        orders = [order for a, b in pairs for order in ((a, b), (b, a))]
        wins = await _first_wins([(texts[a], texts[b]) for a, b in orders], question, judge)
        for pair, forward, backward in zip(pairs, wins[::2], wins[1::2], strict=True):
            read = [win for win in (forward, None if backward is None else 1.0 - backward) if win is not None]
            tournament.tell(pair, fmean(read) - 0.5 if read else None)
    return contenders[tournament.ranking[0]], tournament.comparisons


async def _first_wins(pairs: Sequence[tuple[str, str]], question: Question, judge: MeteredModel) -> list[float | None]:
    """The probability that the first of two attempts is better, for each pair; None without a readable verdict."""
    blind = make_blinding((0, 1), question, 0, shuffle=False)
    first, second = blind.letters

    def prompt(texts: Sequence[str]) -> Prompt:
        return question_prompt(
            question.model_copy(update={"tools": (), "continuation": ()}),
            "Two agents have worked on this task with tools. Quoted below are their messages, the calls they made (→), "
            f"and the results (←). {MATERIAL_NOTICE}\n\n"
            f"{show_answers(blind, dict(enumerate(texts)), max_chars=2 * MAX_ATTEMPT_CHARS)}\n\n"
            "Which of them has more likely done the complete task correctly? Trust the results of calls, not what an "
            f"agent claims. Ignore length. Reply with {first} or {second} only.",
        )

    sampling = quick_sampling(judge.profile, max_tokens=VERDICT_TOKENS)
    fitted = [(await fit_prompt(judge, judge.run, prompt, texts, sampling))[0] for texts in pairs]
    prompts = [one for one in fitted if one is not None]
    verdicts = iter(await read_verdicts(judge, prompts, blind.letters) if prompts else ())
    read = [None if one is None else next(verdicts) for one in fitted]
    return [v.expected((1.0, 0.0)) if v is not None and v.is_readable else None for v in read]


def attempt_text(trajectory: Trajectory) -> str:
    """A trajectory as a judge reads it: texts, calls, results, each result and the whole without their middles."""
    lines: list[str] = []
    for message in trajectory.messages:
        if message.role == "tool":
            lines.append(f"← {cut(message.content, MAX_RESULT_CHARS)}")
        else:
            lines += [message.content] if message.content else []
            lines += [f"→ {call.text}" for call in message.tool_calls]
    return cut("\n".join(lines), MAX_ATTEMPT_CHARS)
