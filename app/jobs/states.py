"""A job's life as data: which status may follow which, and who may cause it."""

from enum import StrEnum
from typing import Final


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Stage(StrEnum):
    CALIBRATE = "calibrate"
    DECOMPOSE = "decompose"
    FINETUNE = "finetune"
    EVALUATE = "evaluate"
    EXPORT = "export"
    VERIFY = "verify"


TRANSITIONS: Final[dict[JobStatus, frozenset[JobStatus]]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED, JobStatus.FAILED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLING, JobStatus.QUEUED}
    ),
    JobStatus.CANCELLING: frozenset({JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}
ACTIVE: Final = (JobStatus.RUNNING, JobStatus.CANCELLING)  # the statuses in which a job has a worker
ENDED: Final = frozenset(status for status, following in TRANSITIONS.items() if not following)


def sources(target: JobStatus) -> frozenset[JobStatus]:
    """The statuses from which `target` may be entered: the WHERE of its one UPDATE."""
    return frozenset(status for status, following in TRANSITIONS.items() if target in following)
