"""A program of its own that starts an engine, lets it write with a hook, and ends it: `reason doctor`'s trial of vLLM.

Run as `python -m reason.cli.engine_trial MODEL`. Settings come as JSON on the first line of standard input; the result
is one line of JSON on standard output. The rest of standard input is only waited for: when it ends, so does everything
here, however whoever holds the other end has ended. The program leads a process group, which the engine's processes
belong to.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from typing import Any

from ..core.errors import ReasonError
from ..core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams
from ..core.settings import Settings
from ..serving.model import LanguageModel
from ..serving.open import open_model

TOKENS = 4
ONLY = "only_tokens"


async def trial(name: str, settings: Settings) -> dict[str, Any]:
    """Open a model, have it write two samples, one of them with a hook, and close it."""
    began = time.monotonic()
    model = await open_model(name, settings)
    try:
        opened = time.monotonic()
        prompt = Prompt.user("Say hello.")
        plain = Request(prompt=prompt, sampling=SamplingParams(temperature=0.0, max_tokens=TOKENS))
        [[said]] = await model.generate([plain])
        if said.failure is not None:
            return {"error": said.failure.message}
        hooks = await _hooks_act(model, plain, said.token_ids[-1])
        written = time.monotonic()
    finally:
        await model.aclose()
    return {
        "text": said.text,
        "tokens": len(said.token_ids),
        "hooks": hooks,
        "started_s": opened - began,
        "wrote_s": written - opened,
        "ended_s": time.monotonic() - written,
    }


async def _hooks_act(model: LanguageModel, plain: Request, token: int) -> bool | None:
    """Whether a hook that lets one token alone be said does so; None if the model has no hooks, as while it drafts."""
    if ONLY not in model.capabilities.hooks:
        return None
    only = LogitsProcessorSpec(name=ONLY, args={"ids": [token]})
    hooked = plain.model_copy(update={"sampling": plain.sampling.model_copy(update={"hooks": (only,)})})
    [[held]] = await model.generate([hooked])
    return set(held.token_ids) == {token}


def _first_line() -> bytes:
    # Not through sys.stdin: its lock, held by a waiting thread, would stop a forked process, which closes it first.
    line = b""
    while not line.endswith(b"\n") and (more := os.read(0, 65_536)):
        line += more
    return line


def _end_with_the_other_side() -> None:
    while os.read(0, 4096):
        continue
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> None:
    """Run the trial of the model named on the command line."""
    settings = Settings.model_validate_json(_first_line())
    threading.Thread(target=_end_with_the_other_side, daemon=True).start()
    try:
        result = asyncio.run(trial(sys.argv[1], settings))
    except ReasonError as e:
        result = {"error": e.message, "hint": e.hint}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
