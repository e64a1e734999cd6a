"""A worker's runtime whose children attack, and what became of their attempts."""

import json
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from app.core.settings import Settings
from app.models.tables import Model
from tests.conftest import make_settings
from tests.worker.conftest import runtime as runtime
from tests.worker.rows import add_model
from worker.inspections import inspect_model
from worker.runtime import Runtime

# An attacker begins as every child does, with worker/child.py's own first steps, and then does as it likes.
PROLOGUE = """
import ctypes, json, os, sys
from pathlib import Path
from worker import sandbox
order = json.loads(sys.argv[1])
entered = sandbox.enter(sandbox.Policy(**order["policy"]), order["parent"])
task = json.loads(sys.stdin.readline())
libc = ctypes.CDLL(None, use_errno=True)
def say(**message):
    os.write(1, json.dumps(message).encode() + b"\\n")
say(type="sandbox", holds=entered.holds, missing=entered.missing)
outcomes = {}
def attempt(name, call):
    try:
        outcomes[name] = f"done: {call()!r:.80}"
    except BaseException as error:
        outcomes[name] = f"{type(error).__name__}: {error}"[:160]
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""
EPILOGUE = """
say(type="problem", problem=dict(code="malformed_model", detail=json.dumps(outcomes)))
"""
NEW = {"status": "inspecting", "canonical_sha256": None, "input": None, "layers": None}


@dataclass(frozen=True)
class Attack:
    """What an attacking child met: each attempt's outcome, and how its upload ended."""

    outcomes: dict[str, str]
    model: Model

    def succeeded(self) -> list[str]:
        return [f"{name}: {outcome}" for name, outcome in self.outcomes.items() if outcome.startswith("done")]


Attacker = Callable[..., Attack]


@pytest.fixture
def settings(engine: Engine, broker_url: str, database_url: str) -> Iterator[Settings]:
    """As everywhere, but in a folder that another uid can reach."""
    folder = Path(tempfile.mkdtemp(prefix="basisconv-hostile-"))
    folder.chmod(0o711)
    yield make_settings(database_url, broker_url, folder / "var")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["another uid", "the worker's uid"])
def attack(
    request: pytest.FixtureRequest, sessions: sessionmaker[Session], runtime: Runtime, tmp_path: Path
) -> Attacker:
    """`attack(source, **settings)` inspects an upload with a child that runs `source` in the real sandbox.

    Once as another uid, where the tests are root, and once as the worker's own, where only Landlock and the
    filter of system calls stand between the child and what is the worker's.
    """
    if request.param == "the worker's uid":
        runtime.__dict__["uid"] = None  # of a cached property
    elif runtime.uid is None:
        pytest.skip("only root can hand out another uid")

    def run(source: str, **changed: object) -> Attack:
        script = tmp_path / "attacker" / "attack.py"
        script.parent.mkdir(mode=0o755, exist_ok=True)
        script.write_text(PROLOGUE + textwrap.dedent(source) + EPILOGUE)
        attacking = replace(
            runtime,
            command=(sys.executable, "-P", "-c", script.read_text()),
            settings=runtime.settings.model_copy(update=changed),
        )
        attacking.__dict__["uid"] = runtime.uid
        model_id = add_model(sessions, runtime.store.put_bytes(b"an upload").sha256, **NEW)
        inspect_model(attacking, model_id)
        with sessions() as session:
            model = session.get_one(Model, model_id)
        detail = (model.error or {}).get("detail", "")
        return Attack(json.loads(detail) if detail.startswith("{") else {}, model)

    return run
