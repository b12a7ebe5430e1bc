"""Fit the verdict model of a judge to labelled claims of several datasets. See README.md.

    python training/judge/calibrate_verdicts.py --data fever=DIR vitaminc=DIR --corpus sentences.jsonl --judge small --out fitted

The file is valid for this judge. The printed scores of each dataset are by a model that was fitted to the others, with
the thresholds of the file. Verdicts are stored in OUT/verdicts.sqlite: a second call judges only what is missing.
"""  # noqa: E501

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cases import parse_paths
from labelled_claims import MAX_CLAIMS, EvaluationSet, read_evaluation_sets
from reason.core.files import write_fitted_file
from reason.core.settings import load_settings
from reason.verify.entailment.factory import load_entailment
from verdict_fit import VerdictExample, fit_verdict_model
from verdicts import StoredEntailment, VerdictStore, examples_of, judge_claims


async def judge_sets(
    sets: Sequence[EvaluationSet], judge: str, store: VerdictStore
) -> tuple[list[VerdictExample], str]:
    """The examples of all sets, and the judge's identity."""
    entailment = await load_entailment(judge, load_settings())
    stored = StoredEntailment(entailment, store)
    examples: list[VerdictExample] = []
    try:
        for one in sets:
            judged = await judge_claims(one.rows, stored)
            examples += [replace(example, part=one.key) for example in examples_of(judged)]
    finally:
        await stored.aclose()
    return examples, entailment.identity


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=PATH", help="labelled claims")
    parser.add_argument("--trained", nargs="+", default=[], metavar="NAME=PATH", help="training data of the judge")
    parser.add_argument("--corpus", type=Path, required=True, help="sentences that FEVER's evidence names")
    parser.add_argument("--judge", default="small", help="base, small, lexical or nli/…")
    parser.add_argument("--max-false-supported", type=float, default=0.05)
    parser.add_argument("--limit", type=int, default=MAX_CLAIMS, help="maximum claims of a set")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    data, trained = parse_paths(options.data), parse_paths(options.trained)
    sets = asyncio.run(read_evaluation_sets(data, options.corpus, trained=trained, limit=options.limit))
    with VerdictStore(options.out / "verdicts.sqlite") as store:
        fitted = [one for one in sets if one.is_fitted]
        examples, identity = asyncio.run(judge_sets(fitted, options.judge, store))
    model = fit_verdict_model(examples, judge=identity, max_false_supported=options.max_false_supported).model
    file = options.out / f"verdicts-{options.judge.replace('/', '-')}.json"
    write_fitted_file(model, file)
    for s in model.scores:
        print(
            f"{s.part}: {s.claims} claims, accuracy {s.accuracy:.3f}, macro F1 {s.macro_f1:.3f}, ECE {s.ece:.3f}, "
            f"false supported {s.false_supported:.3f}, false refuted {s.false_refuted:.3f}, decided {s.decided:.3f}"
        )
    print(f"supported from {model.supported:.3f}, refuted from {model.refuted:.3f}: {file}")


if __name__ == "__main__":
    main()
