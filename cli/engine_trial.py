"""The trial of an engine by `reason doctor`, as a separate program: start, generate, shut down.

Run as `python -m reason.cli.engine_trial MODEL`. The settings are read as JSON from the first line of standard input;
the result is one line of JSON on standard output. When the rest of standard input ends, however the parent process
ended, the program kills its process group, to which the engine's processes belong.
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
from ..core.messages import LogitsProcessorSpec, Prompt, Request
from ..core.settings import Settings
from ..serving.capability_checks import trial_sampling
from ..serving.factory import load_model
from ..serving.model import LanguageModel

TOKENS = 4
ONLY = "only_tokens"


async def trial(name: str, settings: Settings) -> dict[str, Any]:
    """Load a model, generate two samples, one of them with a logits processor, and close it."""
    started = time.monotonic()
    model = await load_model(name, settings)
    try:
        loaded = time.monotonic()
        prompt = Prompt.user("Say hello.")
        plain = Request(prompt=prompt, sampling=trial_sampling(model.capabilities.profile, max_tokens=TOKENS))
        [[completion]] = await model.generate([plain])
        if completion.failure is not None:
            return {"error": completion.failure.message}
        processors = await _processors_work(model, plain, completion.token_ids[-1])
        generated = time.monotonic()
    finally:
        await model.aclose()
    return {
        "text": completion.text,
        "tokens": len(completion.token_ids),
        "logits_processors": processors,
        "started_s": loaded - started,
        "wrote_s": generated - loaded,
        "ended_s": time.monotonic() - generated,
    }


async def _processors_work(model: LanguageModel, plain: Request, token: int) -> bool | None:
    """Whether a processor that allows one token only takes effect; None if the model supports none."""
    if ONLY not in model.capabilities.logits_processors:
        return None
    only = LogitsProcessorSpec(name=ONLY, args={"ids": [token]})
    sampling = plain.sampling.model_copy(update={"logits_processors": (only,)})
    [[restricted]] = await model.generate([plain.model_copy(update={"sampling": sampling})])
    return set(restricted.token_ids) == {token}


def _first_line() -> bytes:
    # Not through sys.stdin: a forked process closes it first and would wait for its lock, which a reading thread holds.
    line = b""
    while not line.endswith(b"\n") and (more := os.read(0, 65_536)):
        line += more
    return line


def _kill_group_at_end_of_input() -> None:
    while os.read(0, 4096):
        continue
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> None:
    """Run the trial of the model on the command line."""
    settings = Settings.model_validate_json(_first_line())
    threading.Thread(target=_kill_group_at_end_of_input, daemon=True).start()
    try:
        result = asyncio.run(trial(sys.argv[1], settings))
    except ReasonError as e:
        result = {"error": e.message, "hint": e.hint}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
