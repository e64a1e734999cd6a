"""Sends what waits for webhooks: again for a day where it fails, and no more to one that fails for days."""

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock
from app.core.rounds import Rounds
from app.core.settings import Settings
from app.webhooks import repository, signing
from app.webhooks.posting import Outcome, post
from app.webhooks.tables import Webhook, WebhookMessage

# Before the second attempt, the third …: 23 hours and 35 minutes in all, then a message is given up.
WAITS: Final = tuple(
    timedelta(seconds=seconds) for seconds in (5, 30, 300, 1_800, 7_200, 18_000, 28_800, 28_800)
)
GIVEN_UP_AFTER: Final = timedelta(days=3)  # without one success a webhook is disabled
AT_ONCE: Final = 16
OF_ONE: Final = 4  # at once to one webhook
GONE: Final = 410  # Standard Webhooks: the receiver wants no more

log = structlog.get_logger(__name__)


class Sender(Rounds):
    name = "webhooks"
    lock = 0x57656268  # "Webh"

    def __init__(
        self,
        sessions: sessionmaker[Session],
        clock: Clock,
        settings: Settings,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(sessions, clock, settings.webhook_seconds)
        self._settings, self._chance = settings, chance

    def _round(self, now: datetime) -> None:
        """All that is due; a server that does not answer costs its own messages' time alone."""
        lease = timedelta(seconds=2 * self._settings.webhook_timeout_seconds + 30)
        with ThreadPoolExecutor(AT_ONCE, "webhook") as threads:
            while True:
                with self._sessions.begin() as session:
                    taken = repository.take_due(session, now, AT_ONCE, OF_ONE, lease)
                if not taken:
                    return
                outcomes = list(threads.map(lambda pair: self._send(*pair), taken))
                for (message, webhook), outcome in zip(taken, outcomes, strict=True):
                    self._record(message.id, webhook.id, outcome)

    def _send(self, message: WebhookMessage, webhook: Webhook) -> Outcome:
        body = json.dumps(message.payload, ensure_ascii=False, separators=(",", ":")).encode()
        signed = signing.headers(self._settings, webhook.id, message.id, body, self._clock.now())
        headers = {"Content-Type": "application/json", "User-Agent": "BasisConv-Webhooks/1"} | signed
        try:
            return post(
                webhook.url,
                headers,
                body,
                seconds=self._settings.webhook_timeout_seconds,
                private=self._settings.webhook_private_addresses,
            )
        except Exception as error:  # one message must not keep the others waiting
            log.exception("webhook.crashed", message_id=message.id)
            return Outcome(error=f"The message could not be sent ({type(error).__name__}).")

    def _record(self, message_id: str, webhook_id: str, outcome: Outcome) -> None:
        now = self._clock.now()
        with self._sessions.begin() as session:
            webhook = session.get(Webhook, webhook_id, with_for_update={"key_share": True})
            message = session.get(WebhookMessage, message_id)
            if webhook is None or message is None:
                return  # deleted meanwhile
            message.last_at, message.last_status, message.last_error = now, outcome.status, outcome.error
            if outcome.delivered:
                message.status, message.next_at = "delivered", None
                webhook.failing_since = webhook.disabled_at = webhook.disabled_reason = None
            else:
                self._failed(session, webhook, message, outcome, now)
        log.info(
            "webhook.sent" if outcome.delivered else "webhook.failed",
            message_id=message_id,
            webhook_id=webhook_id,
            status=outcome.status,
            reason=outcome.error,
        )

    def _failed(
        self, session: Session, webhook: Webhook, message: WebhookMessage, outcome: Outcome, now: datetime
    ) -> None:
        off = webhook.disabled_at is not None
        last = off or message.type == repository.TEST or message.attempts > len(WAITS)
        if last:
            message.status, message.next_at = "given_up", None
        else:
            wait = WAITS[message.attempts - 1]
            message.next_at = now + wait * (1 + 0.1 * self._chance())  # not all at once when it is back
        if off or message.type == repository.TEST:
            return
        webhook.failing_since = webhook.failing_since or now
        if outcome.status == GONE:
            self._disable(session, webhook, "The receiver answered 410: it is gone.", now)
        elif webhook.failing_since < now - GIVEN_UP_AFTER:
            days = GIVEN_UP_AFTER.days
            self._disable(session, webhook, f"No message was delivered for {days} days.", now)

    def _disable(self, session: Session, webhook: Webhook, reason: str, now: datetime) -> None:
        session.flush()
        webhook.disabled_at, webhook.disabled_reason = now, reason
        repository.give_up_all(session, webhook.id)
        log.warning("webhook.disabled", webhook_id=webhook.id, reason=reason)
