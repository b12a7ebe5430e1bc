"""`StrictRoute`: a body that is not as it should be is a bad request (400), as OpenAI's clients know it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from ...core.errors import UserError
from ...core.registry import nearest


class StrictRoute(APIRoute):
    """A route whose body is refused with the field at fault, and for an unknown one the nearest known."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`."""
        handle = super().get_route_handler()
        known = tuple(self.body_field.field_info.annotation.model_fields) if self.body_field else ()  # type: ignore[union-attr]

        async def strictly(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as e:
                raise _refusal(dict(e.errors()[0]), known) from e

        return strictly


def _refusal(fault: dict[str, Any], known: tuple[str, ...]) -> UserError:
    """A fault as an error that names its place."""
    if fault["type"] == "json_invalid":
        return UserError("the body is no JSON", hint=str(fault.get("ctx", {}).get("error", "")))
    place = ".".join(str(part) for part in fault["loc"] if part not in ("body", "header"))
    if fault["type"] == "extra_forbidden":
        near = nearest(place, known)
        meant = f"did you mean {near[0]!r}? " if near else ""
        hint = f"{meant}a strategy's own parameters stand in reason.parameters"
        return UserError(f"unknown field {place!r}", hint=hint, param=place)
    said = str(fault["msg"]).removeprefix("Value error, ")
    return UserError(f"{place}: {said}" if place else said, param=place or None)
