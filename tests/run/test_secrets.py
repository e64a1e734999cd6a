"""No secret is told: not by a log at `debug`, not by a process's arguments, not to a child."""

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psutil
import pytest
from pydantic import SecretStr

from app.core.security import COOKIE
from tests.conftest import make_settings
from tests.support.servers import Servers
from tests.support.service import Service, running_service

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WRONG_KEY = "bc_wrong-key-that-somebody-mistyped"
PASSWORD = "hunter2-in-a-basic-header"
IN_ADDRESS = "bc_key-that-somebody-put-into-an-address"
PRIVATE = "what-a-user-wrote-into-metadata"


@pytest.fixture(scope="module")
def loud(
    servers: Servers, process_number: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The whole service, telling all it can."""
    name = f"loud_{process_number}"
    folder = tmp_path_factory.mktemp("loud")
    settings = make_settings(
        servers.new_database(name),
        servers.broker_url(8 + process_number),
        folder / "var",
        log_level="debug",
        log_format="json",
        sign_in_token=SecretStr("token-of-the-sign-in-link-0123456789"),
    )
    with running_service(settings, folder / "log") as service:
        yield service
    servers.drop_database(name)


def _secrets(service: Service) -> set[str]:
    settings = service.settings
    urls = [urlsplit(url.get_secret_value()) for url in (settings.database_url, settings.broker_url)]
    passwords = {url.password for url in urls if url.password}
    assert len(passwords) == 2
    token = settings.sign_in_token.get_secret_value() if settings.sign_in_token else ""
    return passwords | {settings.secret_key.get_secret_value(), token, service.key}


def _ask_everything(service: Service) -> tuple[set[str], dict[str, Any]]:
    """Requests that carry secrets in all the places where people put them; the new ones, and a job."""
    client, url = service.client, service.url
    made = client.post("/v1/keys", json={"name": "ci", "scopes": []}).raise_for_status().json()
    with httpx.Client(base_url=url, trust_env=False) as browser:
        browser.get(f"/?token={urlsplit(service.sign_in_url).query.removeprefix('token=')}")
        cookie = browser.cookies[COOKIE]
        browser.get("/jobs").raise_for_status()
        browser.post("/sign-in", data={"key": made["key"]})
        browser.post("/sign-in", data={"key": WRONG_KEY})
        browser.get(f"/?token={IN_ADDRESS}")
        browser.get(f"/v1/models?key={IN_ADDRESS}")
        basic = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        for header in (f"Bearer {WRONG_KEY}", f"Basic {basic}", made["key"]):
            browser.get("/v1/models", headers={"Authorization": header})
    client.post("/v1/jobs", content=b'{"model": ' + made["key"].encode())
    client.post("/v1/keys", json={"name": "ci", "key": made["key"], "metadata": PRIVATE})
    sent = client.post("/example", headers={"Accept": "application/json"}).raise_for_status().json()
    body = sent["job"] | {"training": {"epochs": 1, "augment": "none"}, "metadata": {"note": PRIVATE}}
    new = {made["key"], cookie, WRONG_KEY, PASSWORD, basic, IN_ADDRESS, PRIVATE}
    return new, body


def _post_when_ready(service: Service, body: dict[str, Any]) -> str:
    deadline = time.monotonic() + 120
    while True:
        answer = service.client.post("/v1/jobs", json=body)
        if answer.status_code == 201:
            return str(answer.json()["id"])
        assert answer.status_code == 409, answer.text
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _children(service: Service) -> list[psutil.Process]:
    found = []
    for worker in (service.quick, service.jobs):
        assert worker.process is not None
        found += psutil.Process(worker.process.pid).children(recursive=True)
    return found


def _environments_until_ended(service: Service, job: str) -> list[str]:
    """The arguments and the environment of every child that the job's worker starts."""
    seen: dict[int, str] = {}
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        for child in _children(service):
            try:
                if child.pid not in seen and any("worker.child" in part for part in child.cmdline()):
                    seen[child.pid] = f"{child.cmdline()} {child.environ()}"
            except psutil.Error:
                continue
        if service.client.get(f"/v1/jobs/{job}").json()["status"] in {"succeeded", "failed"}:
            break
        time.sleep(0.1)
    return list(seen.values())


def _told(secrets: set[str], text: str) -> list[str]:
    spellings = {
        secret: {secret, quote(secret), base64.b64encode(secret.encode()).decode()} for secret in secrets
    }
    return [secret for secret, ways in spellings.items() if any(way in text for way in ways)]


def test_nothing_tells_a_secret(loud: Service, servers: Servers) -> None:
    used, body = _ask_everything(loud)
    children = _environments_until_ended(loud, _post_when_ready(loud, body))
    assert children
    assert all("BASISCONV_" not in child for child in children)
    secrets = _secrets(loud) | used
    for child in children:
        assert _told(secrets, child) == []
    logs = [*loud.web.log.parent.glob("*.log"), *Path(servers.folder).glob("*.log")]
    assert len(logs) >= 4
    for log in logs:
        text = log.read_text(errors="replace")
        assert _told(secrets, text) == [], log.name
    assert '"event": "request"' in loud.web.log.read_text()
    for process in psutil.process_iter():
        try:
            arguments = " ".join(process.cmdline())
        except psutil.Error:
            continue
        assert _told(secrets, arguments) == []


def test_the_services_environment_is_readable_by_nobody_else(loud: Service) -> None:
    """The settings come by it; the kernel shows it to the same user alone."""
    for process in (loud.web.process, loud.quick.process, loud.jobs.process):
        assert process is not None
        assert Path(f"/proc/{process.pid}/environ").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BASISCONV_SECRET_KEY", "short-secret"),
        ("BASISCONV_DATABASE_URL", "nonsense://user:open-sesame"),
        ("BASISCONV_DATABASE_URL", "postgresql+psycopg://user:open-sesame@127.0.0.1:1/none"),
        ("BASISCONV_BROKER_URL", "redis://:open-sesame"),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(name: str, value: str) -> None:
    good = {
        "BASISCONV_SECRET_KEY": "k" * 40,
        "BASISCONV_DATABASE_URL": "postgresql+psycopg://user:another-password@127.0.0.1:1/none",
        "BASISCONV_BROKER_URL": "redis://:a-third-password@127.0.0.1:1/0",
    }
    environment = {key: text for key, text in os.environ.items() if not key.startswith("BASISCONV_")}
    for command in (["-c", "import app.asgi"], ["-m", "app.cli", "check"]):
        done = subprocess.run(
            [sys.executable, *command],
            env=environment | good | {name: value},
            capture_output=True,
            text=True,
            timeout=120,
        )
        for secret in ("short-secret", "open-sesame", "another-password", "a-third-password", "k" * 40):
            assert secret not in done.stdout + done.stderr, command
