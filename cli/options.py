"""Options that several commands share, each declared once: single options as types, related ones as groups."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import UserError
from ..core.store.location import parse_location, redacted_location, require_file
from .completion import complete_model, complete_run, complete_strategy

REASONING = "Reasoning"
VERIFICATION = "Verification"
DATA = "Data"
BUDGET = "Budget"
OUTPUT = "Output"
ENGINE = "Store and engine"

_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_seconds(text: str, option: str) -> float:
    """A duration such as 30m, 12h, 90d or 8w, in seconds.

    Raises:
        UserError: It is none.
    """
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if match is None or int(match[1]) == 0:
        raise UserError(f"{option} {text[:40]!r} is not a duration", hint="write 30m, 12h, 90d or 8w")
    return int(match[1]) * _UNIT_SECONDS[match[2]]


def positive(value: float | None) -> float | None:
    """Callback of an option whose value must be positive and finite."""
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"must be a positive number, got {value:g}")
    return value


def known_effort(value: str | None) -> str | None:
    """Callback of an option whose value is an effort."""
    from ..core.messages import EFFORTS  # pydantic, which no help needs

    if value is not None and value not in (*EFFORTS, "auto"):
        raise typer.BadParameter(f"must be one of {', '.join(EFFORTS)} and auto, got {value}")
    return value


def sqlite_file(value: str) -> Path:
    """Parser of a run store that must be an SQLite file."""
    return require_file(parse_location(value), "sweeps and trainings")


Strategy = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        "-s",
        metavar="NAME",
        help="Reasoning strategy; [b]reason strategies[/b] lists them.",
        autocompletion=complete_strategy,
        rich_help_panel=REASONING,
    ),
]
MainModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="Main model: local/…, vllm/…, or any LiteLLM model string.",
        autocompletion=complete_model,
        rich_help_panel=REASONING,
    ),
]
SmallModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Small model of strategies that use two models.",
        autocompletion=complete_model,
        rich_help_panel=REASONING,
    ),
]
RewardModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Reward model that scores steps, for example judge/local/smollm2-135m.",
        rich_help_panel=REASONING,
    ),
]
Jurors = Annotated[
    list[str],
    typer.Option(
        "--juror",
        metavar="NAME",
        help="Model of one juror of [b]edgejury[/b], or of drafts of [b]fusion[/b]. Repeatable. "
        "(default: the main model, for all)",
        autocompletion=complete_model,
        show_default=False,
        rich_help_panel=REASONING,
    ),
]
Parameters = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Parameter of the strategy, read as JSON if possible, else as text. Repeatable.",
        show_default=False,
        rich_help_panel=REASONING,
    ),
]
FieldMap = Annotated[
    str | None,
    typer.Option(
        "--map",
        metavar="NAME=FIELD,…",
        help="Fields of the data file: question=…,answer=…",
        rich_help_panel=DATA,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Maximum number of items, from the first on.", rich_help_panel=DATA),
]
Json = Annotated[bool, typer.Option("--json", help="JSON output.", rich_help_panel=OUTPUT)]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="FILE|URL",
        help="Run store: an SQLite file or postgresql://HOST/DATABASE. (default: from the settings)",
        rich_help_panel=ENGINE,
    ),
]
RunStore = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="FILE|URL",
        help="Run store: an SQLite file or postgresql://HOST/DATABASE. (default: one in the run directory)",
        rich_help_panel=ENGINE,
    ),
]
FileStore = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FILE",
        help="Run store, an SQLite file. (default: one in the run directory)",
        parser=sqlite_file,
        rich_help_panel=ENGINE,
    ),
]
Stream = Annotated[
    bool | None,
    typer.Option(
        "--stream/--no-stream",
        help="Text output during generation, if the answer is a single sample. (default: on a terminal, where the text "
        "is the answer)",
        rich_help_panel=OUTPUT,
    ),
]
ShowReasoning = Annotated[
    bool,
    typer.Option(
        "--show-reasoning",
        help="The reasoning on standard output, too, before an answer that is an option, a number, a formula or code.",
        rich_help_panel=OUTPUT,
    ),
]
Trace = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        help="File for the run's events: [b].jsonl[/b] with one event per line, or an [b].html[/b] page.",
        rich_help_panel=OUTPUT,
    ),
]
TESTS_HELP = (
    "Tests of an answer that is Python code: functions test_…, asserts or >>> examples. The verifier execution and "
    "best-of-n with score=tests run them in a sandbox. (default: the examples in the question)"
)
RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", help="ID of the run, or a unique prefix of it.", autocompletion=complete_run),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Maximum number of items in flight. (default: 16)",
        rich_help_panel="Scale",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ReasoningOptions:
    """The strategy, its models and its parameters."""

    strategy: Strategy = None
    model: MainModel = None
    small_model: SmallModel = None
    judge_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Model that judges candidates, and claims by their evidence.",
            autocompletion=complete_model,
            rich_help_panel=REASONING,
        ),
    ] = None
    reward_model: RewardModel = None
    jurors: Jurors = field(default_factory=list)
    chair_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Model that merges the jurors' answers or drafts into one.",
            autocompletion=complete_model,
            rich_help_panel=REASONING,
        ),
    ] = None
    parameters: Parameters = field(default_factory=list)
    effort: Annotated[
        str | None,
        typer.Option(
            "--effort",
            metavar="none|minimal|low|medium|high|max|auto",
            help="Amount of thinking before each answer, for models that think; auto chooses it for the question. "
            "(default: the model's own)",
            callback=known_effort,
            rich_help_panel=REASONING,
        ),
    ] = None
    thinking_tokens: Annotated[
        int | None,
        typer.Option(
            "--thinking-tokens",
            metavar="N",
            help="Maximum number of tokens of each thought. (default: by the effort)",
            callback=positive,
            rich_help_panel=REASONING,
        ),
    ] = None
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="FILE",
            help="Calibration map of the strategy's confidence, from [b]reason eval calibrate[/b]; none for no map. "
            "(default: from the settings)",
            rich_help_panel=REASONING,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """Limits of a run."""

    budget_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Maximum number of generated tokens, over all models.",
            callback=positive,
            rich_help_panel=BUDGET,
        ),
    ] = None
    budget_thinking_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Maximum number of generated tokens that are thoughts, over all models.",
            callback=positive,
            rich_help_panel=BUDGET,
        ),
    ] = None
    budget_prompt_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Maximum number of prompt tokens, read from a cache or not, over all models.",
            callback=positive,
            rich_help_panel=BUDGET,
        ),
    ] = None
    budget_calls: Annotated[
        int | None,
        typer.Option(metavar="N", help="Maximum number of model calls.", callback=positive, rich_help_panel=BUDGET),
    ] = None
    budget_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S", help="Maximum wall-clock time in seconds.", callback=positive, rich_help_panel=BUDGET
        ),
    ] = None
    budget_usd: Annotated[
        float | None,
        typer.Option(metavar="X", help="Maximum cost in US dollars.", callback=positive, rich_help_panel=BUDGET),
    ] = None

    @property
    def limits(self) -> dict[str, Any] | None:
        """The limits that are set, under the names of `core.budget.Budget`; None if none is."""
        return without_none(
            tokens=self.budget_tokens,
            thinking_tokens=self.budget_thinking_tokens,
            prompt_tokens=self.budget_prompt_tokens,
            calls=self.budget_calls,
            seconds=self.budget_seconds,
            usd=self.budget_usd,
        )


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """How the answer of a run is shown, and the store that has the run."""

    as_json: Json = False
    show_reasoning: ShowReasoning = False
    stream: Stream = None
    trace: Trace = None
    store: Store = None


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Settings of a local model's engine."""

    weight_format: Annotated[
        str | None,
        typer.Option(
            "--weight-format",
            metavar="auto|fp32|bf16|int4",
            help="Number format of a local model's weights. (default: auto)",
            rich_help_panel=ENGINE,
        ),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            metavar="N",
            help="CPU threads of a local model. (default: chosen by the engine)",
            rich_help_panel=ENGINE,
        ),
    ] = None

    @property
    def local(self) -> dict[str, Any] | None:
        """The table `local` of the settings; None if nothing is set."""
        return without_none(weight_format=self.weight_format, threads=self.threads)


def without_none(**values: Any) -> dict[str, Any] | None:
    """The values that are set; None if none is."""
    return {name: value for name, value in values.items() if value is not None} or None


def resume_flags(store: str | None) -> tuple[str, ...]:
    """The flags that `reason runs resume` needs again; a password is left out."""
    return () if store is None else ("--store", redacted_location(parse_location(store)))
