"""What a key may use: its own limits where it has some, else the service's. 0 means no limit."""

from dataclasses import dataclass, fields
from typing import Final

from app.core.settings import Settings
from app.keys.tables import ApiKey


@dataclass(frozen=True)
class Limits:
    stored_bytes: int
    active_jobs: int
    requests_per_minute: int


NAMES: Final = tuple(field.name for field in fields(Limits))


def limits_of(key: ApiKey, settings: Settings) -> Limits:
    """The limits in force."""
    own = {name: getattr(key, name) for name in NAMES}
    return Limits(
        **{name: getattr(settings, f"max_{name}") if value is None else value for name, value in own.items()}
    )
