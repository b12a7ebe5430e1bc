"""Runs that sources are asked in."""

import pytest
from support.knowledge_sources import KnowledgeRuns


@pytest.fixture
def runs(store):
    return KnowledgeRuns(store)
