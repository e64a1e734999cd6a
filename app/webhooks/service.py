"""What can be done with webhooks."""

from typing import Final

import structlog

from app.core.errors import NotFound, QuotaExceeded
from app.core.ids import new_id
from app.core.problems import invalid
from app.core.security import Caller
from app.core.settings import Settings
from app.core.unit import Unit
from app.keys import quotas
from app.webhooks import outbox, repository
from app.webhooks.addresses import check_url
from app.webhooks.schemas import WebhookCreate
from app.webhooks.tables import Webhook, WebhookMessage

MOST: Final = 20  # of an owner: every job's end is told to each

log = structlog.get_logger()


def create(unit: Unit, settings: Settings, caller: Caller, asked: WebhookCreate) -> Webhook:
    try:
        check_url(asked.url, private=settings.webhook_private_addresses)
    except ValueError as error:
        raise invalid(("url",), f"`url` {error}.") from error
    quotas.lock_owner(unit.session, caller.owner_id)
    used = repository.number(unit.session, caller.owner_id)
    if used >= MOST:
        raise QuotaExceeded(
            f"You have {used} of at most {MOST} webhooks.", hint="Delete one first.", limit=MOST, used=used
        )
    webhook = Webhook(
        id=new_id("webhook", unit.now),
        owner_id=caller.owner_id,
        url=asked.url,
        events=list(asked.events),
        description=asked.description,
        created_at=unit.now,
    )
    unit.session.add(webhook)
    unit.session.flush()
    log.info("webhook.created", webhook_id=webhook.id, events=webhook.events)
    return webhook


def get(unit: Unit, caller: Caller, webhook_id: str) -> Webhook:
    webhook = repository.find(unit.session, caller.owner_id, webhook_id)
    if webhook is None:
        raise NotFound(f"There is no webhook {webhook_id[:64]!r}.")
    return webhook


def delete(unit: Unit, caller: Caller, webhook_id: str) -> None:
    """Delete a webhook; what still waits for it is not sent any more."""
    unit.session.delete(get(unit, caller, webhook_id))
    log.info("webhook.deleted", webhook_id=webhook_id)


def test(unit: Unit, caller: Caller, webhook_id: str) -> WebhookMessage:
    """A message that tells nothing, sent once. One that is delivered enables a disabled webhook again."""
    webhook = get(unit, caller, webhook_id)
    data = {"id": webhook.id, "object": "webhook"}
    message = WebhookMessage(**outbox.message(webhook.id, repository.TEST, data, unit.now))
    unit.session.add(message)
    unit.session.flush()
    return message
