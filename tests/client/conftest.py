"""A command line and a client for the real service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from basisconv_client import Client
from tests.client.running import CommandLine, command_line
from tests.support.service import Service


@pytest.fixture
def basisconv(shared_server: Service, tmp_path: Path) -> CommandLine:
    """`basisconv`, signed in to the module's service."""
    return command_line(tmp_path, shared_server)


@pytest.fixture
def client(shared_server: Service) -> Iterator[Client]:
    with Client(shared_server.url, shared_server.key) as client:
        yield client
