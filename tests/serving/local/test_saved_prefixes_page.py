"""The program on the page about saved prefixes runs, and a second time restores what the first has saved."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from reason.serving.model_files.find import ModelFiles

PAGE = Path(__file__).resolve().parents[3] / "docs" / "saved-prefixes.md"


@pytest.mark.real
def test_the_program_of_the_page_runs_twice(tmp_path: Path, smollm2_files: ModelFiles) -> None:
    program = next(b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "asyncio.run" in b)
    cache = tmp_path / "cache"
    cache.mkdir()
    # the model's files are those of the machine, the prefixes are not
    (cache / "models").symlink_to(smollm2_files.directory.parent)

    def run() -> list[str]:
        environment = {"REASON_CACHE_DIR": str(cache), "HOME": str(tmp_path), "REASON_LOCAL__THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    first, second = run(), run()
    tokens = int(first[0].split()[0])
    assert tokens > 300
    assert first[0] == f"{tokens} tokens pinned, 0 of them not computed"
    assert second[0] == f"{tokens} tokens pinned, {tokens} of them not computed"
    assert first[1].startswith(f"{tokens - 1} tokens of the prompt reused: ")
    assert second[1] == first[1]
    assert [line.split()[0] for line in second[2:]] == ["rules", "rules-and-a-reply"]
