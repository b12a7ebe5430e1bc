"""The targets of the fuzzer hold for its first inputs and all that once broke them, and for those of a short run."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from support.fuzz_formats import FORMAT_TARGETS
from support.fuzz_seeds import seeds
from support.fuzz_texts import TEXT_TARGETS

TARGETS = {**TEXT_TARGETS, **FORMAT_TARGETS}
HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_its_first_inputs(name):
    inputs = seeds(name)
    assert inputs
    for one in [b"", *inputs]:
        TARGETS[name](one)


SHORT_RUN = """
import sys
import atheris_run

sys.argv[1:] = ["--runs", "400", "--seed", "1"]
status = atheris_run.main()


def planted(data: bytes) -> None:
    assert b"\\\\pi" not in data


atheris_run.TARGETS = {"equality": planted}
sys.argv[1:] = ["equality", "--runs", "20000"]
print("planted:", atheris_run.main())
raise SystemExit(status)
"""


@pytest.mark.nightly
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
def test_short_fuzzer_run_finds_only_the_planted_bug():
    done = subprocess.run([sys.executable, "-c", SHORT_RUN], capture_output=True, text=True, timeout=280, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    payload = done.stdout.splitlines()
    assert [line.split(":")[0] for line in payload[: len(TARGETS)]] == list(TARGETS)
    assert all(line.endswith("inputs held") for line in payload[: len(TARGETS)])
    assert payload[len(TARGETS)].startswith("equality: BROKEN")
    assert any(line.startswith("input: ") and "pi" in line for line in payload)
    assert payload[-1] == "planted: 1"
