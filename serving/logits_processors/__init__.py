"""Logits processors: functions that change or measure a sample's next-token logits, by registered name.

A logits processor is `(row, state) -> row`: `row` is a NumPy array `[vocab]` of fp32 logits, which it must not change
in place, and `state` describes the sample so far. Processors act on sampling only: log-probabilities are reported from
the raw distribution. They run in the order in which a request names them, each on the row that the previous one
returned, so a processor that measures comes before those that change. They are registered in the entry-point group
`reason.logits_processors`, whose entries name a factory that takes the arguments of the request and returns the
processor.
"""

from .registry import (
    ENTRY_POINTS,
    LogitsProcessor,
    ProcessorFactory,
    ProcessorState,
    ThoughtState,
    logits_processor_names,
    make_logits_processors,
    run_logits_processors,
)

__all__ = [
    "ENTRY_POINTS",
    "LogitsProcessor",
    "ProcessorFactory",
    "ProcessorState",
    "ThoughtState",
    "logits_processor_names",
    "make_logits_processors",
    "run_logits_processors",
]
