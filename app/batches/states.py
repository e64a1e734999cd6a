"""A batch's life: it follows its jobs, and ends with the last of them."""

from enum import StrEnum
from typing import Final


class BatchStatus(StrEnum):
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    COMPLETED = "completed"


OPEN: Final = (BatchStatus.RUNNING, BatchStatus.CANCELLING)
