"""The process that trainings are forked from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.survival.processes import Server


@pytest.fixture(scope="package")
def server(library: Path) -> Iterator[Server]:
    server = Server(library)
    yield server
    server.end_children()
    server.close()


@pytest.fixture(autouse=True)
def no_strays(server: Server) -> Iterator[None]:
    """A test that fails leaves no training behind."""
    yield
    server.end_children()
