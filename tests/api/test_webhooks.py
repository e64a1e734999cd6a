"""Webhooks: written with the end that they tell of, signed, sent to a real receiver, tried again."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from app.core.settings import Settings
from app.core.unit import Services
from app.jobs import leases
from app.jobs.leases import Lease
from app.webhooks import repository
from app.webhooks.sender import WAITS, Sender
from app.webhooks.tables import Webhook, WebhookMessage
from tests.api.conftest import HandClock
from tests.api.seeds import RESULT, add_model, add_webhook
from tests.api.sent_batches import body, end, jobs_of, post
from tests.support.receiver import Receiver, receiving

ALL = ["job.succeeded", "job.failed", "job.cancelled", "batch.completed"]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Receivers of these tests are on this machine."""
    return settings.model_copy(update={"webhook_private_addresses": True, "webhook_timeout_seconds": 2})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def send(services: Services, settings: Settings, clock: HandClock) -> Callable[[], None]:
    """A round of the sender."""
    return Sender(services.sessions, clock, settings, chance=lambda: 0.0).sweep


def add(client: TestClient, url: str, events: list[str] | None = None, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/webhooks", json={"url": url, "events": events or ALL} | more)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def messages(client: TestClient, webhook: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v1/webhooks/{webhook}/messages").json()["data"]
    return found


def queued(client: TestClient, services: Services) -> str:
    return str(client.post("/v1/jobs", json=body(add_model(services), name="small")).json()["id"])


def test_the_end_of_a_job_arrives_with_a_signature_that_a_stranger_verifies(
    client: TestClient, services: Services, receiver: Receiver, send: Callable[[], None]
) -> None:
    webhook = add(client, receiver.url)
    assert webhook["secret"].startswith("whsec_")
    job = queued(client, services)
    end(services, job)
    send()
    told = Verifier(webhook["secret"]).verify(receiver.last.body, receiver.last.headers)
    assert told["type"] == "job.succeeded"
    assert (told["data"]["id"], told["data"]["status"], told["data"]["name"]) == (job, "succeeded", "small")
    assert receiver.last.headers["Content-Type"] == "application/json"
    (message,) = messages(client, webhook["id"])
    assert message["id"] == receiver.last.headers["webhook-id"]
    assert (message["status"], message["attempts"], message["last_status"]) == ("delivered", 1, 204)
    with pytest.raises(WebhookVerificationError):
        Verifier(webhook["secret"]).verify(receiver.last.body + b" ", receiver.last.headers)
    other = add(client, receiver.url)
    with pytest.raises(WebhookVerificationError):
        Verifier(other["secret"]).verify(receiver.last.body, receiver.last.headers)
    send()
    assert len(receiver.received) == 1


def test_each_end_is_told_to_who_wants_it(
    client: TestClient, services: Services, receiver: Receiver, send: Callable[[], None]
) -> None:
    add(client, receiver.url + "/failures", ["job.failed"])
    add(client, receiver.url + "/rest", ["job.cancelled", "batch.completed"])
    batch = post(client, [body(add_model(services))] * 3)["id"]
    first, second, third = [job["id"] for job in jobs_of(client, batch)]
    end(services, first)
    end(services, second, "failed")
    client.post(f"/v1/jobs/{third}/cancel")
    send()
    told = [(one.path.rpartition("/")[2], json.loads(one.body)) for one in receiver.received]
    found = {(path, said["type"], said["data"]["id"]) for path, said in told}
    assert found == {
        ("failures", "job.failed", second),
        ("rest", "job.cancelled", third),
        ("rest", "batch.completed", batch),
    }
    counts = next(said["data"]["counts"] for _, said in told if said["type"] == "batch.completed")
    assert counts == {"succeeded": 1, "failed": 1, "cancelled": 1, "total": 3, "invalid": 0}
    failed = next(said["data"] for _, said in told if said["type"] == "job.failed")
    assert (failed["error"], failed["batch"]) == ("internal", batch)


def test_a_cancelled_batch_tells_of_each_job_that_waited(
    client: TestClient, services: Services, receiver: Receiver, send: Callable[[], None]
) -> None:
    add(client, receiver.url)
    batch = post(client, [body(add_model(services))] * 30)["id"]
    client.post(f"/v1/batches/{batch}/cancel")
    send()
    assert {json.loads(one.body)["type"] for one in receiver.received} == {"job.cancelled"}
    assert len({json.loads(one.body)["data"]["id"] for one in receiver.received}) == 30


def test_a_message_stands_or_falls_with_the_end_that_it_tells_of(
    client: TestClient, services: Services, receiver: Receiver
) -> None:
    add(client, receiver.url)
    job = queued(client, services)
    with services.sessions() as session:
        leases.claim_job(session, job, Lease("w", 60), services.clock.now())
        assert leases.succeed_job(session, job, "w", RESULT, services.clock.now())
        assert session.scalar(select(func.count()).select_from(WebhookMessage)) == 1
        session.rollback()
    with services.sessions() as session:
        assert session.scalar(select(func.count()).select_from(WebhookMessage)) == 0


def test_nobody_elses_jobs_are_told(
    client: TestClient,
    other_owner: TestClient,
    services: Services,
    receiver: Receiver,
    send: Callable[[], None],
) -> None:
    add(other_owner, receiver.url)
    end(services, queued(client, services))
    send()
    assert receiver.received == []


def test_a_failure_is_tried_again_for_a_day_and_then_given_up(
    client: TestClient, services: Services, receiver: Receiver, send: Callable[[], None], clock: HandClock
) -> None:
    webhook = add(client, receiver.url)
    end(services, queued(client, services))
    receiver.status = 500
    begun = clock.now()
    send()
    for number, wait in enumerate(WAITS, 1):
        (message,) = messages(client, webhook["id"])
        assert (message["status"], message["attempts"], message["last_status"]) == ("waiting", number, 500)
        clock.advance(seconds=wait.total_seconds() - 1)
        send()
        assert len(receiver.received) == number
        clock.advance(seconds=1)
        send()
    (message,) = messages(client, webhook["id"])
    assert (message["status"], message["attempts"]) == ("given_up", len(WAITS) + 1)
    assert "500" in message["last_error"]
    assert timedelta(hours=20) < clock.now() - begun <= timedelta(hours=24)
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
    assert len({one.headers["webhook-timestamp"] for one in receiver.received}) == len(WAITS) + 1
    shown = client.get(f"/v1/webhooks/{webhook['id']}").json()
    assert (shown["status"], shown["failing_since"] is None) == ("enabled", False)


def test_one_that_fails_for_days_is_disabled_and_a_test_that_arrives_enables_it(
    client: TestClient, services: Services, receiver: Receiver, send: Callable[[], None], clock: HandClock
) -> None:
    webhook = add(client, receiver.url)["id"]
    receiver.status = 503
    end(services, queued(client, services))
    send()
    clock.advance(days=3, minutes=1)
    end(services, queued(client, services))
    send()
    shown = client.get(f"/v1/webhooks/{webhook}").json()
    assert (shown["status"], "3 days" in shown["disabled_reason"]) == ("disabled", True)
    assert {message["status"] for message in messages(client, webhook)} == {"given_up"}
    count = len(receiver.received)
    end(services, queued(client, services))
    send()
    assert len(receiver.received) == count

    assert client.post(f"/v1/webhooks/{webhook}/test").status_code == 202
    send()
    assert client.get(f"/v1/webhooks/{webhook}").json()["status"] == "disabled"
    receiver.status = 200
    clock.advance(seconds=1)
    client.post(f"/v1/webhooks/{webhook}/test")
    send()
    shown = client.get(f"/v1/webhooks/{webhook}").json()
    assert (shown["status"], shown["disabled_reason"], shown["failing_since"]) == ("enabled", None, None)
    assert json.loads(receiver.last.body)["type"] == "webhook.test"
    assert [message["status"] for message in messages(client, webhook)][:2] == ["delivered", "given_up"]


def test_a_receiver_that_is_gone_is_asked_no_more(
    client: TestClient, services: Services, receiver: Receiver, send: Callable[[], None]
) -> None:
    webhook = add(client, receiver.url)["id"]
    receiver.status = 410
    end(services, queued(client, services))
    send()
    assert client.get(f"/v1/webhooks/{webhook}").json()["status"] == "disabled"


def test_redirects_are_not_followed_and_slow_answers_not_waited_for(
    client: TestClient, receiver: Receiver, send: Callable[[], None], clock: HandClock
) -> None:
    webhook = add(client, receiver.url)["id"]
    receiver.status, receiver.headers = 302, {"Location": receiver.url + "/elsewhere"}
    client.post(f"/v1/webhooks/{webhook}/test")
    send()
    receiver.drip_seconds = 8
    clock.advance(seconds=1)
    client.post(f"/v1/webhooks/{webhook}/test")
    send()
    slow, redirected = messages(client, webhook)
    assert "redirect" in redirected["last_error"]
    assert "within 2 s" in slow["last_error"]
    assert [one.path for one in receiver.received] == ["/hook", "/hook"]


def test_a_receiver_that_cannot_be_reached_is_told_in_words(
    client: TestClient, send: Callable[[], None]
) -> None:
    webhook = add(client, "http://127.0.0.1:9/")["id"]
    client.post(f"/v1/webhooks/{webhook}/test")
    send()
    (message,) = messages(client, webhook)
    assert (message["status"], message["last_status"]) == ("given_up", None)
    assert "Could not be reached" in message["last_error"]
    assert "Errno" not in message["last_error"]


def test_a_sender_that_was_killed_costs_a_wait_and_no_message(
    client: TestClient, services: Services, receiver: Receiver, send: Callable[[], None], clock: HandClock
) -> None:
    add(client, receiver.url)
    end(services, queued(client, services))
    with services.sessions.begin() as session:  # taken, and then nothing more
        assert len(repository.take_due(session, clock.now(), 16, 4, timedelta(seconds=60))) == 1
    send()
    assert receiver.received == []
    clock.advance(seconds=61)
    send()
    assert len(receiver.received) == 1


def test_of_each_webhook_a_few_messages_are_taken_at_once(
    client: TestClient, services: Services, clock: HandClock
) -> None:
    slow, other = add_webhook(services), add_webhook(services)
    for webhook in [*[slow] * 10, other]:
        client.post(f"/v1/webhooks/{webhook}/test")
    with services.sessions.begin() as session:
        taken = repository.take_due(session, clock.now(), 16, 4, timedelta(seconds=60))
    assert sorted(webhook.id for _, webhook in taken) == sorted([*[slow] * 4, other])


def test_the_secret_is_shown_once_and_again_to_the_same_request_alone(
    client: TestClient, services: Services
) -> None:
    asked = {"url": "https://example.com/hook", "events": ["job.failed"], "description": "alarms"}
    headers = {"Idempotency-Key": "one"}
    first = client.post("/v1/webhooks", json=asked, headers=headers).json()
    again = client.post("/v1/webhooks", json=asked, headers=headers)
    assert (again.status_code, again.json()) == (201, first)
    shown = client.get(f"/v1/webhooks/{first['id']}").json()
    assert shown == {name: value for name, value in first.items() if name != "secret"}
    assert client.get("/v1/webhooks").json()["data"] == [shown]
    with services.sessions() as session:
        (row,) = session.execute(select(*Webhook.__table__.columns)).all()
        assert first["secret"].removeprefix("whsec_") not in str(row)
    assert client.delete(f"/v1/webhooks/{first['id']}").status_code == 204
    assert client.get(f"/v1/webhooks/{first['id']}").status_code == 404


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"url": "ftp://example.com"}, "#/url"),
        ({"url": "https://"}, "#/url"),
        ({"url": "https://user:word@example.com/"}, "#/url"),
        ({"url": "https://example.com/ä"}, "#/url"),
        ({"url": "https://example.com/\r\nX: y"}, "#/url"),
        ({"url": "https://example.com:99999/"}, "#/url"),
        ({"events": []}, "#/events"),
        ({"events": ["job.failed", "job.failed"]}, "#/events"),
        ({"events": ["job.started"]}, "#/events/0"),
    ],
)
def test_what_cannot_be_a_webhook_is_refused(
    client: TestClient, changed: dict[str, Any], pointer: str
) -> None:
    asked = {"url": "https://example.com/hook", "events": ["job.failed"]} | changed
    answer = client.post("/v1/webhooks", json=asked)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text


def test_an_owner_has_so_many_and_no_more(client: TestClient, services: Services) -> None:
    for _ in range(20):
        add_webhook(services)
    answer = client.post("/v1/webhooks", json={"url": "https://example.com", "events": ["job.failed"]})
    assert (answer.status_code, answer.json()["limit"]) == (429, 20)
