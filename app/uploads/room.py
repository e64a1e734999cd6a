"""Room for an upload, kept free while its bytes come: many at once cannot fill the disk beyond the quota."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fastapi import Request
from sqlalchemy import delete
from starlette.concurrency import run_in_threadpool

from app.core.errors import QuotaExceeded, UploadTooLarge
from app.core.ids import new_id
from app.core.security import Caller
from app.core.unit import Services
from app.keys import quotas
from app.keys.tables import Reservation
from app.uploads.multipart import FORM_BYTES, declared_length, drain

# A reservation outlives its upload only if the process is killed. One that ends too early costs nothing: the
# quota is asked again when the upload has come.
KEPT: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Room:
    """How large the file may become, and the row that keeps the place."""

    limit: int
    used: int = 0
    reservation: str | None = None


@asynccontextmanager
async def room_for_upload(
    services: Services, caller: Caller, request: Request, most: int
) -> AsyncIterator[Room]:
    """Keep room for the request's body for as long as the block lasts. Raises QuotaExceeded."""
    declared = declared_length(request)
    try:
        room = await run_in_threadpool(_reserve, services, caller, declared, most)
    except QuotaExceeded:
        await drain(request.stream())
        raise
    try:
        yield room
    except UploadTooLarge as problem:
        if room.limit == most:
            raise
        raise quotas.no_room(room.used, declared, caller.limits.stored_bytes) from problem
    finally:
        if room.reservation is not None:
            await run_in_threadpool(_release, services, room.reservation)


def _reserve(services: Services, caller: Caller, declared: int | None, most: int) -> Room:
    limit, now = caller.limits.stored_bytes, services.clock.now()
    if not limit or (declared is not None and declared > most + FORM_BYTES):  # too large by itself
        return Room(most)
    with services.sessions.begin() as session:
        quotas.lock_owner(session, caller.owner_id)
        used = quotas.stored_bytes(session, caller.owner_id, now)
        left = limit - used
        if left <= 0 or (declared is not None and declared - FORM_BYTES > left):
            raise quotas.no_room(used, declared, limit)
        wanted = min(left, most, most if declared is None else declared)
        room = Room(min(most, left), used, new_id("upload", now))
        session.add(
            Reservation(id=room.reservation, owner_id=caller.owner_id, bytes=wanted, expires_at=now + KEPT)
        )
    return room


def _release(services: Services, reservation: str) -> None:
    with services.sessions.begin() as session:
        session.execute(delete(Reservation).where(Reservation.id == reservation))
