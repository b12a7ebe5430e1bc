"""Mistakes of a caller, which mypy must find by the types of the installed wheel; each line says with which code."""

from __future__ import annotations

from reason import Budget, Reasoner, Solution, answer_everything, ask  # error: attr-defined

tokens: str = ask("What is 6 * 7?").usage.completion_tokens  # error: assignment
ask(17)  # error: arg-type
Reasoner(strategie="cot")  # error: call-arg
answers = ask("What is 6 * 7?").answers  # error: attr-defined
budget: Budget = Solution(chosen=None)  # error: assignment
answer = Reasoner().aask("What is 6 * 7?").answer  # error: attr-defined
seen = (answer_everything, tokens, answers, budget, answer)
