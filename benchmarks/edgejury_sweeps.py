"""The sweeps that `edgejury_table.py` makes its tables of: a jury, it without each of its parts, and its rivals."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from reason.core.question import Question
from reason.verify.edgejury.config import LEAST_JURORS
from reason.verify.edgejury.roles import answer_prompt
from sweep_text import strategy_blocks

Method = tuple[str, dict[str, object]]
"""A strategy with its parameters as they stand in TOML."""

RULES = ("borda", "copeland", "schulze", "points")
VOTE = {"review": False, "chair": False, "label": False, "early_exit": "never"}
"""What is left of a jury is then a plain majority vote."""


def add_plan(plan: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    plan.add_argument("--jurors", nargs="+", required=True, metavar="MODEL", help="one for each juror")
    plan.add_argument("--chair", metavar="MODEL", help="by default the last juror's")
    plan.add_argument("--best", metavar="MODEL", help="the best of them alone, for self-consistency; default: --chair")
    plan.add_argument("--one-model", metavar="MODEL", help="plays several roles; without it that sweep is left out")
    plan.add_argument("--sizes", type=int, nargs="+", default=[2, 3, 4, 5], help="jurors of the one model")
    plan.add_argument("--data", type=Path, metavar="FILE", help="TruthfulQA's rows; without it the hub's")
    plan.add_argument("--choice-seed", type=int, default=0, help="another order of all options")
    plan.add_argument("--limit", type=int, help="only so many questions")
    plan.add_argument("--one-model-limit", type=int, help="for the jury of one model; default: --limit")
    plan.add_argument("--ablations-limit", type=int, help="for what guards against biases, and rules; default: --limit")
    plan.add_argument("--timed-limit", type=int, default=6, help="questions whose seconds are taken")
    plan.add_argument("--seeds", type=int, nargs="+", default=[0])
    plan.add_argument("--samples", type=int, nargs="+", help="of self-consistency; default: 1 2 4 and 2n + 2")
    plan.add_argument("--tokens", type=int, default=256, help="most of a chain, and of an opinion")
    plan.add_argument("--review-tokens", type=int, default=200)
    plan.add_argument("--chair-tokens", type=int, default=320)
    plan.add_argument("--form", choices=("json", "lines"), default="lines", help="of reviews and the chair's answer")
    plan.add_argument("--step-by-step", action="store_true", help="chains are asked in their strategies' own words")
    plan.add_argument("--likelihood", action="store_true", help="each model by log-probability as well")
    plan.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of every jury, in TOML")
    plan.add_argument("--out", type=Path, required=True)


def sweep_files(given: argparse.Namespace) -> dict[Path, str]:
    """The sweeps as TOML, by file, in the order in which they are to be run: later ones find requests of earlier ones.

    Args:
        given: The options.
    """
    chair = given.chair or given.jurors[-1]
    best = given.best or chair
    whole = [f"main = {json.dumps(best)}", f"jurors = {json.dumps(given.jurors)}", f"chair = {json.dumps(chair)}"]
    jury = "[[models]]\n" + "\n".join(whole) + "\n"
    singles = [best, *given.jurors, *([given.one_model] if given.one_model is not None else [])]
    alone = [f"[[models]]\nmain = {json.dumps(name)}\n" for name in dict.fromkeys(singles)]
    parts: dict[str, tuple[Sequence[str], int | None, list[Method]]] = {
        "jury": ([jury], given.limit, jury_methods(given)),
        "single": (alone, given.limit, [chain(given), *([("logprob", {})] if given.likelihood else [])]),
        "ablations": ([jury], given.ablations_limit or given.limit, ablations(given)),
    }
    if given.one_model is not None:
        model = f"[[models]]\nmain = {json.dumps(given.one_model)}\n"
        parts["one-model"] = ([model], given.one_model_limit or given.limit, one_model(given))
    parts["timed"] = ([jury], given.timed_limit, timed(given))
    files: dict[Path, str] = {}
    for name, (models, limit, methods) in parts.items():
        blocks = [f"seeds = {given.seeds}\n", *models, _dataset(given, limit), *strategy_blocks(methods)]
        files[given.out / f"{name}.toml"] = "\n".join(blocks)
    return files


def jury_methods(given: argparse.Namespace) -> list[Method]:
    """The jury, what it is to be better than, and what costs nothing once these have been asked.

    The jury that never leaves early comes first: the one that does asks part of the same.
    """
    found = [samples(given, n) for n in _samples(given)]
    found += [jury(given, early_exit="never"), jury(given), jury(given, **VOTE)]
    found += [jury(given, chair=False)]
    found += [jury(given, chair=False, without_chair="top", aggregate=rule) for rule in RULES]
    found += [jury(given, review=False)]
    found += [jury(given, roles=False), jury(given, roles=False, **VOTE)]
    return found


def ablations(given: argparse.Namespace) -> list[Method]:
    """The jury without what guards it against bias, and with other rules of ranking before its chair."""
    return [
        jury(given, permute_choices=False),
        jury(given, permute_choices=False, **VOTE),
        jury(given, anonymise=False, blind_chair=False),
        jury(given, shuffle=False),
        *(jury(given, aggregate=rule) for rule in RULES[1:]),
    ]


def one_model(given: argparse.Namespace) -> list[Method]:
    """One model as several jurors, and their majority, which asks nothing of its own."""
    each = [(jury(given, n=n), jury(given, n=n, **VOTE)) for n in given.sizes]
    return [method for pair in each for method in pair]


def timed(given: argparse.Namespace) -> list[Method]:
    """What is asked again one question at a time, for its seconds."""
    return [
        samples(given, equal_calls(len(given.jurors))),
        chain(given),
        jury(given, **VOTE),
        jury(given, review=False),
        jury(given),
    ]


def equal_calls(jurors: int) -> int:
    """Samples of self-consistency at as many calls as a jury makes: 2n + 2 by the published count."""
    return 2 * max(LEAST_JURORS, jurors) + 2


def chain(given: argparse.Namespace) -> Method:
    """One sample; the same as the first of self-consistency, so that one answers the other."""
    settings: dict[str, object] = {"temperature": 0.7, "max_tokens": given.tokens, **_words(given)}
    return "cot", settings


def samples(given: argparse.Namespace, n: int) -> Method:
    """Self-consistency."""
    return "self-consistency", {"n": n, "max_tokens": given.tokens, **_words(given)}


def jury(given: argparse.Namespace, **own: object) -> Method:
    """A jury; what is not named is as it is by default."""
    limits = {
        "answer_tokens": given.tokens,
        "review_tokens": given.review_tokens,
        "chair_tokens": given.chair_tokens,
        "form": given.form,
    }
    shared: dict[str, object] = dict(word.split("=", 1) for word in given.set)
    return "edgejury", {**{name: json.dumps(value) for name, value in {**limits, **own}.items()}, **shared}


def jurors_words() -> str:
    """What a juror without a role is told behind a question with options."""
    prompt = answer_prompt(None, Question(text="?", choices=("one", "another")))
    return prompt.messages[-1].content.rpartition("\n\n")[2]


def _words(given: argparse.Namespace) -> dict[str, object]:
    return {} if given.step_by_step else {"instruction": json.dumps(jurors_words())}


def _samples(given: argparse.Namespace) -> list[int]:
    most = equal_calls(len(given.jurors))
    return sorted(set(given.samples or [1, 2, 4, most]), reverse=True)


def _dataset(given: argparse.Namespace, limit: int | None) -> str:
    lines = ["[[dataset]]", 'name = "truthfulqa"', 'variant = "mc1"']
    lines += [f"data = {json.dumps(str(given.data.absolute()))}"] if given.data is not None else []
    lines += [f"limit = {limit}"] if limit else []
    lines += [f"choice_seed = {given.choice_seed}"] if given.choice_seed else []
    return "\n".join(lines) + "\n"
