"""Benchmarks are scripts that import one another by their bare names; so do the tests of them."""

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path += [str(BENCHMARKS), str(BENCHMARKS / "peers"), str(BENCHMARKS / "recorded")]
sys.path.append(str(BENCHMARKS.parent / "training" / "judge"))
