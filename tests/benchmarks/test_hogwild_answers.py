"""The sweep and the metrics of `benchmarks/hogwild_answers.py`."""

from __future__ import annotations

import tomllib
from argparse import Namespace
from pathlib import Path

from hogwild_answers import difference_of, mean, sweep


def test_one_worker_is_once_in_the_sweep_and_others_in_each_layout() -> None:
    given = Namespace(
        model="vllm/m",
        data=Path("d.jsonl"),
        limit=3,
        workers=[1, 2],
        passes=64,
        layouts=["combined", "interleaved"],
        separator="\\n",
    )
    plan = tomllib.loads(sweep(given))
    runs = [(s["parameters"]["workers"], s["parameters"]["layout"]) for s in plan["strategy"]]
    assert runs == [(1, "combined"), (2, "combined"), (2, "interleaved")]
    assert {s["parameters"]["separator"] for s in plan["strategy"]} == {"\n"}
    assert plan["dataset"] == [{"name": str(Path("d.jsonl").resolve()), "limit": 3}]


def test_differences_are_of_the_same_questions() -> None:
    assert difference_of({"a": 5.0, "b": 7.0, "c": 100.0}, {"a": 8.0, "b": 9.0}).startswith("-2 [-3, -2]")
    assert mean({"a": 4.0, "b": 4.0}) == "4 [4, 4]"
