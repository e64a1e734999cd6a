"""The whole service as real processes: uvicorn, two Celery workers, its own database and owner key."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from app.core.security import ALL_SCOPES
from app.core.settings import Settings
from app.embedded.children import wait_ready
from app.embedded.folders import free_port
from app.embedded.owner import owner_key
from app.embedded.processes import Web, Worker
from tests.support.processes import wait_until


@dataclass(frozen=True)
class Service:
    """A running service. `client` sends the key; the processes may be killed and started again.

    `sign_in_url` is the link that the service prints at its start, for its first owner.
    """

    url: str
    key: str
    sign_in_url: str
    settings: Settings
    client: httpx.Client
    web: Web
    quick: Worker
    jobs: Worker


@contextmanager
def running_service(settings: Settings, logs: Path) -> Iterator[Service]:
    """Start everything, wait until it answers, and stop it by pid at the end."""
    alone = _web(settings, logs)
    settings, url, key, web = alone.settings, alone.url, alone.key, alone.web
    quick = Worker(settings, "quick", logs / "worker-quick.log")
    jobs = Worker(settings, "jobs", logs / "worker-jobs.log")
    with ExitStack() as stack:
        for process in (web, quick, jobs):
            process.start()
            stack.callback(process.stop)
        for process in (web, quick, jobs):
            wait_ready(process)
        client = stack.enter_context(_client(url, key))
        yield Service(url, key, f"{url}/?token={_token(settings)}", settings, client, web, quick, jobs)


@contextmanager
def another_owner(service: Service) -> Iterator[Service]:
    """The same service for a new owner with all rights, who sees nothing of others and leaves no work."""
    body = {"name": "another", "scopes": list(ALL_SCOPES), "owner": "new"}
    key = service.client.post("/v1/keys", json=body).raise_for_status().json()["key"]
    with _client(service.url, key) as client:
        yield replace(service, key=key, client=client)
        for process in (service.web, service.quick, service.jobs):
            wait_ready(process)
        _end_work(client)


def _end_work(client: httpx.Client) -> None:
    for kind in ("batches", "jobs"):
        for found in _at_work(client, kind):
            client.post(f"/v1/{kind}/{found['id']}/cancel")  # refused where it ended meanwhile
    wait_until(lambda: not _at_work(client, "jobs"), 60)


def _at_work(client: httpx.Client, kind: str) -> list[Any]:
    found = client.get(f"/v1/{kind}", params={"limit": 100}).raise_for_status().json()["data"]
    return [one for one in found if one["status"] in ("queued", "running", "cancelling")]


def _client(url: str, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False)


def _token(settings: Settings) -> Any:
    return settings.sign_in_token.get_secret_value() if settings.sign_in_token else ""


@dataclass(frozen=True)
class WebService:
    """The web process alone: for what no worker has to do with."""

    url: str
    key: str
    settings: Settings
    web: Web


@contextmanager
def running_web(settings: Settings, logs: Path) -> Iterator[WebService]:
    """Start the web process on a free port, and stop it by pid at the end."""
    service = _web(settings, logs)
    service.web.start()
    try:
        wait_ready(service.web)
        yield service
    finally:
        service.web.stop()


def _web(settings: Settings, logs: Path) -> WebService:
    """On a free port, not started yet."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = settings.model_copy(update={"public_url": url})
    logs.mkdir(parents=True, exist_ok=True)
    return WebService(url, owner_key(settings), settings, Web(settings, port, logs / "web.log"))
