"""The sweeps that `rlot_table.py` makes its tables of: all policies of `rlot` beside chains that are merely sampled."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sweep_text import strategy_blocks

POLICIES = ("learned", "fixed", "llm", "random", "prm-greedy")
"""The policies of `rlot`, in the order of the tables."""


def sweep_files(given: argparse.Namespace) -> dict[Path, str]:
    """A sweep for each dataset as TOML, by its file."""
    models = "\n".join(
        f"[[models]]\nmain = {json.dumps(name)}\n"
        + (f"reward = {json.dumps(given.reward_model)}\n" if given.reward_model else "")
        for name in given.models
    )
    files: dict[Path, str] = {}
    for word in given.data:
        name, _, file = word.partition("=")
        lines = ["[[dataset]]", f"name = {json.dumps(absolute_if_file(name))}"]
        lines += [f"data = {json.dumps(str(Path(file).absolute()))}"] if file else []
        lines += [f"limit = {given.limit}"] if given.limit else []
        own = name.endswith((".jsonl", ".csv"))
        lines += [f"options = {{kind = {json.dumps(given.kind)}}}"] if own and given.kind else []
        path = given.out / f"{Path(name).stem.replace(':', '-')}.toml"
        if path in files:
            raise SystemExit(f"two datasets would be written to {path}")
        parts = [f"seeds = {given.seeds}\n", models, "\n".join(lines) + "\n", *strategy_blocks(methods(given))]
        files[path] = "\n".join(parts)
    return files


def methods(given: argparse.Namespace) -> list[tuple[str, dict[str, object]]]:
    """Strategies with their parameters as TOML; self-consistency with more samples first."""
    chains: dict[str, object] = {"max_tokens": given.max_tokens}
    found: list[tuple[str, dict[str, object]]] = [
        ("self-consistency", {**chains, "n": n, "temperature": 0.7}) for n in sorted(given.samples, reverse=True)
    ]
    found.append(("cot", {**chains, "temperature": 0.0}))
    shared: dict[str, object] = dict(word.split("=", 1) for word in given.set)
    for policy in given.policies:
        if policy == "prm-greedy" and not given.reward_model:
            continue
        navigators = given.navigator if policy == "learned" else [None]
        for navigator in navigators:
            own = {} if navigator is None else {"navigator": json.dumps(absolute_if_file(navigator))}
            for votes in given.votes if policy == "learned" else [1]:
                found.append(("rlot", {"policy": json.dumps(policy), **own, "n_votes": votes, **shared}))
    return found


def absolute_if_file(name: str) -> str:
    """A file's absolute path; any other name as it is."""
    return str(Path(name).absolute()) if name.endswith((".jsonl", ".csv", ".safetensors")) else name
