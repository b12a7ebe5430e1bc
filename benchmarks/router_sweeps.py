"""The sweeps that `router_table.py` makes its tables of: every way of sharing questions between two models."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sweep_text import strategy_blocks

Method = tuple[str, dict[str, object]]
"""A strategy with its parameters as they stand in TOML."""

PROBES = ("speculative", "separate", "reuse")


def add_plan(plan: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    plan.add_argument("--large", required=True)
    plan.add_argument("--small", required=True)
    plan.add_argument("--data", nargs="+", required=True, metavar="NAME[=FILE]")
    plan.add_argument("--out", type=Path, required=True)
    plan.add_argument("--thresholds", type=float, nargs="*", default=[], help="in nats, of glimp")
    plan.add_argument("--routers", type=Path, nargs="*", default=[], help="router files, each at its own rate")
    plan.add_argument("--rates", type=float, nargs="*", default=[], help="further rates of each router file")
    plan.add_argument("--probes", nargs="+", default=["speculative", "separate"], choices=PROBES)
    plan.add_argument("--random-rates", type=float, nargs="*", default=[], help="steps by chance at these rates")
    plan.add_argument("--random-like", type=Path, nargs="*", default=[], help="runs of glimp whose rate chance takes")
    plan.add_argument("--accept", type=float, nargs="*", default=[7], help="digits that specreason accepts")
    plan.add_argument("--cascade", type=float, nargs="*", default=[0.6], help="thresholds of the cascade")
    plan.add_argument("--cascade-samples", type=int, default=8)
    plan.add_argument("--calibration", type=Path, help="map of self-consistency on the small model, for the cascade")
    plan.add_argument("--question-router", type=Path, help="a file of `reason train question-router`")
    plan.add_argument("--question-rates", type=float, nargs="*", default=[], help="further rates of it")
    plan.add_argument("--max-tokens", type=int, default=2048, help="of a chain in one request")
    plan.add_argument("--limit", type=int)
    plan.add_argument("--seeds", type=int, nargs="+", default=[0])
    plan.add_argument("--kind", default="", help="kind of answers of files of one's own, as number")
    plan.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of every step loop, in TOML")


def sweep_files(given: argparse.Namespace, measured: list[float]) -> dict[Path, str]:
    """Two sweeps for each dataset as TOML, by file: of both models, and of the small one alone.

    Args:
        given: The options.
        measured: Rates of the runs that chance is to be like.
    """
    both = f"[[models]]\nmain = {json.dumps(given.large)}\nsmall = {json.dumps(given.small)}\n"
    alone = f"[[models]]\nmain = {json.dumps(given.small)}\n"
    files: dict[Path, str] = {}
    for word in given.data:
        name, _, file = word.partition("=")
        own = name.endswith((".jsonl", ".csv"))
        lines = ["[[dataset]]", f"name = {json.dumps(str(Path(name).absolute()) if own else name)}"]
        lines += [f"data = {json.dumps(str(Path(file).absolute()))}"] if file else []
        lines += [f"limit = {given.limit}"] if given.limit else []
        lines += [f"options = {{kind = {json.dumps(given.kind)}}}"] if own and given.kind else []
        stem = Path(name).stem.replace(":", "-")
        for ending, models, several in (("", both, methods(given, measured)), ("-small", alone, [chain(given)])):
            path = given.out / f"{stem}{ending}.toml"
            if path in files:
                raise SystemExit(f"two datasets would be written to {path}")
            parts = [f"seeds = {given.seeds}\n", models, "\n".join(lines) + "\n", *strategy_blocks(several)]
            files[path] = "\n".join(parts)
    return files


def methods(given: argparse.Namespace, measured: list[float]) -> list[Method]:
    """What shares questions between the two, and either of them alone."""
    shared: dict[str, object] = dict(word.split("=", 1) for word in given.set)

    def loop(strategy: str, **own: object) -> Method:
        return strategy, {**{name: _toml(value) for name, value in own.items()}, **shared}

    found = [chain(given), loop("glimp", policy="large"), loop("glimp", policy="small")]
    for probe in given.probes:
        found += [loop("glimp", threshold=at, probe=probe) for at in given.thresholds]
        for file in map(_absolute, given.routers):
            found.append(loop("glimp", router=file, probe=probe))
            found += [loop("glimp", router=file, rate=rate, probe=probe) for rate in given.rates]
    found += [loop("glimp", policy="random", rate=rate) for rate in dict.fromkeys([*given.random_rates, *measured])]
    found += [loop("specreason", accept=digit) for digit in given.accept]
    found += [("cascade", _cascade(given, at)) for at in given.cascade]
    if given.question_router is not None:
        router = {"router": _toml(_absolute(given.question_router))}
        found.append(("question-router", router))
        found += [("question-router", {**router, "rate": rate}) for rate in given.question_rates]
    return found


def chain(given: argparse.Namespace) -> Method:
    """A whole chain in one request."""
    return "cot", {"max_tokens": given.max_tokens}


def _cascade(given: argparse.Namespace, threshold: float) -> dict[str, object]:
    samples = f"{{n = {given.cascade_samples}, max_tokens = {given.max_tokens}}}"
    then = f"{{max_tokens = {given.max_tokens}}}"
    found: dict[str, object] = {"threshold": threshold, "first_parameters": samples, "then_parameters": then}
    if given.calibration is not None:
        found["calibration"] = _toml(_absolute(given.calibration))
    return found


def _absolute(path: Path) -> str:
    return str(path.absolute())


def _toml(value: object) -> object:
    return json.dumps(value) if isinstance(value, str) else value
