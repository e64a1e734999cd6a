"""The owner's API key of an embedded service."""

from app.core.settings import Settings


def owner_key(settings: Settings) -> str:
    raise NotImplementedError
