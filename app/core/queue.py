"""The doorbell: sends task names with ids to Celery, after commit or never. No task code is imported."""

from typing import Literal, Protocol

TaskName = Literal["worker.inspect_model", "worker.inspect_dataset", "worker.run_job", "worker.plan"]

# quick: short work that must not wait behind a fine-tune. jobs: one worker process per GPU or CPU slot.
QUEUE_OF: dict[TaskName, Literal["quick", "jobs"]] = {
    "worker.inspect_model": "quick",
    "worker.inspect_dataset": "quick",
    "worker.plan": "quick",
    "worker.run_job": "jobs",
}


class Doorbell(Protocol):
    """Rings for work that already stands in the database. A ring may be lost: the reaper rings again."""

    def ring(self, task: TaskName, resource_id: str) -> None: ...
