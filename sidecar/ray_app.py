"""`app`: the sidecar as a Ray Serve application: `serve run reason.sidecar.ray_app:app num_replicas=3`.

The settings are read where that command runs, and given to all replicas. Several replicas need a store that all of them
reach, in Postgres: then each serves every run, and those of a replica that dies are adopted by the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from ray import serve

from ..core.errors import UserError
from ..core.settings import Settings, load_settings, user_error_of
from ..core.store.location import is_postgres_url
from .app import create_app
from .logs import configure_logging

if TYPE_CHECKING:
    from ray.serve import Application

CLOSE_S = 15
"""Time in which a replica closes its models and its store after the drain, in seconds."""


class Arguments(BaseModel):
    """The arguments of the application.

    Attributes:
        num_replicas: Number of replicas, each with its own models.
    """

    model_config = ConfigDict(extra="forbid")

    num_replicas: PositiveInt = 1


def app(arguments: Mapping[str, str]) -> Application:
    """Build the application; Ray Serve calls it with the arguments of its command line or configuration.

    Ray's options of the deployment `reason`, such as its GPUs, can be set in a configuration file of Ray Serve.

    Raises:
        UserError: An argument or a setting is invalid, or several replicas would have no common store.
    """
    try:
        num_replicas = Arguments.model_validate(dict(arguments)).num_replicas
    except ValidationError as e:
        raise user_error_of(e, "argument", Arguments.model_fields) from e
    settings = load_settings()
    if num_replicas > 1 and not is_postgres_url(settings.store):
        raise UserError(
            f"num_replicas={num_replicas} needs a store that all replicas reach, not the file {settings.store}",
            hint='set store = "postgresql://HOST/DATABASE"',
        )
    plain = settings.model_dump(mode="json")

    def build() -> FastAPI:
        own = Settings(**plain)
        configure_logging(content=own.serve.log_content, errors=own.serve.log_errors)
        return create_app(own)

    deployment = serve.deployment(
        name="reason",
        num_replicas=num_replicas,
        max_ongoing_requests=settings.serve.max_runs + settings.serve.max_queued,
        graceful_shutdown_timeout_s=settings.serve.drain_timeout_s + CLOSE_S,
    )
    result: Application = deployment(serve.ingress(build)()).bind()
    return result
