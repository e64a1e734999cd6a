"""The Celery application: a doorbell's other end. Two queues, pool `solo`, JSON, acknowledged early.

Started as ``python -m celery -q -A worker.celery worker -P solo -Q quick`` (or ``-Q jobs``). It must import
without torch: everything heavy happens in children. Settings are read when configuration is first used.
"""

import contextlib
import socket
from functools import cached_property
from threading import Event
from typing import Any

import structlog
from celery import Celery, signals

from app.core.board import Board
from app.core.logging import configure_logging
from app.core.queue import CAUSE_HEADER
from app.core.settings import load_settings
from worker import housekeeping
from worker.runtime import Runtime


def configuration() -> dict[str, Any]:
    return {
        "broker_url": load_settings().broker_url.get_secret_value(),
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_default_queue": "quick",
        # Early: the lease in the database, not the broker, brings back what a lost worker had.
        "task_acks_late": False,
        "worker_prefetch_multiplier": 1,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # for ever: a worker waits for its broker
        "broker_transport_options": {
            "visibility_timeout": 60,  # a message is acknowledged within milliseconds, or its worker is dead
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,  # kombu's 10 means a look every 100 s
            "socket_keepalive": True,
            "socket_connect_timeout": 5,
            # Into a dead network a command waits for ever without the one, and the wait for messages is begun
            # anew after twice the other, for the broker has to say every second that there is none.
            "socket_timeout": 5,
            "health_check_interval": 10,
        },
        "worker_hijack_root_logger": False,
    }


class WorkerApp(Celery):  # type: ignore[misc]
    """Celery with what its tasks need: one runtime per process, and the flag of a stop that was asked for."""

    def __init__(self) -> None:
        super().__init__("basisconv", include=["worker.tasks"], set_as_current=True)
        self.stopping = Event()
        self.task_scope = contextlib.ExitStack()
        self.add_defaults(configuration)

    @cached_property
    def runtime(self) -> Runtime:
        return Runtime.build(load_settings(), self.stopping)


app = WorkerApp()


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]  # before Celery has anything to warn of
@signals.setup_logging.connect  # type: ignore[untyped-decorator]  # which keeps Celery from setting up its own
def _log(**_: Any) -> None:
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format, "worker")


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _start(**_: Any) -> None:
    housekeeping.start(app.runtime)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _tell(sender: Any, **_: Any) -> None:
    # `jobs1.4711@localhost` is unique on this machine only
    worker = f"{sender.hostname.partition('@')[0]}@{socket.gethostname()}"
    queues = ",".join(sorted(sender.app.amqp.queues.consume_from))
    board = Board(app.runtime.settings.broker_url.get_secret_value())
    app.runtime.telemetry.start(board, worker, queues, app.runtime.engine)


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _tell_the_end(**_: Any) -> None:
    app.runtime.telemetry.stop()


@signals.task_prerun.connect  # type: ignore[untyped-decorator]
def _enter(task_id: str, task: Any, args: list[Any], **_: Any) -> None:
    """Every line of the task's log carries its ids: its own, the row's, and the request's that caused it."""
    resource_id = str(args[0])
    app.task_scope.enter_context(
        structlog.contextvars.bound_contextvars(
            task_id=task_id,
            task=task.name,
            **{CAUSE_HEADER: (task.request.headers or {}).get(CAUSE_HEADER)},
            **{f"{resource_id.partition('_')[0]}_id": resource_id},
        )
    )
    app.task_scope.enter_context(app.runtime.telemetry.busy())


@signals.task_postrun.connect  # type: ignore[untyped-decorator]
def _leave(**_: Any) -> None:
    app.task_scope.close()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop(**_: Any) -> None:
    # solo waits for the task's end: the supervisor looks at this flag and hands its job back
    app.stopping.set()
