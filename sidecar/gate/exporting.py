"""Where spans go: by OpenTelemetry's own environment variables, to whatever exporter is installed.

`OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) or `OTEL_TRACES_EXPORTER` turns spans on. The SDK reads the rest:
service name, resource, sampler, batching, headers, protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.metadata import entry_points

from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from ...core.errors import UserError
from ...core.version import __version__

_GROUP = "opentelemetry_traces_exporter"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def open_tracing(environ: Mapping[str, str]) -> TracerProvider | None:
    """What makes spans and sends them off, as the environment says; None where it says nothing of them.

    Args:
        environ: The environment.

    Raises:
        UserError: The exporter that it names is not installed, or there is none of that name.
    """
    names = exporters_named(environ)
    if not names:
        return None
    # the application's own name stands where the environment has none
    resource = Resource.create({} if "OTEL_SERVICE_NAME" in environ else {SERVICE_NAME: "reason"})
    provider = TracerProvider(resource=resource.merge(Resource({"service.version": __version__})))
    for name in names:
        provider.add_span_processor(BatchSpanProcessor(_load(name)))
    return provider


async def close_tracing(provider: TracerProvider) -> None:
    """Send off what is left; a collector that cannot be reached holds nothing up for long."""
    await asyncio.to_thread(provider.force_flush, 5000)
    await asyncio.to_thread(provider.shutdown)


def exporters_named(environ: Mapping[str, str]) -> list[str]:
    """Entry points of the exporters that the environment asks for."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    asked = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not asked:
        asked = "otlp" if any(environ.get(name) for name in _ENDPOINTS) else "none"
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    otlp = _OTLP.get((protocol or "http/protobuf").strip(), "otlp")
    named = [one.strip() for one in asked.split(",")]
    return [otlp if one == "otlp" else one for one in named if one not in ("", "none")]


def _load(name: str) -> SpanExporter:
    found = list(entry_points(group=_GROUP, name=name))
    if not found:
        raise UserError(
            f"the span exporter {name!r} is not installed",
            hint="pip install opentelemetry-exporter-otlp-proto-http, or set OTEL_TRACES_EXPORTER=none",
        )
    exporter: SpanExporter = found[0].load()()
    return exporter
