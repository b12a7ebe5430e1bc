"""A small world to navigate, made by hand: eight assessments, what each block earns there, and what it leads to.

Its best policy is known from value iteration. Three things in it mislead a learner that is not what it should be: a
block that pays most at once and leads nowhere, a detour that only pays at its end, and blocks that would be worth most
where they may not run.
"""

from __future__ import annotations

from reason.reasoning.rlot.assessment import State
from reason.reasoning.rlot.blocks import Legal

REASON, DECOMPOSE, DEBATE, REFINE, TERMINATE = range(5)

BARE: State = (0, 0, 0, 0, 0, 0, 0)
ROUGH: State = (2, 1, 1, 3, 2, 1, 1)
PLAN: State = (3, 2, 0, 2, 1, 2, 2)
STUCK: State = (1, 1, 1, 3, 1, 1, 1)
HALF: State = (3, 3, 2, 2, 2, 2, 3)
FINE: State = (3, 3, 3, 1, 2, 3, 3)
TIRED: State = (2, 2, 2, 1, 3, 2, 2)
LOST: State = (1, 2, 1, 3, 3, 1, 2)

ALL: Legal = (True, True, True, True, True)
LEGAL: dict[State, Legal] = {
    BARE: (True, True, True, False, True),
    ROUGH: ALL,
    PLAN: ALL,
    STUCK: ALL,
    HALF: ALL,
    FINE: ALL,
    TIRED: (False, False, False, False, True),
    LOST: (False, False, True, False, True),
}

# what a block earns in a state, and the state after it; None ends the episode
WORLD: dict[State, dict[int, tuple[float, State | None]]] = {
    BARE: {REASON: (0.3, ROUGH), DECOMPOSE: (0.2, PLAN), DEBATE: (0.8, STUCK), TERMINATE: (0.0, None)},
    ROUGH: {
        REASON: (0.3, STUCK),
        DECOMPOSE: (0.1, LOST),
        DEBATE: (0.3, TIRED),
        REFINE: (0.1, HALF),
        TERMINATE: (0.2, None),
    },
    PLAN: {
        REASON: (0.3, HALF),
        DECOMPOSE: (0.0, PLAN),
        DEBATE: (0.5, TIRED),
        REFINE: (0.0, ROUGH),
        TERMINATE: (0.0, None),
    },
    STUCK: {
        REASON: (0.0, STUCK),
        DECOMPOSE: (0.0, LOST),
        DEBATE: (0.0, STUCK),
        REFINE: (0.0, STUCK),
        TERMINATE: (0.1, None),
    },
    HALF: {
        REASON: (0.4, FINE),
        DECOMPOSE: (0.0, ROUGH),
        DEBATE: (0.1, FINE),
        REFINE: (0.2, STUCK),
        TERMINATE: (0.5, None),
    },
    FINE: {
        REASON: (0.3, TIRED),
        DECOMPOSE: (0.0, LOST),
        DEBATE: (0.3, STUCK),
        REFINE: (0.0, STUCK),
        TERMINATE: (1.4, None),
    },
    TIRED: {TERMINATE: (0.3, None)},
    LOST: {DEBATE: (0.2, STUCK), TERMINATE: (0.0, None)},
}


def values(gamma: float) -> dict[State, dict[int, float]]:
    """The value of each legal block in each state, by value iteration."""
    worth = dict.fromkeys(WORLD, 0.0)
    while True:
        q = {
            state: {
                action: reward + (gamma * worth[after] if after is not None else 0.0)
                for action, (reward, after) in blocks.items()
            }
            for state, blocks in WORLD.items()
        }
        better = {state: max(blocks.values()) for state, blocks in q.items()}
        if max(abs(better[state] - worth[state]) for state in worth) < 1e-12:
            return q
        worth = better


def reachable() -> set[State]:
    """Every state that some legal blocks lead to."""
    found, left = {BARE}, [BARE]
    while left:
        for _, after in WORLD[left.pop()].values():
            if after is not None and after not in found:
                found.add(after)
                left.append(after)
    return found
