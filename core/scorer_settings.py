"""Settings of the models that score and embed: reward models, embedding models, cross-encoders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_EMBEDDING_MODEL = "local/all-minilm-l6-v2"

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class RewardSettings(BaseModel):
    """How one reward model is asked (see `Settings.rewards`). None leaves a value to the form.

    Attributes:
        form: How problem and steps become the model's input, and where its scores stand: "qwen" (a conversation with
            a tag after each step and a two-class head), "tokens" (numbered steps with a tag after each, at which a
            plain language model says a good or a bad token), "outcome" (a classifier of whole answers), "judge"
            (a language model is asked yes or no); "auto" goes by the model's architecture and name.
        step_tag: Text after each step.
        good_token: What a "tokens" model says after a good step, or what opens a judge's yes.
        bad_token: Likewise after a bad step, or no.
        system: System message of the conversation; empty leaves it out.
        max_tokens: Longest input in tokens; None is the model's own limit.
        batch_tokens: Most tokens computed together, padding included.
        device: "auto" is a GPU if there is one.
        dtype: Number format; "auto" is the one of the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: Literal["auto", "qwen", "tokens", "outcome", "judge"] = "auto"
    step_tag: Annotated[str, Field(min_length=1)] | None = None
    good_token: Annotated[str, Field(min_length=1)] | None = None
    bad_token: Annotated[str, Field(min_length=1)] | None = None
    system: str | None = None
    max_tokens: Annotated[int, Field(ge=8)] | None = None
    batch_tokens: Annotated[int, Field(ge=1)] = 8192
    device: Device = "auto"
    dtype: Dtype = "auto"


class EncoderSettings(BaseModel):
    """How one embedding model or cross-encoder is asked (see `Settings.encoders`).

    Attributes:
        query_prompt: What is put before a query; None is what the model's own files say, empty is nothing.
        document_prompt: Likewise before a document.
        max_tokens: Longest input in tokens, beyond which a text is cut; None is the model's own limit.
        batch_texts: Most texts computed or sent together.
        remembered_bytes: Memory for embeddings that were asked for before.
        device: "auto" is a GPU if there is one.
        dtype: Number format; "auto" is the one of the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query_prompt: str | None = None
    document_prompt: str | None = None
    max_tokens: Annotated[int, Field(ge=8)] | None = None
    batch_texts: Annotated[int, Field(ge=1, le=2048)] = 32
    remembered_bytes: Annotated[int, Field(ge=0)] = 64 << 20
    device: Device = "auto"
    dtype: Dtype = "auto"
