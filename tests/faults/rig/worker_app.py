"""The real worker with a child that can be held and a clock that can be set."""

import sys
from dataclasses import replace
from pathlib import Path

from app.core.settings import load_settings
from tests.faults.rig import clock
from worker.celery import app
from worker.runtime import Runtime

HELD = Path(__file__).with_name("held_child.py")

_settings = load_settings()
clock.follow(_settings.var_dir / "clock-worker")
_command = (sys.executable, "-P", str(HELD), str(_settings.var_dir / "holds"))
app.__dict__["runtime"] = replace(Runtime.build(_settings, app.stopping), command=_command)
