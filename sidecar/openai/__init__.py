"""The OpenAI-compatible API: chat completions, responses and models, answered by reasoning strategies."""

from __future__ import annotations

from fastapi import APIRouter

from ..run_start import ERROR_RESPONSES
from .chat import chat
from .models import models
from .responses import responses

router = APIRouter(responses={**ERROR_RESPONSES})
for _part in (chat, responses, models):
    router.include_router(_part)
