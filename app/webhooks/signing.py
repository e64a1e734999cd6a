"""Signatures by Standard Webhooks (https://www.standardwebhooks.com), version 1: HMAC-SHA256.

A webhook's secret is derived from the service's own key and the webhook's id. So it can be signed with, and
nothing of it lies in the database: a stolen one signs no message. Another `secret_key` gives other secrets.
"""

import base64
import hashlib
import hmac
from datetime import datetime

from app.core.settings import Settings


def secret_of(settings: Settings, webhook_id: str) -> str:
    """What the owner is shown once, and whoever receives verifies with."""
    return "whsec_" + base64.b64encode(_key(settings, webhook_id)).decode()


def headers(
    settings: Settings, webhook_id: str, message_id: str, body: bytes, now: datetime
) -> dict[str, str]:
    """Of one attempt. Its time is signed too, so that nobody can send an old message again."""
    moment = str(int(now.timestamp()))
    signed = b".".join((message_id.encode(), moment.encode(), body))
    digest = hmac.new(_key(settings, webhook_id), signed, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": moment,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


def _key(settings: Settings, webhook_id: str) -> bytes:
    pepper = settings.secret_key.get_secret_value().encode()
    return hmac.new(pepper, f"webhook\n{webhook_id}".encode(), hashlib.sha256).digest()
