"""What the servers of one's own were measured to support, remembered in the user's data directory.

It is remembered for a week; for an hour where there are no tools or no schemas, which a server's options may change.
A measurement belongs to a model at an address, its profile before it was measured, and a version of this package.
Deleting the directory `servers` forgets all of them.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, JsonValue, ValidationError

from ...core.files import write_file
from ...core.messages import Frozen
from ...core.version import __version__
from ..litellm.requests import RequestTraits
from ..model import Capabilities
from ..profiles.profile import ModelProfile

MAX_AGE: Final = timedelta(days=7)
MAX_AGE_OF_LACK: Final = timedelta(hours=1)


class ServedModel(Frozen):
    """What a server tells of a model.

    Attributes:
        context_tokens: Context length; None if it is not told.
        root: Weights that vLLM serves under the name; empty if not told.
        version: Version of a vLLM server; empty if not told.
    """

    context_tokens: int | None = None
    root: str = ""
    version: str = ""


class Measurement(Frozen):
    """What a server was measured to support.

    Attributes:
        model: The model string.
        endpoint: The server's address.
        package: Version of this package, whose probes were sent.
        declared: Digest of the model's profile before it was measured (`declared_digest`).
        date: When it was measured.
        served: What the server told of the model.
        capabilities: Its capabilities; their profile is in `fields`.
        traits: How the server takes requests.
        fields: The measured fields of the profile.
    """

    model: str
    endpoint: str
    package: str = __version__
    declared: str
    date: AwareDatetime
    served: ServedModel
    capabilities: Capabilities
    traits: RequestTraits
    fields: dict[str, JsonValue]


def declared_digest(profile: ModelProfile) -> str:
    """Identifies what a profile declares, without the parameters that are left out of requests since."""
    values = profile.model_dump(mode="json", exclude={"sources", "left_out"})
    fields = {name: sorted(value) if isinstance(value, list) else value for name, value in values.items()}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def read_measurement(directory: Path, model: str, endpoint: str, declared: str) -> Measurement | None:
    """The measurement of a model at a server; None if there is none that still holds."""
    try:
        found = Measurement.model_validate_json(_file(directory, model, endpoint).read_bytes())
    except (OSError, ValidationError):
        return None
    lacks = not (found.capabilities.tools and found.capabilities.json_schema)
    is_recent = datetime.now(UTC) - found.date < (MAX_AGE_OF_LACK if lacks else MAX_AGE)
    return found if is_recent and (found.package, found.declared) == (__version__, declared) else None


def list_measurements(directory: Path) -> list[Measurement]:
    """All that is remembered, the newest first; what cannot be read is left out."""
    found = []
    for file in (directory / "servers").glob("*.json"):
        with suppress(OSError, ValidationError):
            found.append(Measurement.model_validate_json(file.read_bytes()))
    return sorted(found, key=lambda one: one.date, reverse=True)


def write_measurement(directory: Path, measurement: Measurement) -> None:
    """Remember a measurement."""
    content = measurement.model_dump_json(exclude={"capabilities": {"profile"}}, indent=2)
    file = _file(directory, measurement.model, measurement.endpoint)
    with suppress(OSError):  # without a directory that can be written, the next process measures again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, content.encode())


def forget_measurements(directory: Path, model: str) -> None:
    """Forget the measurements of a model at all its servers; of an address, those of all its models."""
    for file in (directory / "servers").glob("*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            measured = str(json.loads(file.read_bytes())["model"])
            if measured == model or measured.endswith(f"@{model.rstrip('/')}"):
                file.unlink()


def _file(directory: Path, model: str, endpoint: str) -> Path:
    digest = hashlib.sha256(f"{model}\n{endpoint}".encode()).hexdigest()[:16]
    return directory / "servers" / f"{digest}.json"
