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
from .completion import complete_model, complete_run, complete_strategy, complete_tool

REASONING = "Reasoning"
VERIFICATION = "Verification"
TOOLS = "Tools"
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

    if value is not None and value not in EFFORTS:
        raise typer.BadParameter(f"must be one of {', '.join(EFFORTS)}, got {value}")
    return value


def known_approval_mode(value: str | None) -> str | None:
    """Callback of an option whose value says which calls need an approval."""
    if value not in (None, "never", "guard", "writes", "all"):
        raise typer.BadParameter(f"must be never, guard, writes or all, got {value}")
    return value


def known_outcome(value: str | None) -> str | None:
    """Callback of an option whose value is the outcome of an interrupted call."""
    if value not in (None, "done", "failed"):
        raise typer.BadParameter(f"must be done or failed, got {value}")
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
        help="Use this reasoning strategy; [b]reason strategies[/b] lists them.",
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
        help="Use this main model: local/…, vllm/…, any LiteLLM model string, or NAME@ADDRESS or the ADDRESS of a "
        "server in OpenAI's format.",
        autocompletion=complete_model,
        rich_help_panel=REASONING,
    ),
]
SmallModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Use this small model in strategies with two models.",
        autocompletion=complete_model,
        rich_help_panel=REASONING,
    ),
]
RewardModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Score steps with this reward model, for example judge/local/smollm2-135m.",
        rich_help_panel=REASONING,
    ),
]
Jurors = Annotated[
    list[str],
    typer.Option(
        "--juror",
        metavar="NAME",
        help="Add a juror of [b]edgejury[/b], or a model for drafts of [b]fusion[/b]. Repeatable. "
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
        help="Set a parameter of the strategy; the value is JSON or text. Repeatable.",
        show_default=False,
        rich_help_panel=REASONING,
    ),
]
ToolNames = Annotated[
    list[str],
    typer.Option(
        "--tool",
        metavar="NAME|MODULE:FUNCTION",
        help="Let the model call this tool: python, documents, shell, or a function of a module. Repeatable.",
        autocompletion=complete_tool,
        show_default=False,
        rich_help_panel=TOOLS,
    ),
]
McpServers = Annotated[
    list[str],
    typer.Option(
        "--mcp",
        metavar="COMMAND|URL",
        help="Let the model call the tools of this MCP server: a command, or the URL of a streamable HTTP server. "
        "Repeatable.",
        show_default=False,
        rich_help_panel=TOOLS,
    ),
]
FieldMap = Annotated[
    str | None,
    typer.Option(
        "--map",
        metavar="NAME=FIELD,…",
        help="Map fields of the data file: question=…,answer=…",
        rich_help_panel=DATA,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Use only the first N items.", rich_help_panel=DATA),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=OUTPUT)]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="FILE|URL",
        help="Use this run store, an SQLite file or postgresql://HOST/DATABASE. (default: from the settings)",
        rich_help_panel=ENGINE,
    ),
]
RunStore = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="FILE|URL",
        help="Use this run store, an SQLite file or postgresql://HOST/DATABASE. (default: one in the run directory)",
        rich_help_panel=ENGINE,
    ),
]
FileStore = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FILE",
        help="Use this run store, an SQLite file. (default: one in the run directory)",
        parser=sqlite_file,
        rich_help_panel=ENGINE,
    ),
]
Stream = Annotated[
    bool | None,
    typer.Option(
        "--stream/--no-stream",
        help="Print the text while it is generated, if the answer is a single sample. (default: on a terminal, where "
        "the text is the answer)",
        rich_help_panel=OUTPUT,
    ),
]
ShowReasoning = Annotated[
    bool,
    typer.Option(
        "--show-reasoning",
        help="Also print the reasoning before an answer that is an option, a number, a formula or code.",
        rich_help_panel=OUTPUT,
    ),
]
Trace = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        help="Write the run's events to a file: [b].jsonl[/b], one event per line, or [b].html[/b], a page.",
        rich_help_panel=OUTPUT,
    ),
]
TESTS_HELP = (
    "Test an answer that is Python code with this file: functions test_…, asserts or >>> examples. The verifier "
    "execution and best-of-n with score=tests run them in a sandbox. (default: the examples in the question)"
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
        help="Process at most N items at once. (default: 16)",
        rich_help_panel="Scale",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ReasoningOptions:
    """The strategy, its models and its parameters."""

    strategy: Strategy = None
    model: MainModel = None
    api_base: Annotated[
        str | None,
        typer.Option(
            "--api-base",
            metavar="URL",
            help="Call the main model at this server in OpenAI's format, as in http://127.0.0.1:8000/v1; its first "
            "model without --model.",
            rich_help_panel=REASONING,
        ),
    ] = None
    small_model: SmallModel = None
    judge_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Judge candidates, and claims by their evidence, with this model.",
            autocompletion=complete_model,
            rich_help_panel=REASONING,
        ),
    ] = None
    reward_model: RewardModel = None
    jurors: Jurors = field(default_factory=list)
    parameters: Parameters = field(default_factory=list)
    effort: Annotated[
        str | None,
        typer.Option(
            "--effort",
            metavar="none|minimal|low|medium|high|max",
            help="Let a model that thinks spend this effort on each answer. (default: the model's own)",
            callback=known_effort,
            rich_help_panel=REASONING,
        ),
    ] = None
    thinking_tokens: Annotated[
        int | None,
        typer.Option(
            "--thinking-tokens",
            metavar="N",
            help="Limit each thought to N tokens. (default: by the effort)",
            callback=positive,
            rich_help_panel=REASONING,
        ),
    ] = None
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="FILE",
            help="Calibrate the confidence with this map from [b]reason eval calibrate[/b]; none for no map. "
            "(default: from the settings)",
            rich_help_panel=REASONING,
        ),
    ] = None

    @property
    def main_model(self) -> str | None:
        """The model string of the main model, with the address of its server; None if neither is set."""
        if self.api_base is None:
            return self.model
        if not self.api_base.startswith(("http://", "https://")):
            raise UserError(f"--api-base {self.api_base!r} is not an address", hint="as in http://127.0.0.1:8000/v1")
        return self.api_base if self.model is None else f"{self.model}@{self.api_base}"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that the options override; None leaves one as it is."""
        return {
            "strategy": self.strategy,
            "model": self.main_model,
            "effort": self.effort,
            "thinking_tokens": self.thinking_tokens,
        }

    @property
    def arguments(self) -> dict[str, Any]:
        """The other options as arguments of `Reasoner`."""
        from .inputs import parse_parameters

        return {
            "parameters": parse_parameters(self.parameters),
            "small_model": self.small_model,
            "judge_model": self.judge_model,
            "reward_model": self.reward_model,
            "jurors": self.jurors or None,
            "calibration": self.calibration,
        }


Trajectories = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Make the run by this many loops over the tools, and choose one. (default: 1)",
        show_default=False,
        rich_help_panel=TOOLS,
    ),
]
Select = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="Choose the loop by this rule: race (the first that ends), ended-fewest-calls, agreement (a vote), judge, "
        "tests. (default: race; with shell ended-fewest-calls; with other tools that change something agreement)",
        show_default=False,
        rich_help_panel=TOOLS,
    ),
]


@dataclass(frozen=True, kw_only=True)
class ToolOptions:
    """Tools that the model may call."""

    tools: ToolNames = field(default_factory=list)
    mcp: McpServers = field(default_factory=list)
    approve: Annotated[
        str | None,
        typer.Option(
            metavar="never|guard|writes|all",
            help="Ask before calls that change something (writes), only before those that you did not ask for "
            "once a result has been read (guard), before all calls, or never. (default: writes on a terminal)",
            callback=known_approval_mode,
            rich_help_panel=TOOLS,
        ),
    ] = None
    trajectories: Trajectories = None
    select: Select = None
    check_writes: Annotated[
        bool | None,
        typer.Option(
            "--check-writes",
            help="Have the judge model quote your words that ask for a call that changes something; without them the "
            "call is not executed.",
            show_default=False,
            rich_help_panel=TOOLS,
        ),
    ] = None
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Have it quote the words of this policy that allow the call, too.",
            show_default=False,
            rich_help_panel=TOOLS,
        ),
    ] = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The options besides the tools as arguments of `Reasoner`."""
        names = ("approve", "trajectories", "select", "check_writes", "policy")
        return {name: getattr(self, name) for name in names}

    @property
    def specs(self) -> tuple[str, ...]:
        """The tools, as a run's configuration names them."""
        return (*self.tools, *(f"mcp:{server}" for server in self.mcp))


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """Limits of a run."""

    budget: Annotated[
        list[str],
        typer.Option(
            "--budget",
            metavar="LIMIT=N",
            help="Limit tokens, thinking_tokens, prompt_tokens, calls, reward_calls, seconds or usd of the run, turns "
            "or tool_calls of one with tools. Repeatable.",
            show_default=False,
            rich_help_panel=BUDGET,
        ),
    ] = field(default_factory=list)

    @property
    def limits(self) -> dict[str, Any] | None:
        """The limits that are set, under the names of `core.budget.Budget`; None if none is."""
        from .inputs import parse_parameters

        return parse_parameters(self.budget, "--budget", "tokens=2000") or None


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """How the answer of a run is shown, and the store that has the run."""

    as_json: Json = False
    show_reasoning: ShowReasoning = False
    stream: Stream = None
    trace: Trace = None
    store: Store = None


def without_none(**values: Any) -> dict[str, Any] | None:
    """The values that are set; None if none is."""
    return {name: value for name, value in values.items() if value is not None} or None


def resume_flags(store: str | None) -> tuple[str, ...]:
    """The flags that `reason runs resume` needs again; a password is left out."""
    return () if store is None else ("--store", redacted_location(parse_location(store)))
