"""What every piece of background work carries in its row: who works on it and until when that is believed.

The broker is a doorbell, the row is the truth: a worker claims a row by compare-and-set, renews the lease
while its child runs, and the reaper hands on whatever lost its lease or its message.
"""

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from sqlalchemy.orm import Mapped, mapped_column


class Leased:
    """Mixin for rows that a worker works on: models and data sets under inspection, plans, jobs."""

    if TYPE_CHECKING:
        id: Mapped[str]  # every such row has one; the table itself declares it
    # Of what is not a job, which has states of its own: the status in which a worker is needed, and works,
    # and the one it ends in when that cannot be done.
    waiting: ClassVar[str] = "inspecting"
    refused: ClassVar[str] = "rejected"
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None] = mapped_column(index=True)
    rung_at: Mapped[datetime | None]  # when the doorbell was last rung for it
    not_before: Mapped[datetime | None]  # backoff between attempts
