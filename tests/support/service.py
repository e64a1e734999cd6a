"""The whole service as real processes: uvicorn, two Celery workers, its own database and owner key."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.core.settings import Settings
from app.embedded.children import wait_ready
from app.embedded.folders import free_port
from app.embedded.owner import owner_key
from app.embedded.processes import Web, Worker


@dataclass(frozen=True)
class Service:
    """A running service. `client` sends the owner's key; the processes may be killed and started again."""

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
        client = stack.enter_context(
            httpx.Client(
                base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
            )
        )
        yield Service(url, key, f"{url}/?token={_token(settings)}", settings, client, web, quick, jobs)


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
