"""The mother of the commands that pages run: one for each process of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.doc_session import Mother


@pytest.fixture(scope="session")
def mother(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mother]:
    started = Mother(tmp_path_factory.mktemp("mother"))
    yield started
    started.close()
