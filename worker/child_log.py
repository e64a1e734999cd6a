"""A child's log: what it and its libraries say goes to the worker as messages, like everything else."""

import logging
import math
from collections.abc import Callable
from typing import Any, Final

Report = Callable[[dict[str, Any]], None]
# Our own lines from here on; a library's only when it warns.
_OWN: Final = ("worker", "basisconv", "app")
_LEVELS: Final = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))
_EVENT_CHARACTERS: Final = 4_000
_FIELD_CHARACTERS: Final = 1_000


def install(report: Report) -> None:
    """Send records and warnings through `report`. Costs no import: it stands before torch's."""
    handler = _Messages(report)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _OWN:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)


class _Messages(logging.Handler):
    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._report(_message(record))
        except Exception:
            self.handleError(record)  # to standard error, whose end the worker keeps


def _message(record: logging.LogRecord) -> dict[str, Any]:
    level = next((name for number, name in _LEVELS if record.levelno >= number), "debug")
    fields: dict[str, Any] = getattr(record, "fields", {})
    text = record.getMessage()
    if record.exc_info:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    return {
        "type": "log",
        "level": level,
        "logger": record.name[:100],
        "event": text[-_EVENT_CHARACTERS:],
        "fields": {name: _plain(value) for name, value in list(fields.items())[:20]},
    }


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):  # JSON knows no other
        return value
    return str(value)[:_FIELD_CHARACTERS]
