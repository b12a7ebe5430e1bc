"""Names of spans and attributes: OpenTelemetry's conventions for generative AI, and ours under `reason.`.

The conventions are under development, in a repository of their own; what changes there changes here alone.
"""

from __future__ import annotations

# operations, by which spans are named
WORKFLOW, AGENT, CHAT, COMPLETION = "invoke_workflow", "invoke_agent", "chat", "text_completion"
EMBEDDINGS, RETRIEVAL = "embeddings", "retrieval"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
WORKFLOW_NAME = "gen_ai.workflow.name"
AGENT_NAME = "gen_ai.agent.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_CHOICES = "gen_ai.request.choice.count"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_SEED = "gen_ai.request.seed"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
EVALUATION = "gen_ai.evaluation.result"
EVALUATION_NAME = "gen_ai.evaluation.name"
EVALUATION_LABEL = "gen_ai.evaluation.score.label"
EVALUATION_VALUE = "gen_ai.evaluation.score.value"
DATA_SOURCE = "gen_ai.data_source.id"
ERROR_TYPE = "error.type"

# what users and models say: only where that is wanted
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"

RUN_ID = "reason.run.id"
REQUEST_ID = "reason.request.id"
STRATEGY = "reason.strategy"
RESUMED = "reason.run.resumed"
STOPPED = "reason.run.stopped"
COST_USD = "reason.cost.usd"
MODEL_CALLS = "reason.model_calls"
ROLE = "reason.role"
CALL = "reason.call.operation"
REPLAYED = "reason.call.replayed"
FAILED = "reason.call.failed"
CLAIMS = "reason.retrieval.claims"
PASSAGES = "reason.retrieval.passages"
STAGE = "reason.stage"
EXHAUSTED = "reason.budget.exhausted"
LIMIT_KIND = "reason.budget.kind"
DEGRADED = "reason.degraded"
WHAT = "reason.degraded.what"
UNFINISHED = "reason.unfinished"

WORKFLOW_OF_RUNS = "reason"
OPERATIONS = {"generate": CHAT, "workers": CHAT, "embed": EMBEDDINGS}
"""By the operation of a model call; all others read texts and write none, as completions of no tokens do."""

_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}


def provider_of(model: str) -> str:
    """The provider of a model string, by the name that the conventions have for it, else by its own."""
    prefix = model.partition("/")[0].lower()
    return _PROVIDERS.get(prefix, prefix)
