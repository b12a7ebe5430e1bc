"""Fault drills run only when `-m drill` selects them: they start and kill real servers, and take a minute."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "drill" in config.getoption("markexpr", ""):
        return
    for item in items:
        if item.get_closest_marker("drill") is not None:
            item.add_marker(pytest.mark.skip(reason="fault drill: run with -m drill"))
