"""The doorbell: sends task names with ids to Celery, after commit or never. No task code is imported."""

from typing import Any, Final, Literal, Protocol

import structlog
from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from app.core.logging import cause

TaskName = Literal["worker.inspect_model", "worker.inspect_dataset", "worker.run_job", "worker.plan"]

# quick: short work that must not wait behind a fine-tune. jobs: one worker process per GPU or CPU slot.
QUEUE_OF: dict[TaskName, Literal["quick", "jobs"]] = {
    "worker.inspect_model": "quick",
    "worker.inspect_dataset": "quick",
    "worker.plan": "quick",
    "worker.run_job": "jobs",
}

CAUSE_HEADER: Final = "request_id"  # for the logs alone: which request a task goes back to

# Measured: refused 0.1 s, a hung broker 1.0 s. `retry=False` is slower (up to 6 s), and kombu's own waits
# without socket timeouts are endless.
_RETRY_POLICY = {"max_retries": 0, "interval_start": 0}
_TRANSPORT_OPTIONS = {"socket_timeout": 1, "socket_connect_timeout": 1}

log = structlog.get_logger()


class Doorbell(Protocol):
    """Rings for work that already stands in the database. A ring may be lost: the reaper rings again."""

    def ring(self, task: TaskName, resource_id: str) -> bool:
        """Whether the broker took the message. Never raises for a broker that is down."""
        ...


class CeleryDoorbell:
    """Rings through Celery's broker; the message carries the row's id and nothing else."""

    def __init__(self, broker_url: str) -> None:
        self._celery: Any = Celery("basisconv", broker=broker_url, set_as_current=False)
        self._celery.conf.update(
            task_ignore_result=True,
            task_serializer="json",
            accept_content=["json"],
            broker_transport_options=_TRANSPORT_OPTIONS,
            broker_connection_timeout=1,
        )

    def ring(self, task: TaskName, resource_id: str) -> bool:
        try:
            self._celery.send_task(
                task,
                args=[resource_id],
                queue=QUEUE_OF[task],
                headers={CAUSE_HEADER: cause()},
                retry=True,
                retry_policy=_RETRY_POLICY,
            )
        except (KombuError, OperationalError, RedisError, OSError) as error:
            log.warning("doorbell.failed", task=task, resource_id=resource_id, error=str(error))
            return False
        return True

    def close(self) -> None:
        self._celery.close()
