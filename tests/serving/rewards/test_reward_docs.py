"""The example of the documentation runs, and its tables name what the functions take."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from reason.serving.rewards.factory import PREFIXES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "rewards-and-embeddings.md"


@pytest.mark.nightly
@pytest.mark.real
def test_the_example_runs(smollm2_files, tmp_path):
    pytest.importorskip("sentence_transformers")
    [example] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    first, second, *rest = done.stdout.splitlines()
    for line in (first, second):
        odds, _, value = line.rpartition(" ")
        assert len(ast.literal_eval(odds)) == 2
        assert 0 < float(value) < 1
    assert len(rest) == 3
    assert done.stderr == ""


def test_all_names_are_documented():
    text = PAGE.read_text(encoding="utf-8")
    for prefix in PREFIXES:
        assert f"`{prefix}<" in text
