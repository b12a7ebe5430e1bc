"""Methods of combining evidence on CLIMATE-FEVER with its annotators as the verifier: accuracy and calibration.

    python benchmarks/lpf_table.py --data DIRECTORY [--seed 0] [--seeds 1]

Each of a claim's five sentences has the shares of its annotators' votes, smoothed and squared, as probabilities; with a
probability eta they are permuted at random. Disputed claims are left out. Methods are fitted to the first half of the
claims and measured on the second. Human votes stand for a good verifier: no model runs, and the labels follow from the
sentences by the rule that any decisive sentence decides, which favours "witness". Two curves follow: a share of each
claim's sentences replaced by those of other claims, and near copies of one sentence added, which must not raise the
confidence. DIRECTORY has climate_fever/dev.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import processor
from reason.core.calibration_fit import ece
from reason.core.files import json_lines
from reason.core.version import __version__
from reason.verify.fusion import EvidenceItem, FusedVerdict, FusionParameters, fuse_evidence, smoothed_votes
from reason.verify.fusion_fitting import FusionExample, fit_fusion
from reason.verify.metrics import accuracy, macro_f1, nll, parse_gold_label
from reason.verify.types import Support, support

ETAS = (0.0, 0.15, 0.30)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
COPIES = (1, 2, 3, 4, 5)
CHANGES = (1, 2, 3)
MOST_RISE = 0.02
"""How much near copies of a sentence may raise the confidence."""


def read(path: Path) -> list[FusionExample]:
    """The claims with the votes on their sentences, disputed ones left out, in the order of the file."""
    examples = []
    for line in json_lines(path.read_bytes(), path.name):
        row: Any = line.values
        if parse_gold_label(row["label"]) == "disputed":
            continue
        items = [
            EvidenceItem(
                (squared(smoothed_votes([parse_gold_label(v) for v in e["votes"]])),),  # type: ignore[misc]
                text=e["text"],
                id=e["doc_id"],
                document=e["page"],
            )
            for e in row["evidence"]
        ]
        examples.append(FusionExample(tuple(items), parse_gold_label(row["label"])))
    return examples


def squared(votes: Support) -> Support:
    """Probabilities squared and normalised."""
    return support(p * p for p in votes)


def permuted(examples: Sequence[FusionExample], eta: float, seed: int) -> list[FusionExample]:
    """The same with a share of the sentences' probabilities permuted."""
    rng = random.Random(f"{seed} {eta}")

    def noisy(item: EvidenceItem) -> EvidenceItem:
        draw = list(item.samples[0])
        if rng.random() < eta:
            rng.shuffle(draw)
        return with_draw(item, Support(*draw))

    return [FusionExample(tuple(noisy(item) for item in e.items), e.gold) for e in examples]


def with_draw(item: EvidenceItem, draw: Support) -> EvidenceItem:
    """The same sentence with another verdict."""
    return EvidenceItem((draw,), text=item.text, id=item.id, document=item.document)


def replaced(examples: Sequence[FusionExample], share: float, seed: int) -> list[FusionExample]:
    """The same with each sentence replaced, with a probability, by one of another claim with its verdict."""
    rng = random.Random(f"{seed} replaced {share}")
    results = []
    for number, e in enumerate(examples):
        items = []
        for item in e.items:
            if rng.random() < share:
                other = rng.randrange(len(examples) - 1)
                other += other >= number
                item = rng.choice(examples[other].items)
            items.append(item)
        results.append(FusionExample(tuple(items), e.gold))
    return results


def with_copies(
    example: FusionExample, copies: int, changes: int, rng: random.Random, words: Sequence[str]
) -> FusionExample:
    """The example with copies of its most decisive sentence with words replaced, added or removed."""
    chosen = max(example.items, key=lambda item: max(item.samples[0][:2]))
    made = []
    for n in range(copies):
        text = chosen.text.split()
        for _ in range(changes):
            at, how = rng.randrange(len(text)), rng.choice(("replace", "add", "leave out"))
            if how == "add":
                text.insert(at, rng.choice(words))
            elif how == "replace" or len(text) == 1:
                text[at] = rng.choice(words)
            else:
                del text[at]
        made.append(
            EvidenceItem(chosen.samples, text=" ".join(text), id=f"{chosen.id}-copy{n}", document=chosen.document)
        )
    return FusionExample((*example.items, *made), example.gold)


def methods(fitted_to: Sequence[FusionExample]) -> list[tuple[str, FusionParameters]]:
    """The methods of the table, those with parameters fitted to examples."""

    def fit(start: FusionParameters) -> FusionParameters:
        result = fit_fusion(fitted_to, verifier="votes", source="climate-fever", start=start)
        return result.parameters_for(verifier="votes", source="climate-fever")

    return [
        ("mean, unfitted", FusionParameters(mode="mean")),
        ("max, unfitted", FusionParameters(mode="max")),
        ("product, w = 1", FusionParameters(mode="product", beta=1, temperature=1, delta=0)),
        ("product, fitted", fit(FusionParameters(mode="product"))),
        ("witness, a = 1, unfitted", FusionParameters(a=1, temperature=1, delta=0)),
        ("witness, defaults", FusionParameters()),
        ("witness, fitted", fit(FusionParameters())),
    ]


def metrics_of(examples: Sequence[FusionExample], parameters: FusionParameters) -> tuple[float, float, float, float]:
    """Accuracy, macro F1, NLL and ECE."""
    verdicts = [fuse_evidence(e.items, parameters) for e in examples]
    golds = [e.gold for e in examples]
    labels = [v.label for v in verdicts]
    right = [label == gold for label, gold in zip(labels, golds, strict=True)]
    return (
        accuracy(labels, golds),
        macro_f1(labels, golds),
        nll([v.probs for v in verdicts], golds),
        ece([v.confidence for v in verdicts], right),
    )


def cell(of_seeds: Sequence[tuple[float, float, float, float]]) -> str:
    """Means over seeds, formatted."""
    return " / ".join(f"{statistics.mean(values):.3f}" for values in zip(*of_seeds, strict=True))


def describe_parameters(parameters: FusionParameters) -> str:
    """What was fitted."""
    if not parameters.fitted:
        return ""
    own = (
        f"beta {parameters.beta:g}"
        if parameters.mode == "product"
        else f"a {parameters.a:g}, pi {parameters.pi:.3f}, delta {parameters.delta:g}"
    )
    return f"{own}, T_f {parameters.final_temperature:g}"


def table(half: int, examples: Sequence[FusionExample], seeds: Sequence[int]) -> None:
    """The methods against noise."""
    columns: dict[str, list[str]] = {}
    for eta in ETAS:
        cells: dict[str, list[tuple[float, float, float, float]]] = {}
        notes: dict[str, str] = {}
        for seed in seeds:
            noisy = permuted(examples, eta, seed)
            for name, parameters in methods(noisy[:half]):
                cells.setdefault(name, []).append(metrics_of(noisy[half:], parameters))
                notes.setdefault(name, describe_parameters(parameters))
        for name, result in cells.items():
            columns.setdefault(name, []).append(cell(result) + (f" ({notes[name]})" if notes[name] else ""))
    print("| method | " + " | ".join(f"eta = {eta:g}" for eta in ETAS) + " |\n| --- |" + " --- |" * len(ETAS))
    for name, row in columns.items():
        print(f"| {name} | {' | '.join(row)} |")


def replacing(half: int, examples: Sequence[FusionExample], seeds: Sequence[int]) -> None:
    """Accuracy and calibration as more of the sentences are of other claims."""
    used = methods(permuted(examples, 0.15, seeds[0])[:half])
    print("| method | " + " | ".join(f"{100 * share:.0f}%" for share in SHARES) + " |")
    print("| --- |" + " --- |" * len(SHARES))
    for name, parameters in used:
        row = [
            cell([metrics_of(replaced(permuted(examples, 0.15, s)[half:], share, s), parameters) for s in seeds])
            for share in SHARES
        ]
        print(f"| {name} | {' | '.join(row)} |")


def copying(half: int, examples: Sequence[FusionExample], seed: int) -> None:
    """By how much near copies of the most decisive sentence raise the confidence in the verdict."""
    words = [word for e in examples for item in e.items for word in item.text.split()]
    settings: list[tuple[str, FusionParameters]] = [
        pair for pair in methods(examples[:half]) if pair[0] in ("mean, unfitted", "product, fitted", "witness, fitted")
    ]
    name, fitted = settings[-1]
    settings.append((f"{name}, three-word sequences alone", fitted.model_copy(update={"pairs": 1.0})))
    settings.append((f"{name}, nothing merged", fitted.model_copy(update={"merge": False})))
    print("| method | words changed | " + " | ".join(f"{n} copies" for n in COPIES) + " |")
    print("| --- | ---: |" + " ---: |" * len(COPIES))
    for name, parameters in settings:
        before = [fuse_evidence(e.items, parameters) for e in examples[half:]]
        for changes in CHANGES:
            row = []
            for copies in COPIES:
                rng = random.Random(f"{seed} {changes} {copies}")
                after = [
                    fuse_evidence(with_copies(e, copies, changes, rng, words).items, parameters)
                    for e in examples[half:]
                ]
                rises = [confidence_rise(b, a) for b, a in zip(before, after, strict=True)]
                over = sum(rise > MOST_RISE for rise in rises) / len(rises)
                row.append(f"{statistics.mean(rises):+.4f} ({100 * over:.1f}%)")
            print(f"| {name} | {changes} | {' | '.join(row)} |")


def confidence_rise(before: FusedVerdict, after: FusedVerdict) -> float:
    """By how much the probability of the now most likely label has risen."""
    label: Callable[[Support], float] = lambda p: getattr(p, after.probs.label)  # noqa: E731 (read twice)
    return label(after.probs) - label(before.probs)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory with climate_fever/dev.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="how many permutations are averaged over")
    args = parser.parse_args()
    seeds = list(range(args.seed, args.seed + args.seeds))
    examples = read(args.data / "climate_fever" / "dev.jsonl")
    half = len(examples) // 2
    print(
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; reason {__version__}, Python "
        f"{platform.python_version()}, numpy {np.__version__}; {processor()}\n\nCLIMATE-FEVER, development half, "
        f"disputed claims left out: n = {len(examples)}, the first {half} to fit, the last {len(examples) - half} to "
        f"measure; seeds {', '.join(map(str, seeds))}. Accuracy / macro F1 / NLL / ECE (10 bins).\n"
    )
    table(half, examples, seeds)
    print("\nShare of each claim's sentences replaced by those of other claims (eta = 0.15, fitted without):\n")
    replacing(half, examples, seeds)
    print(
        f"\nNear copies of the most decisive sentence (eta = 0): mean rise of the probability of the verdict, and "
        f"share of claims where it is more than {MOST_RISE:g}:\n"
    )
    copying(half, examples, seeds[0])


if __name__ == "__main__":
    main()
