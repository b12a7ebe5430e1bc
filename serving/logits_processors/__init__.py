"""Logits hooks: pure functions that change what a sample may say next, or measure it, by registered name.

A hook is `(logits_row, state) -> logits_row`: `logits_row` is a NumPy array `[vocab]` of fp32 logits, which it must not
change in place, and `state` tells where the sample stands. Hooks act on the sampling alone: log-probabilities are
reported from the raw distribution. They run in the order in which a request names them, each on the row the one before
left, so a hook that measures comes before those that change. Ours and third parties' are found through the entry-point
group `reason.hooks`, whose entries name a factory that takes the call's arguments and returns the hook. A hook over
several requests in lock-step is a `GroupHook`, found through the group `reason.group_hooks`.
"""

from .base import GROUP, GROUPS, Hook, HookFactory, HookState, hook_names, make_hooks
from .builtin import entropy_probe, forbid_tokens, only_tokens, steer, step_control, stop_on_confidence
from .groups import GroupHook, Line, OutOfStep, Peer, companions, contrast, run_hooks

__all__ = [
    "GROUP",
    "GROUPS",
    "GroupHook",
    "Hook",
    "HookFactory",
    "HookState",
    "Line",
    "OutOfStep",
    "Peer",
    "companions",
    "contrast",
    "entropy_probe",
    "forbid_tokens",
    "hook_names",
    "make_hooks",
    "only_tokens",
    "run_hooks",
    "steer",
    "step_control",
    "stop_on_confidence",
]
