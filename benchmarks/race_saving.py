r"""Tokens of a run with a stopping rule next to those of a run that draws all samples.

    reason eval gsm8k --data DATA --limit 20 -s self-consistency --set n=16 --reuse store --store POOL --out fixed
    reason eval gsm8k --data DATA --limit 20 -s self-consistency --set n=16 --set mode=race \
        --set 'stopping={"rule": "dirichlet", "cost": 0.09}' --reuse run --out race
    python benchmarks/race_saving.py fixed race

Both runs have the same questions and seeds. The race has to be live (`--reuse run`): stored samples finish at once, so
nothing could be cancelled. Its tokens are those of the ledger, cancelled samples included; the script compares them
with the tokens of every response in the race's run store.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import numpy as np
from reason.core.store.sqlite import SqliteStore
from reason.evals.run_directory import STORE, EvalRun, load_run
from reason.evals.statistics.paired import compare_paired
from reason.evals.summary import outcomes_of
from reporting import p_value, paired_points

RESAMPLES = 10_000


def main() -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fixed", type=Path, help="directory of the run that draws all samples")
    parser.add_argument("race", type=Path, help="directory of the run with a stopping rule")
    args = parser.parse_args()
    fixed, race = load_run(args.fixed), load_run(args.race)
    tokens = {r.key: r.ledger.completion_tokens for r in fixed.rows}
    shared = [r for r in race.rows if r.key in tokens and r.error is None]
    spent = np.array([[tokens[r.key], r.ledger.completion_tokens] for r in shared], dtype=float)
    rng = np.random.default_rng(0)
    sums = spent[rng.integers(0, len(spent), (RESAMPLES, len(spent)))].sum(axis=1)
    low, high = np.quantile(1 - sums[:, 1] / sums[:, 0], [0.025, 0.975])
    saved = 1 - spent[:, 1].sum() / spent[:, 0].sum()
    keys = {r.key for r in shared}
    result = compare_paired(outcomes_of(shared), outcomes_of([r for r in fixed.rows if r.key in keys]))
    calls, cut, cut_tokens, stored = asyncio.run(replies_of(race))
    plan = race.manifest.plan
    print(
        f"{plan.dataset.name}, {len(shared)} questions, {plan.models['main'].rpartition('/')[2]}; {plan.parameters}\n"
    )
    print("| | all samples | race |\n| --- | ---: | ---: |")
    print(f"| tokens a question | {spent[:, 0].mean():,.0f} | {spent[:, 1].mean():,.0f} |")
    a, b = (100 * np.mean([r.value for r in rows if r.key in keys]) for rows in (fixed.rows, shared))
    print(f"| accuracy % | {a:.1f} | {b:.1f} |\n")
    print(
        f"Saved: {100 * saved:.1f} % of the tokens (95 % interval over questions {100 * low:.1f} to {100 * high:.1f})."
    )
    print(
        f"Accuracy of the race less all samples: {paired_points(result)} points, {result.wins} won, "
        f"{result.losses} lost, {result.test}: {p_value(result.p)}."
    )
    print(
        f"{calls} samples were begun, {cut} of them cancelled after {cut_tokens / max(cut, 1):.0f} tokens on average. "
        f"Tokens in the store {stored:,}, in the ledger {int(spent[:, 1].sum()):,}: "
        + ("they agree." if stored == int(spent[:, 1].sum()) else "THEY DIFFER.")
    )
    return 0


async def replies_of(run: EvalRun) -> tuple[int, int, int, int]:
    """Samples begun, samples cut, their tokens, and the tokens of all samples, as the run store has them."""
    store = await SqliteStore.open(run.path / STORE)
    try:
        calls = [c for row in run.rows for c in await store.list_calls(row.run_id) if "index" in c.request]
    finally:
        await store.aclose()
    tokens = [(c.truncated, len(ids) if isinstance(ids := c.response.get("token_ids"), list) else 0) for c in calls]
    cut = [n for was_cut, n in tokens if was_cut]
    return len(calls), len(cut), sum(cut), sum(n for _, n in tokens)


if __name__ == "__main__":
    sys.exit(main())
