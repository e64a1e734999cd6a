"""The real web application with a clock that can be set."""

from app.asgi import app as app
from app.core.settings import load_settings
from tests.faults.rig import clock

clock.follow(load_settings().var_dir / "clock-web")
