"""Choices among recorded runs of agents, by the rules that `reason --select` has.

    python benchmarks/recorded/trajectories.py --pools DIR --side dev --docs docs
    python benchmarks/recorded/trajectories.py --pools DIR --side dev --out tb.jsonl.gz

The first form measures the rules and writes the tables of docs/results/agent_trajectories.md, the second makes a pool
of the runs on Terminal-Bench, which `recorded/` replays.

A run has ended by itself if it submitted (mini-swe-agent), or if its last call has a result (Capy, whose last message
is not recorded). A submission becomes a final turn, with the text "Submitted." if it has none.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from data import Row, arguments, fingerprint, grouped, read

sys.path.append(str(Path(__file__).resolve().parents[1]))

from reason.agents.trajectories.selection import Choice, choose
from reason.agents.trajectories.trajectory import Trajectory
from reason.core.messages import Tool, ToolCall
from reason.core.types import Question
from reason.evals.statistics.intervals import Interval, wilson
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import compare_paired
from reason.reasoning.answers.equivalence import Equivalence
from reason.serving.recorded.pool import PoolSample, write_pool
from reporting import Comparison, compared, comparisons_table, made_here, table, write_comparisons, write_section

PAGE, NAME = "agent_trajectories", "recorded_trajectories"
SUBMISSION = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
NO_TEXT = "Submitted."
READS = ("calculate", "get_", "list_", "search_", "think", "transfer_")
"""Beginnings of the names of the airline's tools that change nothing."""


# -- the runs


def turns_of(row: Row) -> list[dict[str, Any]]:
    """The turns of a run on Terminal-Bench; the last one calls nothing if the run ended by itself."""
    turns = []
    for step in row["steps"]:
        results = [*step["results"], *[""] * (len(step["calls"]) - len(step["results"]))]
        if len(results) > len(step["calls"]):  # a call that wrote several
            results = [*results[: len(step["calls"]) - 1], "\n".join(results[len(step["calls"]) - 1 :])]
        turns.append({"text": step["message"] or "", "calls": step["calls"], "results": results})
    last = row["steps"][-1]
    if row["agent"] == "mini-swe-agent":
        if SUBMISSION in json.dumps(last["calls"]):
            turns[-1] = {"text": last["message"] or NO_TEXT}
    elif len(last["results"]) == len(last["calls"]):
        turns.append({"text": NO_TEXT})
    return turns


def terminal_samples(rows: Sequence[Row]) -> Iterator[PoolSample]:
    """The runs on Terminal-Bench."""
    names: dict[str, set[str]] = {}
    for row in rows:
        names.setdefault(row["dataset"], set()).update(call["name"] for step in row["steps"] for call in step["calls"])
    for row in rows:
        schema = {"type": "object", "properties": {"keystrokes": {"type": "string"}}}
        tools = [{"name": name, "parameters": schema, "effect": "write"} for name in sorted(names[row["dataset"]])]
        kept = (
            "model",
            "dataset",
            "question_id",
            "question",
            "sample",
            "correct",
            "prompt_tokens",
            "completion_tokens",
        )
        yield PoolSample.model_validate(
            {
                **{key: row[key] for key in kept},
                "answer": None,
                "usd": row["cost_usd"],
                "seconds": row["seconds"],
                "tools": tools if row["sample"] == 0 else None,
                "turns": turns_of(row),
            }
        )


def as_trajectory(sample: PoolSample) -> Trajectory:
    """A recorded run as a choice sees it."""
    turns = sample.turns or ()
    has_ended = not turns[-1].calls
    return Trajectory(
        index=sample.sample,
        ended=has_ended,
        answer=turns[-1].text if has_ended else None,
        writes=tuple(one.call for turn in turns for one in turn.calls),
        num_calls=sum(len(turn.calls) for turn in turns),
        num_turns=len(turns),
        tokens=sample.completion_tokens or 0,
        seconds=sample.seconds or 0.0,
    )


def airline_tools(world: Row) -> list[Tool]:
    """The airline's tools with their effects."""
    functions = [one["function"] for one in world["tools"]]
    return [
        Tool(
            name=one["name"],
            description=one["description"],
            parameters=one["parameters"],
            effect="read" if one["name"].startswith(READS) else "write",
        )
        for one in functions
    ]


def airline_trajectory(row: Row, tools: Sequence[Tool]) -> Trajectory:
    """A recorded conversation; its changes are the calls of writing tools whose result is no error."""
    writing = {tool.name for tool in tools if tool.effect == "write"}
    calls: list[ToolCall] = []
    changes: list[ToolCall] = []
    for message in row["messages"]:
        calls += [ToolCall(**call["function"]) for call in message.get("tool_calls") or ()]
        is_result = message["role"] == "tool" and calls[-1].name in writing
        if is_result and not message["content"].startswith("Error"):
            changes.append(calls[-1])
    return Trajectory(
        index=row["sample"],
        ended=True,
        answer=next((m.get("content") for m in reversed(row["messages"]) if m["role"] == "assistant"), None) or NO_TEXT,
        writes=tuple(changes),
        num_calls=len(calls),
        num_turns=sum(message["role"] == "assistant" for message in row["messages"]),
    )


# -- the choices


@dataclass(frozen=True)
class Task:
    """The runs of one task by one agent, and whether each is right."""

    name: str
    runs: tuple[Trajectory, ...]
    correct: tuple[bool, ...]

    @property
    def is_mixed(self) -> bool:
        """Whether some are right and some wrong."""
        return len(set(self.correct)) > 1

    async def choice(self, rule: str, some: Sequence[Trajectory], tools: Sequence[Tool] = ()) -> Choice:
        """The rule's choice among some of the runs."""
        async with Equivalence() as equivalence:
            return await choose(rule, some, tools=tools, question=Question(text=self.name), equivalence=equivalence)

    async def scores(self, rule: str, size: int) -> dict[str, float]:
        """Whether the choice is right, for every subset of a size."""
        found = {}
        for some in combinations(self.runs, size):
            position = (await self.choice(rule, some)).position
            assert position is not None
            found[str([one.index for one in some])] = float(self.correct[self.runs.index(some[position])])
        return found


async def outcomes(agents: Mapping[str, Sequence[Task]], rule: str, size: int) -> Outcomes:
    """The scores of a rule on all tasks of some agents, by task."""
    scores = {f"{agent} {task.name}": await task.scores(rule, size) for agent, own in agents.items() for task in own}
    groups = {f"{agent} {task.name}": task.name for agent, own in agents.items() for task in own}
    return Outcomes.of(scores, groups)


def race_costs(tasks: Sequence[Task], size: int) -> tuple[float, float]:
    """What a race costs, in mean runs, and how long it takes, in mean times of one run."""
    spent, waited = [], []
    for task in tasks:
        for some in combinations(task.runs, size):
            ended = [one.seconds for one in some if one.ended]
            end = min(ended, default=max(one.seconds for one in some))
            spent.append(sum(min(one.seconds, end) for one in some))
            waited.append(end)
    mean = fmean(one.seconds for task in tasks for one in task.runs)
    return fmean(spent) / mean, fmean(waited) / mean


METHODS = (
    ("one at random", "ended-fewest-calls", 1),
    ("`race` of 3", "race", 3),
    ("`race` of 5", "race", 5),
    ("`ended-fewest-calls` of 3", "ended-fewest-calls", 3),
    ("`ended-fewest-calls` of 5", "ended-fewest-calls", 5),
)


async def terminal_tables(agents: Mapping[str, Sequence[Task]]) -> tuple[str, list[Comparison]]:
    """The methods on Terminal-Bench, and their comparisons with one run at random on both agents together."""
    rows = []
    for method, rule, size in METHODS:
        cells = [method]
        for agent, tasks in agents.items():
            cost, wait = race_costs(tasks, size) if rule == "race" else (float(size), 1.0)
            own = await outcomes({agent: tasks}, rule, size)
            cells += [f"{own.p.mean():.3f}", f"{cost:.2f}", f"{wait:.2f}" if rule == "race" or size == 1 else "slowest"]
        rows.append(cells)
    best = [f"{fmean(float(any(task.correct)) for task in tasks):.3f}" for tasks in agents.values()]
    rows.append(["best of 5 (bound)", *(cell for share in best for cell in (share, "5.00", "slowest"))])
    names = [agent.rpartition("/")[2] for agent in agents]
    head = ("method", *(f"{name} {what}".strip() for name in names for what in ("right", "runs", "waiting")))
    one = await outcomes(agents, *METHODS[0][1:])
    results = [
        (f"recorded-trajectories/{rule}-{size}-vs-random", f"{method}", "one run at random", compare_paired(other, one))
        for method, rule, size in METHODS[1:]
        for other in [await outcomes(agents, rule, size)]
    ]
    return table(head, rows), compared(results, "tasks solved")


async def airline_table(tasks: Sequence[Task], tools: Sequence[Tool]) -> str:
    """What `agreement` chooses, by the number of conversations that agree."""
    by_votes: dict[str, list[bool]] = {"4 of 4": [], "3 of 4": [], "none: the user is asked": []}
    for task in tasks:
        choice = await task.choice("agreement", task.runs, tools)
        if choice.position is None:
            by_votes["none: the user is asked"].append(any(task.correct))
        else:
            by_votes[choice.reason[:6]].append(task.correct[choice.position])
    rows = []
    for votes, right in by_votes.items():
        is_chosen = "of" in votes
        ends = wilson(sum(right), len(right)) if right and is_chosen else None
        rows.append(
            (
                votes,
                str(len(right)),
                f"{sum(right)}{shown(ends)}" if is_chosen else "",
                f"{sum(right)}" * (not is_chosen),
            )
        )
    return table(("conversations that agree", "tasks", "chosen one is right", "some conversation is right"), rows)


def shown(ends: Interval | None) -> str:
    """An interval of a share within a cell."""
    return "" if ends is None else f" [{ends.low:.2f}, {ends.high:.2f}]"


def tasks_of(samples: Sequence[PoolSample]) -> dict[str, list[Task]]:
    """The tasks of each agent."""
    agents: dict[str, list[Task]] = {}
    for key, own in grouped(
        [{"sample": one} for one in samples], lambda r: (r["sample"].model, r["sample"].question_id)
    ).items():
        runs = [row["sample"] for row in own]
        agent, name = key  # type: ignore[misc]
        task = Task(name, tuple(map(as_trajectory, runs)), tuple(bool(run.correct) for run in runs))
        agents.setdefault(agent, []).append(task)
    return agents


async def report(pools: Path, side: str, samples: Sequence[PoolSample]) -> tuple[str, list[Comparison]]:
    """The generated part of the page, and its comparisons."""
    agents = tasks_of(samples)
    tools = airline_tools(read(pools, "dev", "tau_airline_world")[0])
    airline = [
        Task(
            str(name),
            tuple(airline_trajectory(row, tools) for row in rows),
            tuple(bool(row["correct"]) for row in rows),
        )
        for name, rows in grouped(read(pools, side, "tau_airline"), lambda row: row["question_id"]).items()
    ]
    methods, comparisons = await terminal_tables(agents)
    sizes = []
    for agent, own in agents.items():
        runs = [run for task in own for run in task.runs]
        mixed, ended = sum(task.is_mixed for task in own), sum(run.ended for run in runs)
        sizes.append(
            f"{agent}: {len(own)} tasks, {mixed} of them mixed, {ended} of {len(runs)} runs ended by themselves"
        )
    single = fmean(float(right) for task in airline for right in task.correct)
    text = [
        f"Terminal-Bench ({side} half), five runs of a task. {'; '.join(sizes)}.",
        methods,
        "Runs are counted in mean runs, waiting in mean times of one run; a race stops the others when one has ended. "
        "Means are over all subsets of the five runs.",
        "Both agents together, grouped by task; p-values are adjusted for the four comparisons (Holm):",
        comparisons_table(comparisons),
        f"tau-bench airline ({side} half), {len(airline)} tasks, {sum(task.is_mixed for task in airline)} mixed, four "
        f"conversations of gpt-4o each; one at random is right in {single:.3f}:",
        await airline_table(airline, tools),
        f"Pools: {', '.join(fingerprint(pools, side, name) for name in ('terminal_bench', 'tau_airline'))}. "
        f"{made_here()}",
    ]
    return "\n\n".join(text), comparisons


def main() -> None:
    """Write the pool, or the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--out", type=Path, help="write the pool to this file instead")
    options = parser.parse_args()
    samples = list(terminal_samples(read(options.pools, options.side, "terminal_bench")))
    if options.out is not None:
        write_pool(options.out, samples)
        print(f"{len(samples)} runs")
        return
    text, comparisons = asyncio.run(report(options.pools, options.side, samples))
    write_section(options.docs / "results" / f"{PAGE}.md", PAGE, text)
    write_comparisons(options.docs / "results" / "comparisons" / f"{NAME}.json", comparisons)
    print(text)


if __name__ == "__main__":
    main()
