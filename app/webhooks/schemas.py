"""Webhooks as the contract shows them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.core.schemas import Moment, Name, Shown
from app.webhooks.addresses import URL_CHARACTERS
from app.webhooks.tables import Webhook, WebhookMessage

EventType = Literal["job.succeeded", "job.failed", "job.cancelled", "batch.completed"]


class WebhookCreate(BaseModel):
    """The body of ``POST /v1/webhooks``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(max_length=URL_CHARACTERS, description="Where messages are posted to.")]
    events: Annotated[list[EventType], Field(min_length=1, max_length=4)]
    description: Name | None = None

    @field_validator("events")
    @classmethod
    def each_once(cls, events: list[EventType]) -> list[EventType]:
        if len(set(events)) != len(events):
            raise ValueError("names an event twice")
        return events


class WebhookOut(Shown):
    id: str
    object: Literal["webhook"] = "webhook"
    url: str
    events: list[EventType]
    description: str | None
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None = Field(description="A successful test enables it again.")
    failing_since: Moment | None = Field(description="The first failure after the last success.")
    created_at: Moment


class NewWebhookOut(WebhookOut):
    secret: str = Field(description="For verifying signatures. In this answer only.")


class WebhookMessageOut(Shown):
    """One message, and how often it was tried."""

    id: str = Field(description="The header `webhook-id`, the same at every attempt.")
    object: Literal["webhook_message"] = "webhook_message"
    webhook: str
    type: str
    status: Literal["waiting", "delivered", "given_up"]
    attempts: int
    next_at: Moment | None
    last_at: Moment | None
    last_status: int | None = Field(description="Of the receiver's answer.")
    last_error: str | None
    created_at: Moment


def show_webhook(webhook: Webhook) -> WebhookOut:
    return WebhookOut.model_validate(
        {
            "id": webhook.id,
            "url": webhook.url,
            "events": webhook.events,
            "description": webhook.description,
            "status": "enabled" if webhook.disabled_at is None else "disabled",
            "disabled_reason": webhook.disabled_reason,
            "failing_since": webhook.failing_since,
            "created_at": webhook.created_at,
        }
    )


def show_message(message: WebhookMessage) -> WebhookMessageOut:
    return WebhookMessageOut.model_validate(
        {
            "webhook": message.webhook_id,
            **{
                name: getattr(message, name)
                for name in WebhookMessageOut.model_fields
                if name not in {"object", "webhook"}
            },
        }
    )
