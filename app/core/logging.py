"""Structured events to stderr: names and values, not sentences. The standard library's records come along.

Every line of a request carries `request_id`, every line of a task `task_id`, the `request_id` that caused it
and `job_id` (or `model_id`, `dataset_id`): one id leads from an upload to its child's last words.
"""

import logging
import os
import sys
from typing import Any, Final, Literal

import structlog

OURS: Final = ("app", "worker", "basisconv")
Process = Literal["web", "worker"]
_CAUSE = "request_id"


def configure_logging(level: str, log_format: Literal["console", "json"], process: Process) -> None:
    """Set up structlog and route the standard library's loggers through it. Called once per process."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _naming(process),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(log_format))
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries tell their details at `debug`: headers, statements with their values. Those may hold secrets.
    root.setLevel(max(getattr(logging, level.upper()), logging.INFO))
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    logging.getLogger("sqlalchemy.engine").setLevel(logging.WARNING)  # its statements begin at `info`
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "uvicorn.access"  # requests are logged once, by the edge


def cause() -> str | None:
    """The id of the request that is being answered, to travel with what it sets off."""
    found = structlog.contextvars.get_contextvars().get(_CAUSE)
    return None if found is None else str(found)


def _naming(process: Process) -> Any:
    def add(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        return {"process": process, "pid": os.getpid()} | event

    return add


def _rendering(log_format: Literal["console", "json"]) -> list[Any]:
    drop = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if log_format == "console":
        plain = structlog.dev.plain_traceback  # the other one prints every local variable, secrets too
        return [drop, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    return [drop, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
