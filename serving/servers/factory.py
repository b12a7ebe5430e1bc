"""`load_server_model`: a model at a server of one's own, with what its server was measured to support."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from pydantic import JsonValue

from ...core.errors import BackendError, UnknownName, UserError
from ...core.messages import Usage
from ...core.settings import Settings
from ..litellm.errors import classify_error, readable_response
from ..litellm.factory import priced
from ..litellm.model import LiteLLMModel
from ..litellm.profiles import provider_profile
from ..litellm.providers import find_target
from ..litellm.requests import RequestTraits
from ..litellm.transport import HttpClient
from ..model import Capabilities
from ..profiles.profile import ModelProfile
from .discovery import as_server
from .measurements import (
    Measurement,
    ServedModel,
    declared_digest,
    read_measurement,
    write_measurement,
)
from .model import ServerModel
from .pages import version
from .probing import MeasuredModel, find_served_model, list_served_models, probe_capabilities


async def load_server_model(declared: LiteLLMModel, settings: Settings, *, is_probed: bool) -> ServerModel:
    """A model with what its server supports: as remembered, or measured and then remembered.

    The server is always asked which model it serves; what was measured of another one does not hold.

    Args:
        declared: The model as documented, whose connection is used.
        settings: Has the user's profiles.
        is_probed: Whether anything is measured; otherwise the capabilities stay as declared.
    """
    target, can = declared.target, declared.capabilities
    directory, digest = target.data_dir, declared_digest(can.profile)

    def profile_of(served: ServedModel, measured: Mapping[str, JsonValue]) -> ModelProfile:
        return provider_profile(target, settings, measured=measured, root=served.root or None)

    def model(served: ServedModel, can: Capabilities, traits: RequestTraits) -> ServerModel:
        can = priced(can, traits, declared.prices)
        identity = f"{target.name}={served.root}" if served.root else target.identity
        identity += served.version and f"+vllm{served.version}"
        identity += can.profile.digest
        return ServerModel(target, declared.wire, can, traits, declared.prices, declared.limiter, identity)

    plain = model(ServedModel(), can, declared.traits)
    if not is_probed:
        return plain
    served = await _find_served(plain)

    async def measure() -> ServerModel:
        spent: list[Usage] = []

        def build(can: Capabilities, traits: RequestTraits) -> MeasuredModel:
            return MeasuredModel(model(served, can, traits), spent)

        context = served.context_tokens or declared.capabilities.context_tokens
        can, traits, fields = await probe_capabilities(
            build, lambda measured: profile_of(served, measured), context, target.vllm
        )
        measurement = Measurement(
            model=target.name,
            endpoint=target.endpoint,
            declared=digest,
            date=datetime.now(UTC),
            served=served,
            capabilities=can,
            traits=traits,
            fields=dict(fields),
        )
        await asyncio.to_thread(write_measurement, directory, measurement)
        measured = model(served, can, traits)
        measured.probe_usage = Usage.total(spent)
        return measured

    found = await asyncio.to_thread(read_measurement, directory, target.name, target.endpoint, digest)
    if found is None or found.served != served:
        return await measure()
    profile = await asyncio.to_thread(profile_of, served, found.fields)
    remembered = model(served, found.capabilities.model_copy(update={"profile": profile}), found.traits)
    remembered.remeasure = measure
    return remembered


async def _find_served(model: ServerModel) -> ServedModel:
    """What the server tells of a model.

    Raises:
        UnknownName: It does not serve the model.
    """
    listed, vllm_version = await model.gather([partial(list_served_models, model), partial(_version, model)])
    entry = find_served_model(listed, model.target) if listed else {}
    length = entry.get("max_model_len")
    return ServedModel(
        context_tokens=length if isinstance(length, int) else None,
        root=str(entry.get("root") or ""),  # vLLM reports which weights it serves under the name
        version=vllm_version,
    )


async def first_listed_model(address: str, settings: Settings) -> str:
    """The model string of the first model that a server lists under `/models`.

    Raises:
        BackendError: The server cannot be reached.
        UserError: It lists none.
    """
    target = find_target(f"openai/@{address}", settings)
    client = HttpClient(target)
    try:
        page = await client.get_json("/models")
    except Exception as e:
        error = classify_error(e, target).error
        if isinstance(error, UnknownName):  # no such page
            hint = f"try {client.base_url}/v1" if not client.base_url.endswith("/v1") else "name the model"
            raise UserError(f"{client.base_url} does not list its models", hint=hint) from e
        raise error from e
    finally:
        await client.aclose()
    listed = page.get("data") if isinstance(page, dict) else None
    if not listed:
        raise UserError(f"{client.base_url} lists no models", hint=f"name one, as in -m NAME@{client.base_url}")
    with readable_response(client.base_url):
        return as_server(listed, client.base_url).models[0]


async def _version(model: ServerModel) -> str:
    if not model.target.vllm:
        return ""
    try:
        reported, _ = await model.retried(lambda: version(model.wire.http))
    except BackendError:
        return ""
    return reported
