"""The fork server of the pages' commands: one for each test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.doc_session import CommandForkServer


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandForkServer]:
    server = CommandForkServer(tmp_path_factory.mktemp("fork_server"))
    yield server
    server.close()
