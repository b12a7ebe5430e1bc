"""Client of a vLLM server that runs a pooling model (`--runner pooling`).

Retries, limits and errors are those of all other requests (`LiteLLMModel.retried`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...core.errors import BackendMisconfigured, InvalidResponse, UserError
from ...core.settings import ProviderSettings, Settings
from ..litellm.limiter import ConcurrencyLimiter
from ..litellm.model import LiteLLMModel
from ..litellm.providers import Prices, Target
from ..litellm.requests import RequestTraits
from ..litellm.transport import Transport
from ..model import Capabilities
from .pages import call, post_tokenize, tokenize_text, version
from .probing import find_served_model, list_served_models

POOLING_PREFIX = "hosted_vllm_pooling/"
_PROVIDER = POOLING_PREFIX.removesuffix("/")


@dataclass(frozen=True)
class PoolingServer:
    """One served pooling model.

    Attributes:
        client: Sends the requests.
        served: The model's name at the server.
        weights: The weights that the server reports under it: part of an identity.
        context: Maximum input in tokens; None if the server does not report it.
    """

    client: LiteLLMModel
    served: str
    weights: str
    context: int | None

    async def tokenize(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Tokens of a conversation."""
        body = {"model": self.served, "messages": list(messages), "add_generation_prompt": False}
        ids, _ = await self.client.retried(lambda: post_tokenize(self.client.wire.http, body))
        return ids

    async def tokens_of(self, text: str) -> list[int]:
        """Tokens of a text."""
        client = self.client.wire.http
        ids, _ = await self.client.retried(lambda: tokenize_text(client, self.served, text, special=False))
        return ids

    async def pool(self, ids: Sequence[int], *, activated: bool) -> Any:
        """Rows of a model's output for an input's tokens (`/pooling`), with or without its activation."""
        body = {
            "model": self.served,
            "input": list(ids),
            "task": "token_classify",
            "use_activation": activated,
            "encoding_format": "float",
        }
        return _only(await self._post("/pooling", body), "data")

    async def classify(self, ids: Sequence[int], *, activated: bool) -> Any:
        """Scores of the classes of an input (`/classify`), with or without the model's activation."""
        body = {"model": self.served, "input": list(ids), "use_activation": activated}
        return _only(await self._post("/classify", body), "probs")

    async def aclose(self) -> None:
        """Cancel requests in flight and close the connections; idempotent."""
        await self.client.aclose()

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response, _ = await self.client.retried(lambda: call(self.client.wire.http, path, body))
        return response


async def connect_pooling_server(name: str, settings: Settings) -> PoolingServer:
    """Connect to the server of `hosted_vllm_pooling/<served name>` and check that it serves the model."""
    served = name.removeprefix(POOLING_PREFIX)
    target = _target(name, served, settings)
    limiter = ConcurrencyLimiter(target.settings.concurrency)
    client = LiteLLMModel(target, Transport(target), Capabilities(), RequestTraits(vllm=True), Prices(), limiter, name)
    try:
        listed = await list_served_models(client)
        entry = find_served_model(listed, target)
        fields, _ = await client.retried(lambda: version(client.wire.http))
    except BaseException:
        await client.aclose()
        raise
    length = entry.get("max_model_len")
    weights = f"{name}={entry.get('root') or target.endpoint}+vllm{fields}"
    return PoolingServer(client, served, weights, length if isinstance(length, int) else None)


def _target(name: str, served: str, settings: Settings) -> Target:
    provider_settings = settings.providers.get(name) or settings.providers.get(_PROVIDER) or ProviderSettings()
    base = provider_settings.api_base or os.environ.get(f"{_PROVIDER.upper()}_API_BASE")
    if not served or base is None:
        raise UserError(
            f"model {name!r}: " + ("the server's address is not set" if served else "no served model is named"),
            hint=f"set api_base under [providers.{_PROVIDER}] in reason.toml, or {_PROVIDER.upper()}_API_BASE, "
            "as in http://127.0.0.1:8001/v1",
        )
    key_env = provider_settings.api_key_env or f"{_PROVIDER.upper()}_API_KEY"
    key = os.environ.get(key_env)
    if provider_settings.api_key_env is not None and not key:
        raise BackendMisconfigured(
            f"model {name!r} needs the key in {key_env}, which is not set", hint=f"export {key_env}=…"
        )
    return Target(
        name=name,
        provider="hosted_vllm",
        served=served,
        api_base=base,
        api_key=key or "none",
        key_env=key_env,
        settings=provider_settings,
        parameters=frozenset(),
        data_dir=settings.data_dir,
    )


def _only(response: dict[str, Any], field: str) -> Any:
    rows = response.get("data")
    if not isinstance(rows, list) or len(rows) != 1 or not isinstance(rows[0], dict) or field not in rows[0]:
        raise InvalidResponse("the pooling server did not return one result for one input")
    return rows[0][field]
