"""The configuration of `benchmarks/every_strategy.toml`."""

import tomllib
from pathlib import Path

from reason.reasoning.strategy import create_strategy

FILE = Path(__file__).parents[2] / "benchmarks" / "every_strategy.toml"


def test_every_strategy_takes_its_parameters():
    for one in tomllib.loads(FILE.read_text("utf-8"))["strategy"]:
        create_strategy(one["name"], one.get("parameters", {}))
