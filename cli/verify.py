"""`reason verify`: a text that something else wrote, checked claim by claim."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .ask import limit_option

CHECKING = "What is checked"

EXAMPLES = """
[b]Examples[/b]

reason verify --answer answer.txt --docs handbook.pdf --docs notes/
some-model "Who wrote it?" | reason verify --answer - --question "Who wrote it?" --docs report.md
reason verify --answer answer.txt --index wiki-index --entailment judge -m openai/gpt-4o-mini
reason verify --answer answer.txt --docs notes/ --html checked.html --require-verified
reason verify --answer sums.txt --programs-only

What was found goes to standard output, everything else to standard error.

[b]Exit status[/b]

0 checked   1 internal error   2 wrong usage, or a document that cannot be read   3 what judges failed
4 budget spent, some claims are unchecked   5 not verified   130 interrupted
"""


def verify(
    answer: Annotated[
        Path,
        typer.Option(
            "--answer",
            metavar="FILE|-",
            help="The text; - reads it from standard input.",
            show_default=False,
            rich_help_panel=CHECKING,
        ),
    ],
    question: Annotated[
        str | None,
        typer.Option(
            "--question", metavar="TEXT", help="What it answers.", show_default=False, rich_help_panel=CHECKING
        ),
    ] = None,
    docs: Annotated[
        list[Path] | None,
        typer.Option(
            "--docs",
            metavar="PATH",
            help="File or folder that it is checked against: text, Markdown, HTML, JSON, PDF. May be repeated.",
            show_default=False,
            rich_help_panel=CHECKING,
        ),
    ] = None,
    index: Annotated[
        list[Path] | None,
        typer.Option(
            "--index",
            metavar="DIR",
            help="Saved index likewise ([b]reason index build[/b]). May be repeated.",
            show_default=False,
            rich_help_panel=CHECKING,
        ),
    ] = None,
    programs_only: Annotated[
        bool,
        typer.Option(
            "--programs-only",
            help="Check without documents what a program can: arithmetic, dates, units.",
            rich_help_panel=CHECKING,
        ),
    ] = False,
    verifier: Annotated[
        str,
        typer.Option(
            "--verifier", metavar="NAME", help="See [b]reason verifiers[/b].", rich_help_panel=options.RUNNING
        ),
    ] = "davinci",
    entailment: Annotated[
        str | None,
        typer.Option(
            "--entailment",
            metavar="NAME",
            help="What judges: embedded, lexical, judge, nli/…, minicheck/… (default: the verifier's)",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Parameter of the verifier; may be repeated. VALUE is JSON where it can be, else text.",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Language model, where one is needed: it judges, or cuts the text into claims.",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    jurors: options.Jurors = None,
    require_verified: Annotated[
        bool,
        typer.Option(
            "--require-verified",
            help="Exit with status 5 unless every claim is supported.",
            rich_help_panel=options.RUNNING,
        ),
    ] = False,
    budget_tokens: Annotated[int | None, limit_option("--budget-tokens", "N", "Most tokens generated.")] = None,
    budget_calls: Annotated[int | None, limit_option("--budget-calls", "N", "Most model calls.")] = None,
    budget_passes: Annotated[
        int | None, limit_option("--budget-passes", "N", "Most passes of what judges, one for a claim and a passage.")
    ] = None,
    budget_seconds: Annotated[float | None, limit_option("--budget-seconds", "S", "Most seconds.")] = None,
    budget_usd: Annotated[float | None, limit_option("--budget-usd", "X", "Most US dollars.")] = None,
    as_json: options.Json = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write a page to look at: the text, and the evidence for each claim.",
            show_default=False,
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    trace: options.Trace = None,
    store: options.Store = None,
    weight_format: options.WeightFormat = None,
    threads: options.Threads = None,
) -> None:
    """Check a text that something else wrote against documents, claim by claim."""
    from ..agents.chosen_models import verifier_asks_jury
    from ..core.errors import NotVerified, UserError
    from ..core.settings import load_settings
    from .inputs import parse_parameters
    from .verify_inputs import check_documents, check_indexes, open_page, read_answer

    text = read_answer(answer)
    places = [
        str(path.expanduser().absolute())
        for path in (*check_documents(answer, docs or ()), *check_indexes(index or ()))
    ]
    chosen = parse_parameters(parameters or ())
    if entailment is not None:
        if "entailment" in chosen:
            raise UserError("--entailment and --set entailment=… exclude each other", hint="say one of them")
        chosen["entailment"] = entailment
    limits = options.given(
        tokens=budget_tokens, calls=budget_calls, reward_calls=budget_passes, seconds=budget_seconds, usd=budget_usd
    )
    settings = load_settings(
        budget=limits, store=store, local=options.given(weight_format=weight_format, threads=threads)
    )
    if not places and not settings.evidence and not programs_only and not verifier_asks_jury(verifier):
        raise UserError(
            "there is nothing to check the answer against",
            hint="give --docs PATH or --index DIR, or --programs-only for arithmetic, dates and units alone",
        )
    from ..agents.verify_text import averify_text
    from .verify_here import Wanted, verify_here

    with open_page(html) as write_page:
        found = verify_here(
            lambda progress, sinks: averify_text(
                text,
                question=question or "",
                evidence=places,
                verifier=verifier,
                parameters=chosen,
                settings=settings,
                model=model,
                jurors=jurors or None,
                programs_only=programs_only,
                progress=progress,
                sinks=sinks,
            ),
            Wanted(as_json, trace, options.resume_flags(store)),
            settings.budget,
        )
        write_page(found)
    verdict = found.verification.verdict
    if require_verified and verdict != "supported":
        raise NotVerified(f"the answer is not verified: {verdict.replace('_', ' ')}")
    if any(report.reason == "unchecked" for report in found.reports):
        raise typer.Exit(4)
