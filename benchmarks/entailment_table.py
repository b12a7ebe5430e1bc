"""Scores of an entailment judge on the project's labelled claims: one row for each set, in Markdown.

    python benchmarks/entailment_table.py /work/shared/data                      # the embedded judge
    python benchmarks/entailment_table.py /work/shared/data --judge lexical --threads 2
    python benchmarks/entailment_table.py DATA --judge FILE.safetensors --sets fever vitaminc --all

Only the claims that `reason train entailment` holds out are scored; `--all` scores every claim of a set, for judges
that were not trained on them and for data of another split.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from reason.core.settings import load_settings
from reason.evals.training.entailment.data import TRAINABLE, Splits, read_cases
from reason.evals.training.entailment.scoring import best_gate, judge_claims, retrieval, score_all
from reason.evals.training.entailment.training import load_training_data, score_table
from reason.verify.entailment.embedded import load_embedded
from reason.verify.entailment.lexical import LexicalEntailment
from reason.verify.entailment.protocol import Entailment, Pair
from reason.verify.types import Support

STRESS = ("fever_symmetric", "climate_fever")


async def opened(name: str) -> Entailment:
    """The judge of a name: "embedded", "lexical", or a file of entailment weights."""
    if name == "lexical":
        return LexicalEntailment()
    return await load_embedded(load_settings(), file=None if name == "embedded" else Path(name))


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", type=Path, help="directory with a directory for each dataset, and corpus/sentences.jsonl"
    )
    parser.add_argument("--judge", default="embedded", help="embedded, lexical, or a file (default: embedded)")
    parser.add_argument("--sets", nargs="+", choices=(*TRAINABLE, *STRESS), default=[*TRAINABLE, *STRESS])
    parser.add_argument("--held-out", type=float, default=0.2, help="share that the training kept back (default: 0.2)")
    parser.add_argument("--all", action="store_true", help="score all claims, not only the held-out ones")
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--json", type=Path, help="file for the scores in JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Score and print."""
    args = parsed(arguments)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    present = [name for name in TRAINABLE if (args.data / name).is_dir()]
    stress = {name: args.data / name for name in STRESS if (args.data / name).is_dir()}
    data = load_training_data(
        {name: args.data / name for name in present}, args.data / "corpus", stress=stress, holdout=args.held_out
    )
    splits = data.splits
    if args.all:
        every = (*splits.train, *splits.validation, *splits.test, *splits.excluded)
        splits = Splits(train=(), validation=splits.validation, test=every, excluded=())
    expected = {*args.sets, *({"sufficient_full"} if "sufficient_facts" in args.sets else ())}
    splits = Splits(
        splits.train, splits.validation, tuple(c for c in splits.test if c.source in expected), splits.excluded
    )
    tested = [case for name in stress if name in expected for case in read_cases(name, stress[name])]

    async def work() -> None:
        judge = await opened(args.judge)

        def judge_pairs(pairs: Sequence[Pair]) -> list[Support | None]:
            return asyncio.run_coroutine_threadsafe(judge.judge(pairs), loop).result()

        loop = asyncio.get_running_loop()
        began = time.monotonic()

        def scores() -> None:
            near = retrieval(splits.validation) if "fever" in expected else []
            gate = best_gate(near, judge_claims(judge_pairs, near)[0]) if near else 0.0
            result = score_all(judge_pairs, splits, gate=gate, stress=tested)
            print(f"judge `{judge.name}`, `{judge.identity}`\n")
            print(score_table(result))
            print("\n| set | pairs | pairs a second |\n| --- | --- | --- |")
            for one in result:
                print(f"| {one.name} | {one.pairs:,} | {one.pairs_per_s:,.0f} |")
            if args.json:
                rows = [one.model_dump(mode="json") for one in result]
                args.json.write_text(json.dumps({"judge": judge.identity, "scores": rows}, indent=1))

        try:
            await asyncio.to_thread(scores)
        finally:
            await judge.aclose()
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)

    asyncio.run(work())


if __name__ == "__main__":
    main()
