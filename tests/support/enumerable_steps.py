"""Models of the world with known probabilities, for which the target of particle methods can be computed."""

import math

from reason.reasoning.search.core import Continuation


class KnownSteps:
    """Steps of known probabilities and potentials.

    Args:
        steps: From each prefix the steps that can follow, with their probabilities; a text without steps is complete.
        g: Potential of each prefix, which is also its score.
    """

    def __init__(self, steps, g):
        self.steps, self.g = steps, g

    def posterior(self):
        """The distribution of complete texts: p_M times the product of the potentials."""
        raw = {}

        def grow(text, weight):
            if text not in self.steps:
                raw[text] = weight
                return
            for step, p in self.steps[text].items():
                grow(text + step, weight * p * self.g[text + step])

        grow("", 1.0)
        total = math.fsum(raw.values())
        return {text: value / total for text, value in raw.items()}

    def step(self, prefix, step):
        """A step as it is reported to a search."""
        text = prefix + step
        return Continuation(step, 1, text not in self.steps, self.g.get(text, 0.0))

    def serve(self, chance):
        """A world for `play`; `chance.pick(probabilities)` makes its random choices."""

        def world(search, expand):
            prefix = search.tree.text(expand.node)
            options = self.steps[prefix]
            picks = [list(options)[chance.pick(list(options.values()))] for _ in range(expand.n)]
            return [self.step(prefix, pick) for pick in picks]

        return world

    def start_with_reference(self, search, reference, chance):
        """Run the first pass of a search so that this text is the reference of the second pass.

        Afterwards the search has requested the first step of its second pass. The pass makes no random choices.
        """
        chance.counting = False
        chance.choices = lambda population, weights, k: list(population)[:k]
        while True:
            batch = search.ask()
            if search.records:
                break
            for expand in batch:
                prefix = search.tree.text(expand.node)
                search.tell(expand, [self.step(prefix, reference[len(prefix)])] * expand.n)
        del chance.choices
        chance.counting = True


UNEVEN = KnownSteps(
    {"": {"a": 0.5, "b": 0.3, "s": 0.2}, "a": {"x": 0.5, "y": 0.5}, "b": {"x": 0.2, "y": 0.8}},
    {"a": 0.3, "b": 0.9, "s": 0.5, "ax": 0.2, "ay": 0.6, "bx": 0.9, "by": 0.1},
)
"""One or two steps; probabilities and potentials depend on the first step."""
