"""What a fuzzer tries on the readers of formats that come from files, servers and callers.

As in `fuzz_texts`; here a reader may refuse what it is given, by the errors that its contract has and no other.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import anyio
from pydantic import ValidationError
from reason.agents.reasoner import Reasoner
from reason.core.errors import DataError, InvalidResponse, ReasonError, UserError
from reason.core.events import EVENT_ADAPTER
from reason.core.messages import SamplingParams
from reason.core.settings import ProviderSettings, Settings, load_settings
from reason.evals.datasets.records import json_records
from reason.serving.litellm.errors import ErrorResponse
from reason.serving.litellm.providers import Prices
from reason.serving.litellm.providers import Target as Provider
from reason.serving.litellm.responses import SampleCollector, split_usage, to_completion, token_id
from reason.serving.litellm.transport import EventParser
from reason.sidecar.middleware import check_json
from reason.sidecar.openai.requests import ChatRequest, ResponsesRequest
from reason.sidecar.openai.responses import _run_request
from reason.sidecar.openai.run_config import chat_run_request

from support.fuzz_texts import Target, text_of

PLACE = Provider(
    name="openai/m", provider="openai", served="m", api_base="http://127.0.0.1:1", api_key="", key_env="KEY",
    settings=ProviderSettings(), parameters=frozenset(), data_dir=Path("unused"),
)  # fmt: skip


@cache
def folder() -> Path:
    """One folder for the files of all inputs, removed with the process."""
    made = Path(tempfile.mkdtemp(prefix="reason-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    (made / "reason").mkdir()
    return made


@cache
def reasoner() -> Reasoner:
    """Plans runs; opens nothing."""
    return Reasoner(settings=Settings(store=folder() / "runs.sqlite3"))


def settings_toml(data: bytes) -> None:
    """Any settings file gives settings or a typed error."""
    path, said = folder() / "reason" / "reason.toml", "they are settings"
    path.write_bytes(data)
    with patch.dict(os.environ, {"XDG_CONFIG_HOME": str(folder())}):
        try:
            load_settings()
        except ReasonError as e:
            said = str(e)
    assert said


def provider_stream(data: bytes) -> None:
    """The objects of a stream do not depend on its chunks, and each is parsed or refused as a response."""
    step, stream = 1 + (data[0] % 64 if data else 0), data[1:]
    whole, cut = _events([stream]), _events([stream[at : at + step] for at in range(0, len(stream), step)])
    assert whole == cut
    reading = SampleCollector((0, 1), lambda *_: None, PLACE.endpoint)
    with suppress(InvalidResponse, ErrorResponse):
        reading.take(whole[0])
    token_id(text_of(stream))
    if any(sample.tokens is None for sample in reading.samples):
        return  # LiteLLM would count
    usages = split_usage(reading.usage, reading.samples, Prices(1e-6, 1e-6), PLACE, 0.0)
    for sample, usage in zip(reading.samples, usages, strict=True):
        with suppress(InvalidResponse):
            to_completion(sample, usage, SamplingParams(), {}, PLACE)


def _events(pieces: Sequence[bytes]) -> tuple[list[dict[str, Any]], str]:
    """The objects of a stream, and how it ended; none of a stream that was refused."""
    reader, events = EventParser(), []
    try:
        for piece in pieces:
            events += reader.feed(piece)
        events += reader.end()
    except (InvalidResponse, ValueError) as e:
        return [], type(e).__name__
    return events, "done" if reader.done else "open"


def openai_bodies(data: bytes) -> None:
    """A body in OpenAI's format comes to runs, or is refused by an error that a caller can read."""
    try:
        check_json(data[1:])  # what stands before the routes
        given = json.loads(data[1:])
    except (UserError, ValueError, RecursionError):
        return
    asked, status = None, 422
    try:
        if data[0] & 1:
            asked = chat_run_request(ChatRequest.model_validate(given), reasoner(), "tenant")
        else:
            app = SimpleNamespace(
                state=SimpleNamespace(reasoner=reasoner(), run_manager=None, settings=reasoner().settings)
            )
            body = ResponsesRequest.model_validate(given)
            if body.previous_response_id is None:  # else it would be looked up in a store
                asked = anyio.run(_run_request, body, app, SimpleNamespace(tenant="tenant", key_id="key"), None)
    except ValidationError:
        pass
    except ReasonError as e:
        status = e.http_status
    assert 400 <= status < 500
    if asked is not None:
        assert type(asked.config).model_validate_json(asked.config.model_dump_json()) == asked.config


def stored_events(data: bytes) -> None:
    """A stored event round-trips or is refused; the error of a damaged file names its line."""
    other = ""
    with suppress(ValueError):
        event = EVENT_ADAPTER.validate_json(data)
        again = EVENT_ADAPTER.validate_json(event.model_dump_json())
        assert again.model_dump_json() == event.model_dump_json()
    try:
        for record in json_records(data, "file"):
            assert record.where.startswith("file line ")
    except DataError as e:
        other = str(e)
    assert not other or "file line" in other


FORMAT_TARGETS: dict[str, Target] = {
    target.__name__: target for target in (settings_toml, provider_stream, openai_bodies, stored_events)
}
