"""Vercel's AI SDK as a client, where it is installed.

`AI_SDK_MODULES` is a directory in which `npm install ai @ai-sdk/openai-compatible zod` was run.
"""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "ai_sdk.mjs"
MODULES = os.environ.get("AI_SDK_MODULES", "")


@pytest.mark.skipif(
    not MODULES or shutil.which("node") is None, reason="AI_SDK_MODULES is not set, or there is no node"
)
def test_ai_sdk(server, models):
    models["silent"].left = 0
    script = shutil.copy(SCRIPT, MODULES)  # modules are looked up beside it
    made = subprocess.run(["node", script, server.url], capture_output=True, text=True, timeout=100, check=False)
    assert (made.returncode, made.stdout.splitlines()[-1:]) == (0, ["all passed"]), made.stderr
    while models["silent"].running:
        threading.Event().wait(0.005)
