r"""Routers that share a chain of thought between two models: a table for each dataset.

    python training/routers/train_router.py glimprouter runs/calibrate --out pair.json
    python benchmarks/router_table.py plan --large LARGE --small SMALL --data gsm8k=FILE math500=FILE --limit 100 \
        --routers pair.json --rates 0.1 0.5 --out plans
    reason eval sweep plans/gsm8k.toml --out runs/gsm8k --concurrency 1 --reuse none
    reason eval sweep plans/gsm8k-small.toml --out runs/gsm8k-small --concurrency 1 --reuse none
    python benchmarks/router_table.py table runs/gsm8k runs/gsm8k-small > table.md

Seconds are those of uninterrupted rows without reused calls. They are latencies only with `--concurrency 1`;
`table --batched` prints none for concurrent rows. To spread a machine's changes of speed over all methods, split the
questions into files of one and let `table --pool` join them. Step counts and shares come from the run store's notes.

The latency model of a chain that two models write:

    T = sum over the calls of   prefill(model) * computed prompt tokens + step(model) * generated tokens

With a prefix cache, a model computes only the text that the other one has written since its last call.

Source: the accounting of Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, whose probes cost a small prefill and one
token. The linear model is ours: for one request at a time it is close, under batching it is not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydantic import JsonValue
from reason.core.errors import DataError
from reason.core.events import CallFinished, CallStarted, Event
from reason.core.store.sqlite import SqliteStore
from reason.evals.results import ResultRow
from reason.evals.run_directory import EvalRun, SolutionNotes, final_notes, load_run, run_store_path
from reason.evals.summary import latency
from reason.routers.transcript import Writer
from reporting import difference_cells, made_here, strategy_blocks
from rlot_table import accuracy, compared_runs
from scipy.optimize import nnls

Spent = tuple[Writer, int, int]
"""Which model, computed prompt tokens, generated tokens."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One timed call.

    Attributes:
        writer: The model; that in the role "main" is the large one.
        computed: Tokens of its prompts that were not cached.
        generated: Generated tokens.
        seconds: How long it took, in seconds.
    """

    writer: Writer
    computed: int
    generated: int
    seconds: float


@dataclass(frozen=True)
class LatencyModel:
    """Seconds for each token, by model.

    Attributes:
        prefill_s: Seconds for a computed prompt token.
        token_s: Seconds for a generated token.
    """

    prefill_s: dict[Writer, float] = field(default_factory=dict)
    token_s: dict[Writer, float] = field(default_factory=dict)

    def predict(self, calls: Iterable[Spent]) -> float:
        """Seconds that calls take one after another.

        Raises:
            DataError: No call of one of the models was timed.
        """
        seconds = 0.0
        for writer, computed, generated in calls:
            if writer not in self.token_s:
                raise DataError(
                    f"no call of the {writer} model was timed", hint="fit the latency to runs that called both models"
                )
            seconds += self.prefill_s[writer] * computed + self.token_s[writer] * generated
        return seconds


def observations(events: Sequence[Event]) -> list[Observation]:
    """The timed calls in a run's events.

    Calls that the run store answered, all or in part, are excluded. A cancelled call has no report of its cached tokens
    and counts as if its complete prompt was computed.
    """
    begun = {e.number: e for e in events if isinstance(e, CallStarted) and e.operation == "generate" and not e.replayed}
    timed: list[Observation] = []
    for event in events:
        start = begun.get(event.parent or 0)
        if isinstance(event, CallFinished) and start is not None and start.role in ("main", "small"):
            computed = max(0, event.prompt_tokens - event.cached_tokens)
            writer: Writer = "large" if start.role == "main" else "small"
            timed.append(Observation(writer, computed, event.tokens, event.seconds))
    return timed


def fit(timed: Iterable[Observation]) -> LatencyModel:
    """The seconds for each token that explain the calls best: non-negative least squares, each model by itself.

    Raises:
        DataError: There is no call.
    """
    rows: dict[Writer, list[Observation]] = defaultdict(list)
    for one in timed:
        rows[one.writer].append(one)
    if not rows:
        raise DataError("there is no timed call to fit a latency to", hint="use a run that was not replayed")
    prefill: dict[Writer, float] = {}
    token: dict[Writer, float] = {}
    for writer, of_one in rows.items():
        tokens = np.array([[one.computed, one.generated] for one in of_one], dtype=np.float64)
        found, _ = nnls(tokens, np.array([one.seconds for one in of_one], dtype=np.float64))
        prefill[writer], token[writer] = float(found[0]), float(found[1])
    return LatencyModel(prefill, token)


UNKNOWN = ""
LOOPS = ("glimprouter",)
ORDER = ("cot", "large", "small", "glimprouter", "random", "cascade")


@dataclass(frozen=True)
class NotedRun:
    """A run with what its items noted.

    Attributes:
        run: The run.
        notes: What each row's solution noted; None for a row without one, or where there is no store.
        timed: The calls that took time.
    """

    run: EvalRun
    notes: tuple[SolutionNotes | None, ...]
    timed: tuple[Observation, ...] = ()

    @property
    def rows(self) -> list[ResultRow]:
        """The rows."""
        return self.run.rows

    @property
    def intervention_rate(self) -> float | None:
        """The share of all steps that the large model wrote; None without steps."""
        writers = [w for noted in self.notes for w in _list(noted, "writers")]
        return writers.count("large") / len(writers) if writers else None


async def read_noted_runs(runs: Sequence[EvalRun], store: Path | None) -> list[NotedRun]:
    """Runs with what the run store knows of them; a store that is gone leaves it out."""
    results: list[NotedRun] = []
    for run in runs:
        position = run_store_path(run, store)
        if not position.exists():
            results.append(NotedRun(run, (None,) * len(run.rows)))
            continue
        opened = await SqliteStore.open(position)
        try:
            values = [await opened.list_events(row.run_id) for row in run.rows]
        finally:
            await opened.aclose()
        timed = [one for events in values for one in observations(events)]
        results.append(NotedRun(run, tuple(map(final_notes, values)), tuple(timed)))
    return results


# -- methods


def kind_of(run: EvalRun) -> str:
    """The strategy, or the policy of a step loop that is no router."""
    plan = run.manifest.plan
    policy = str(plan.parameters.get("policy", "")) if plan.strategy == "glimprouter" else ""
    return policy if policy in ("large", "small", "random") else plan.strategy


def order_of(run: EvalRun) -> tuple[int, str, float]:
    """Baselines first, then routers, each by what it varies."""
    plan, kind = run.manifest.plan, kind_of(run)
    varied = next((p for n in ("threshold", "rate") if _is_number(p := plan.parameters.get(n))), 0)
    at = ORDER.index(kind) if kind in ORDER else len(ORDER)
    return at, "" if "small" in plan.models else "alone", float(str(varied))


def method_of(run: EvalRun, large: str) -> str:
    """A short name of a method."""
    plan, kind = run.manifest.plan, kind_of(run)
    args: Mapping[str, JsonValue] = plan.parameters
    match kind:
        case "cot":
            return f"{'large' if plan.models['main'] == large or not large else 'small'}, one request"
        case "large" | "small":
            return f"{kind}, step by step"
        case "random":
            return f"by chance, rate {args['rate']}"
        case "cascade":
            first = args.get("first_parameters")
            samples = f", n = {first['n']}" if isinstance(first, dict) and "n" in first else ""
            return f"cascade, {args['first']}{samples}, threshold {args['threshold']}"
        case "glimprouter":
            at = f"threshold {float(str(args['threshold'])):.4g}"
            rate = "" if args.get("rate") is None else f", rate {args['rate']}"
            router = f", {Path(str(args['router'])).stem}" if args.get("router") else ""
            return f"glimprouter, {at}{router}{rate}"
    return plan.strategy


def is_baseline(run: EvalRun, kind: str, large: str) -> bool:
    """Whether the large model does everything in a run, in one request ("cot") or in steps ("large")."""
    return kind_of(run) == kind and run.manifest.plan.models["main"] == large


# -- cells


def seconds(rows: Sequence[ResultRow]) -> str:
    """Median and 95th percentile of the rows that were answered in one go, and how many those were."""
    result = latency(uninterrupted_seconds(rows))
    return UNKNOWN if result is None else f"{result.p50:.2f} / {result.p95:.2f} ({result.n})"


def uninterrupted_seconds(rows: Sequence[ResultRow]) -> list[float]:
    """Seconds of the rows that were answered in one go."""
    return [row.timing.wall_s for row in rows if row.timing.uninterrupted and row.error is None]


def tokens_of(watched: NotedRun, writer: str, large: str) -> str:
    """Generated tokens of one of the models, a mean a question."""
    plan = watched.run.manifest.plan
    role = "small" if writer == "small" and "small" in plan.models else "main"
    if role == "main" and (plan.models["main"] == large or not large) != (writer == "large"):
        return f"{0:,.0f}"
    spent = [
        sum(n for key, n in row.ledger.tokens_by_role.items() if key.startswith(f"{role}:")) for row in watched.rows
    ]
    return f"{np.mean(spent):,.0f}"


def share_cells(watched: NotedRun) -> list[str]:
    """Tokens thrown away, steps, and the large model's shares of steps (or questions) and of text."""
    notes = [noted for noted in watched.notes if noted is not None]
    kind = kind_of(watched.run)
    if watched.run.manifest.plan.strategy in LOOPS and notes:
        steps = [len(_list(noted, "writers")) for noted in notes]
        rate, text = watched.intervention_rate, text_share(notes)
        return [
            f"{np.mean([discarded_tokens(noted) for noted in notes]):,.0f}",
            f"{np.mean(steps):.1f}",
            UNKNOWN if rate is None else f"{100 * rate:.1f}",
            UNKNOWN if text is None else f"{100 * text:.1f}",
        ]
    requests = [a for noted in notes if (a := _used_large(kind, noted)) is not None]
    return [UNKNOWN, UNKNOWN, f"{100 * np.mean(requests):.1f}" if requests else UNKNOWN, UNKNOWN]


def discarded_tokens(notes: SolutionNotes) -> int:
    """Generated tokens of probes and of steps that were not kept."""
    return sum(_tokens(notes, writer, purpose) for writer in ("large", "small") for purpose in ("probes", "discarded"))


def text_share(notes: Sequence[SolutionNotes]) -> float | None:
    """The share of the kept steps' tokens that the large model wrote, over all questions."""
    large = sum(_tokens(noted, "large", "steps") for noted in notes)
    both = large + sum(_tokens(noted, "small", "steps") for noted in notes)
    return large / both if both else None


# -- speeds


def speeds(runs: Sequence[NotedRun]) -> list[str]:
    """A row for each model that was timed in step loops."""
    timed: list[Observation] = []
    names: dict[str, str] = {}
    for watched in runs:
        plan = watched.run.manifest.plan
        if plan.strategy not in LOOPS or "small" not in plan.models:
            continue
        timed += watched.timed
        names = {"large": plan.models["main"], "small": plan.models["small"]}
    if not timed:
        return []
    result = fit(timed)
    return [
        f"| {names[w].rpartition('/')[2]} | {sum(one.writer == w for one in timed):,} "
        f"| {1000 * result.prefill_s[w]:.3f} | {1000 * result.token_s[w]:.2f} |"
        for w in ("large", "small")
        if w in result.token_s
    ]


# -- reading notes


def _used_large(kind: str, notes: SolutionNotes) -> bool | None:
    if kind == "cascade":
        requests = notes.get("asked_large")
        return requests if isinstance(requests, bool) else None
    return None


def _tokens(notes: SolutionNotes, writer: str, purpose: str) -> int:
    table = notes.get("tokens")
    row = table.get(writer) if isinstance(table, dict) else None
    value = row.get(purpose, 0) if isinstance(row, dict) else 0
    return value if isinstance(value, int) else 0


def _list(notes: SolutionNotes | None, name: str) -> list[JsonValue]:
    result = None if notes is None else notes.get(name)
    return result if isinstance(result, list) else []


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Method = tuple[str, dict[str, object]]
"""A strategy with its parameters as they stand in TOML."""


def add_plan(plan: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    plan.add_argument("--large", required=True)
    plan.add_argument("--small", required=True)
    plan.add_argument("--data", nargs="+", required=True, metavar="NAME[=FILE]")
    plan.add_argument("--out", type=Path, required=True)
    plan.add_argument("--thresholds", type=float, nargs="*", default=[], help="in nats, of glimprouter")
    plan.add_argument("--routers", type=Path, nargs="*", default=[], help="router files, each at its own rate")
    plan.add_argument("--rates", type=float, nargs="*", default=[], help="further rates of each router file")
    plan.add_argument("--random-rates", type=float, nargs="*", default=[], help="steps by chance at these rates")
    plan.add_argument(
        "--random-like", type=Path, nargs="*", default=[], help="runs of glimprouter whose rate chance takes"
    )
    plan.add_argument("--cascade", type=float, nargs="*", default=[0.6], help="thresholds of the cascade")
    plan.add_argument("--cascade-samples", type=int, default=8)
    plan.add_argument("--calibration", type=Path, help="map of self-consistency on the small model, for the cascade")
    plan.add_argument("--max-tokens", type=int, default=2048, help="of a chain in one request")
    plan.add_argument("--limit", type=int)
    plan.add_argument("--seeds", type=int, nargs="+", default=[0])
    plan.add_argument("--kind", default="", help="kind of answers of files of one's own, as number")
    plan.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of every step loop, in TOML")


def sweep_files(options: argparse.Namespace, measured: list[float]) -> dict[Path, str]:
    """Two sweeps for each dataset as TOML, by file: of both models, and of the small one only."""
    both = f"[[models]]\nmain = {json.dumps(options.large)}\nsmall = {json.dumps(options.small)}\n"
    single = f"[[models]]\nmain = {json.dumps(options.small)}\n"
    files: dict[Path, str] = {}
    for word in options.data:
        name, _, file = word.partition("=")
        own = name.endswith((".jsonl", ".csv"))
        lines = ["[[dataset]]", f"name = {json.dumps(str(Path(name).absolute()) if own else name)}"]
        lines += [f"data = {json.dumps(str(Path(file).absolute()))}"] if file else []
        lines += [f"limit = {options.limit}"] if options.limit else []
        lines += [f"options = {{kind = {json.dumps(options.kind)}}}"] if own and options.kind else []
        stem = Path(name).stem.replace(":", "-")
        for ending, models, several in (("", both, methods(options, measured)), ("-small", single, [chain(options)])):
            path = options.out / f"{stem}{ending}.toml"
            if path in files:
                raise SystemExit(f"two datasets would be written to {path}")
            parts = [f"seeds = {options.seeds}\n", models, "\n".join(lines) + "\n", *strategy_blocks(several)]
            files[path] = "\n".join(parts)
    return files


def methods(options: argparse.Namespace, measured: list[float]) -> list[Method]:
    """What shares questions between the two, and either of them only."""
    shared: dict[str, object] = dict(word.split("=", 1) for word in options.set)

    def loop(strategy: str, **own: object) -> Method:
        return strategy, {**{name: _toml(value) for name, value in own.items()}, **shared}

    results = [chain(options), loop("glimprouter", policy="large"), loop("glimprouter", policy="small")]
    results += [loop("glimprouter", threshold=at) for at in options.thresholds]
    for file in map(_absolute, options.routers):
        results.append(loop("glimprouter", router=file))
        results += [loop("glimprouter", router=file, rate=rate) for rate in options.rates]
    results += [
        loop("glimprouter", policy="random", rate=rate) for rate in dict.fromkeys([*options.random_rates, *measured])
    ]
    results += [("cascade", _cascade(options, at)) for at in options.cascade]
    return results


def chain(options: argparse.Namespace) -> Method:
    """A complete chain in one request."""
    return "cot", {"max_tokens": options.max_tokens}


def _cascade(args: argparse.Namespace, threshold: float) -> dict[str, object]:
    samples = f"{{n = {args.cascade_samples}, max_tokens = {args.max_tokens}}}"
    then = f"{{max_tokens = {args.max_tokens}}}"
    results: dict[str, object] = {"threshold": threshold, "first_parameters": samples, "then_parameters": then}
    if args.calibration is not None:
        results["calibration"] = _toml(_absolute(args.calibration))
    return results


def _absolute(path: Path) -> str:
    return str(path.absolute())


def _toml(value: object) -> object:
    return json.dumps(value) if isinstance(value, str) else value


BASELINES = (("cot", "large, one request"), ("large", "large, step by step"))
"""The baselines of every method: the large model writes everything."""


def main() -> int:
    """Write the sweeps, or print the tables of those that were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add_plan(commands.add_parser("plan", help="write two sweeps for each dataset"))
    table = commands.add_parser("table", help="print a table for each dataset")
    table.add_argument("runs", type=Path, nargs="+", help="folders that `reason eval sweep` wrote")
    table.add_argument("--store", type=Path, help="the run store, where it is not where the runs say")
    table.add_argument("--batched", action="store_true", help="rows were answered side by side: print no seconds")
    table.add_argument("--pool", action="store_true", help="all datasets are pieces of one")
    args = parser.parse_args()
    if args.command == "plan":
        measured = [measured_rate(directory) for directory in args.random_like]
        for path, text in sweep_files(args, measured).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path)
    else:
        runs = [
            load_run(p) for directory in args.runs for p in sorted(directory.iterdir()) if (p / "run.json").exists()
        ]
        watched = asyncio.run(read_noted_runs(runs, args.store))
        print(report(pooled(watched) if args.pool else watched, timed=not args.batched))
    return 0


def measured_rate(directory: Path) -> float:
    """The share of steps that a run of `glimprouter` sent to the large model, to a thousandth."""
    (watched,) = asyncio.run(read_noted_runs([load_run(directory)], None))
    rate = watched.intervention_rate
    if rate is None:
        raise SystemExit(f"{directory} is no run whose steps were routed")
    return round(rate, 3)


def pooled(runs: Sequence[NotedRun]) -> list[NotedRun]:
    """Runs of the same method on the pieces of a dataset as one run each; the first piece lends its name."""
    first = runs[0].run.manifest.plan.dataset
    by_method: dict[str, tuple[EvalRun, list[NotedRun]]] = {}
    for watched in runs:
        run = watched.run
        plan = run.manifest.plan.model_copy(update={"dataset": first})
        named = replace(run, manifest=run.manifest.model_copy(update={"plan": plan}))
        by_method.setdefault(plan.model_dump_json(), (named, []))[1].append(watched)
    results: list[NotedRun] = []
    for named, pieces in by_method.values():
        full = replace(named, rows=[row for piece in pieces for row in piece.rows])
        notes = tuple(noted for piece in pieces for noted in piece.notes)
        results.append(NotedRun(full, notes, tuple(one for piece in pieces for one in piece.timed)))
    return results


def report(runs: Sequence[NotedRun], *, timed: bool) -> str:
    """A table for each dataset, in the order of their names; with seconds, or without."""
    by_dataset: dict[tuple[str, str], list[NotedRun]] = {}
    for run in runs:
        use = run.run.manifest.plan.dataset
        by_dataset.setdefault((use.full_name, use.fingerprint), []).append(run)
    parts = [made_here()]
    for (name, _), several in sorted(by_dataset.items(), key=lambda pair: pair[0]):
        parts.append(dataset_table(name, several, timed=timed))
        parts += timing(several) if timed else []
    return "\n\n".join(parts)


def dataset_table(name: str, runs: Sequence[NotedRun], *, timed: bool) -> str:
    """One dataset: a row for each method, by pair of models."""
    rows = max(len(run.rows) for run in runs)
    heads = [
        "method",
        "right % [95 %]",
        *(["s p50 / p95 (n)"] if timed else []),
        "tokens large",
        "tokens small",
        "discarded",
        "steps",
        "to large %",
        "large's share of the text %",
        *(f"less {label} [95 %]" for _, label in BASELINES),
    ]
    lines = [
        f"## {name}",
        "",
        f"{rows} rows each. Tokens are generated ones; tokens and steps are means a question; differences are in "
        "points. To large: share of the steps that it wrote; of a cascade or question router, share of its "
        "questions.",
        "",
        "| " + " | ".join(heads) + " |",
        "| --- | " + " | ".join(["---:"] * (len(heads) - 1)) + " |",
    ]
    ordered = sorted(runs, key=lambda run: order_of(run.run))
    large = next(
        (run.run.manifest.plan.models["main"] for run in ordered if "small" in run.run.manifest.plan.models), ""
    )
    baselines = [baseline(ordered, kind, large) for kind, _ in BASELINES]
    columns = [difference_cells([compared_runs(run.run, base) for run in ordered], UNKNOWN) for base in baselines]
    for at, run in enumerate(ordered):
        cells = [
            method_of(run.run, large),
            accuracy(run.run),
            *([seconds(run.rows)] if timed else []),
            tokens_of(run, "large", large),
            tokens_of(run, "small", large),
            *share_cells(run),
            *(column[at] for column in columns),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def baseline(runs: Sequence[NotedRun], kind: str, large: str) -> EvalRun | None:
    """The run in which the large model did everything; None if there is none."""
    return next((run.run for run in runs if is_baseline(run.run, kind, large)), None)


def timing(runs: Sequence[NotedRun]) -> list[str]:
    """Seconds for each token of the two models, from the calls that were timed."""
    rows = speeds(runs)
    if not rows:
        return []
    head = "| model | calls | ms a computed prompt token | ms a generated token |"
    explained = (
        "Least squares over the calls of step loops that the run store did not answer; a latency "
        "model only if one row at a time was in flight."
    )
    return ["\n".join(["### Seconds by token", "", explained, "", head, "| --- | ---: | ---: | ---: |", *rows])]


if __name__ == "__main__":
    sys.exit(main())
