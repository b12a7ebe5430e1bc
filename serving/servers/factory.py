"""`load_server_model`: a model at a server of one's own, with what its server was measured to support."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from ...core.errors import BackendError, UnknownName, UserError
from ...core.settings import Settings
from ..litellm.errors import classify_error
from ..litellm.factory import priced
from ..litellm.model import LiteLLMModel
from ..litellm.profiles import provider_profile
from ..litellm.providers import find_target
from ..litellm.requests import RequestTraits
from ..litellm.transport import HttpClient
from ..model import Capabilities
from ..profiles.profile import ModelProfile
from .model import ServerModel
from .pages import version
from .probing import find_served_model, list_served_models, probe_capabilities


async def load_server_model(declared: LiteLLMModel, settings: Settings, *, is_probed: bool) -> ServerModel:
    """Measure what a model's server supports.

    Args:
        declared: The model as documented, whose connection is used.
        settings: Has the user's profiles.
        is_probed: Whether anything is measured; otherwise the capabilities stay as declared.
    """
    target = declared.target
    identity, context, root = target.identity, declared.capabilities.context_tokens, None

    def build(can: Capabilities, traits: RequestTraits) -> ServerModel:
        can = priced(can, traits, declared.prices)
        own = identity + can.profile.digest
        return ServerModel(target, declared.wire, can, traits, declared.prices, declared.limiter, own)

    plain = build(declared.capabilities, declared.traits)
    if not is_probed:
        return plain
    if listed := await list_served_models(plain):
        entry = find_served_model(listed, target)
        length = entry.get("max_model_len")
        context = length if isinstance(length, int) else context
        if entry.get("root"):  # vLLM reports which weights it serves under the name
            root = str(entry["root"])
            identity = f"{target.name}={root}"
    if target.vllm:
        identity += await _version(plain)

    def with_measured(measured: Mapping[str, JsonValue]) -> ModelProfile:
        return provider_profile(target, settings, measured=measured, root=root)

    return build(*await probe_capabilities(build, with_measured, context, target.vllm))


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
    provider = "hosted_vllm/" if listed[0].get("owned_by") == "vllm" else "openai/"
    return f"{provider}{listed[0]['id']}@{client.base_url}"


async def _version(model: ServerModel) -> str:
    try:
        reported, _ = await model.retried(lambda: version(model.wire.http))
    except BackendError:
        return ""
    return f"+vllm{reported}"
