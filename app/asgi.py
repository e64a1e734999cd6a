"""What an ASGI server loads: ``uvicorn app.asgi:app``. Reads the settings from the environment."""

import multiprocessing
import os
import signal

from fastapi import FastAPI

from app.core.logging import configure_logging
from app.core.multiprocess import share_counters
from app.core.settings import load_settings
from app.embedded.children import die_with_parent


def build() -> FastAPI:
    """The application of one of perhaps several processes (`BASISCONV_WEB_PROCESSES`)."""
    if multiprocessing.parent_process() is not None:  # uvicorn's, which would leave this one behind if killed
        die_with_parent(os.getppid(), signal.SIGTERM)
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format, "web")
    share_counters(settings.var_dir / "metrics")
    from app.main import create_app  # not before: it imports prometheus_client

    return create_app(settings)


app = build()
