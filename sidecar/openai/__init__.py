"""The OpenAI-compatible API: chat completions, responses and models, answered by reasoning strategies."""

from __future__ import annotations

from fastapi import APIRouter

from ..run_start import ERROR_RESPONSES
from .chat import chat, chat_completions
from .direct_routes import DirectRoute
from .models import models
from .requests import ChatRequest, ResponsesRequest
from .responses import create_response, responses

router = APIRouter(responses={**ERROR_RESPONSES})
for _part in (chat, responses, models):
    router.include_router(_part)

DIRECT_ROUTES = {
    route.path: route
    for route in (
        DirectRoute("/v1/chat/completions", ChatRequest, chat_completions),
        DirectRoute("/v1/responses", ResponsesRequest, create_response),
    )
}
