"""What the shell offers when the user presses Tab."""

from __future__ import annotations


def complete_strategy(begun: str) -> list[str]:
    """Names of strategies that begin so; looks at entry points alone, so that Tab is quick."""
    from importlib.metadata import entry_points

    return sorted({e.name for e in entry_points(group="reason.strategies") if e.name.startswith(begun)})


def complete_verifier(begun: str) -> list[str]:
    """Names of verifiers likewise."""
    from importlib.metadata import entry_points

    return sorted({e.name for e in entry_points(group="reason.verifiers") if e.name.startswith(begun)})


def complete_dataset(begun: str) -> list[str]:
    """Names of datasets likewise."""
    from importlib.metadata import entry_points

    return sorted({e.name for e in entry_points(group="reason.datasets") if e.name.startswith(begun)})
