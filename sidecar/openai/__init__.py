"""OpenAI's interface: chat completions, responses and models, answered by reasoning strategies."""

from __future__ import annotations

from fastapi import APIRouter

from ..run_start import ERRORS
from .chat import chat
from .models import models
from .responses import responses

router = APIRouter(responses={**ERRORS})
for _part in (chat, responses, models):
    router.include_router(_part)
