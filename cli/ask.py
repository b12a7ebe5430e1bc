"""`reason ask`: a question answered here and now."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options

EXAMPLES = """
[b]Examples[/b]

reason ask "What is the capital of France?"
reason ask "What is 17 * 23?" -s self-consistency --set n=16
reason ask "Which is a prime?" --choices "21|23|25" --json
reason ask "Who wrote the install guide?" -s coat --context docs/
reason ask "Can you see the Great Wall from space?" -s edgejury --juror MODEL_A --juror MODEL_B
cat report.txt | reason ask "What was decided?" --context -
reason ask "When was it founded?" --context about.md --verify davinci --evidence archive/
reason ask - --budget-tokens 2000 --trace trace.html < question.txt

The answer goes to standard output, everything else to standard error.

[b]Exit status[/b]

0 answered   1 internal error   2 wrong usage   3 the model failed
4 budget spent, the answer is partial   5 not verified   130 interrupted
"""


def above_zero(value: float | None) -> float | None:
    """Refuse a limit that nothing could keep."""
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value:g} is not a number above 0")
    return value


def limit_option(flag: str, metavar: str, help_: str) -> Any:
    """A limit of the budget as an option."""
    return typer.Option(
        flag, metavar=metavar, help=help_, callback=above_zero, show_default=False, rich_help_panel=options.BUDGET
    )


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question; - reads it from standard input.")],
    strategy: options.Strategy = None,
    model: options.MainModel = None,
    small_model: options.SmallModel = None,
    judge_model: options.JudgeModel = None,
    reward_model: options.RewardModel = None,
    jurors: options.Jurors = None,
    chair_model: options.ChairModel = None,
    parameters: options.Parameters = None,
    calibration: options.Calibration = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="FILE|DIR|…",
            help="Text file that the answer may rest on (- is standard input); or, for coat and rag, where to look "
            "things up: DIR, faiss:PATH, http://…, mcp:COMMAND, model:NAME. May be repeated.",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Memory that coat and rag recall and coat adds to; `reason memory` manages them.",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    choices: Annotated[
        str | None,
        typer.Option(
            "--choices",
            metavar="A|B|C",
            help="Options of a multiple-choice question; the answer is a letter.",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Seed: the same seed gives the same answer. (default: drawn, and recorded)",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    verify: Annotated[
        list[str] | None,
        typer.Option(
            "--verify",
            metavar="NAME",
            help="Verifier of the answer; may be repeated.",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    verify_parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--verify-set",
            metavar="NAME.KEY=VALUE",
            help="Parameter of a verifier; may be repeated: see [b]reason verifiers show NAME[/b].",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    evidence: Annotated[
        list[Path] | None,
        typer.Option(
            "--evidence",
            metavar="PATH",
            help="Where verifiers look for evidence: a file, folder or saved index, beside the files of --context. "
            "May be repeated.",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    repairs: Annotated[
        int | None,
        typer.Option(
            "--repairs",
            min=0,
            max=10,
            metavar="N",
            help="Most times that an answer which did not pass goes back to the strategy with what was found. "
            "(default: 1)",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    require_verified: Annotated[
        bool,
        typer.Option(
            "--require-verified",
            help="Exit with status 5 unless the verifiers support the answer.",
            rich_help_panel=options.RUNNING,
        ),
    ] = False,
    budget_tokens: Annotated[
        int | None, limit_option("--budget-tokens", "N", "Most tokens generated, all models.")
    ] = None,
    budget_calls: Annotated[int | None, limit_option("--budget-calls", "N", "Most model calls.")] = None,
    budget_seconds: Annotated[
        float | None, limit_option("--budget-seconds", "S", "Most seconds, waiting included.")
    ] = None,
    budget_usd: Annotated[float | None, limit_option("--budget-usd", "X", "Most US dollars.")] = None,
    as_json: options.Json = False,
    stream: options.Stream = None,
    trace: options.Trace = None,
    store: options.Store = None,
    reuse: Annotated[
        str | None,
        typer.Option(
            metavar="run|store|none",
            help="Whose stored replies may answer a model call instead of the model: this run's, any run's, nobody's. "
            "(default: run)",
            show_default=False,
            rich_help_panel=options.ENGINE,
        ),
    ] = None,
    weight_format: options.WeightFormat = None,
    threads: options.Threads = None,
) -> None:
    """Answer a question."""
    from ..core.errors import UserError
    from ..core.settings import load_settings
    from .inputs import (
        STDIN,
        check_one_stdin,
        parse_choices,
        parse_parameters,
        parse_verify_parameters,
        read_contexts,
        read_question,
        sort_contexts,
    )

    check_one_stdin([question == STDIN, *(given == STDIN for given in context or ())])
    files, sources = sort_contexts(context or ())
    asked = read_question(question)
    options_given = parse_choices(choices)
    chosen = parse_parameters(parameters or ())
    verifying = parse_verify_parameters(verify_parameters or ())
    documents = read_contexts(files)
    if evidence and not verify and not load_settings().verify:
        raise UserError("--evidence is looked at by verifiers, and none is named", hint="add --verify davinci")
    settings = load_settings(
        strategy=strategy,
        model=model,
        verify=tuple(verify) if verify else None,
        evidence=tuple(str(path.expanduser().absolute()) for path in evidence) if evidence else None,
        repairs=repairs,
        seed=seed,
        budget=options.given(tokens=budget_tokens, calls=budget_calls, seconds=budget_seconds, usd=budget_usd),
        store=store,
        reuse=reuse,
        local=options.given(weight_format=weight_format, threads=threads),
    )

    from ..agents.reasoner import Reasoner
    from .answering import Outlet, answer_here

    answer_here(
        lambda progress: Reasoner(
            parameters=chosen,
            require_verified=require_verified,
            verify_parameters=verifying,
            small_model=small_model,
            judge_model=judge_model,
            reward_model=reward_model,
            jurors=jurors or None,
            chair_model=chair_model,
            calibration=calibration,
            context=sources or None,
            memory=memory,
            settings=settings,
            progress=progress,
        ),
        lambda reasoner, sinks, stream_text: reasoner.aask(
            asked, choices=options_given, documents=documents, sinks=sinks, stream_text=stream_text
        ),
        Outlet(as_json, stream, trace, options.resume_flags(store)),
        settings.budget,
    )
