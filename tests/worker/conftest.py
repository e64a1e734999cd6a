"""A worker's runtime in this process, on the real servers, with children of the test's own."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core.settings import Settings
from app.jobs.tables import Job
from tests.worker.rows import add_job, add_model
from worker.runtime import Runtime

# What every little child begins with: say() writes a message, the task stands in `task`.
PROLOGUE = """
import json, os, sys, time
task = json.loads(sys.stdin.readline())
def say(**message):
    sys.stdout.write(json.dumps(message) + "\\n"); sys.stdout.flush()
"""

Run = Callable[[str], Job]


@pytest.fixture
def runtime(settings: Settings) -> Iterator[Runtime]:
    made = Runtime.build(settings, Event())
    yield made
    made.sessions.kw["bind"].dispose()


@pytest.fixture
def with_child(runtime: Runtime, tmp_path: Path) -> Callable[[str], Runtime]:
    """The runtime with a child that runs these lines."""

    def build(source: str) -> Runtime:
        script = tmp_path / "child.py"
        script.write_text(PROLOGUE + textwrap.dedent(source))
        return replace(runtime, command=(sys.executable, str(script)))

    return build


@pytest.fixture
def job_id(sessions: sessionmaker[Session], runtime: Runtime) -> str:
    """A queued job on a model whose bytes are in the store."""
    blob = runtime.store.put_bytes(b"the network")
    return add_job(sessions, add_model(sessions, blob.sha256))
