"""The service's own processes as children: the web process and the Celery workers."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from app.core.settings import Settings
from app.embedded import children

PREFIX = "BASISCONV_"
SILENT_START_SECONDS = 10.0  # a worker whose log level hides that it is ready; measured: ready after 0.5 s


def as_environment(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """What a child process reads the same settings from; nothing of ours is inherited beside them."""
    environment = {name: value for name, value in inherited.items() if not name.startswith(PREFIX)}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is None:
            continue
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        text = text.resolve() if isinstance(text, Path) else text
        environment[PREFIX + name.upper()] = str(text)
    return environment | {"PYTHONUNBUFFERED": "1"}


class Web:
    """uvicorn with the web application on one port of 127.0.0.1."""

    name = "web"
    application = "app.asgi:app"

    def __init__(self, settings: Settings, port: int, log: Path, *, host: str = "127.0.0.1") -> None:
        self.settings = settings
        self.port = port
        self.host = host
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = children.spawn(
            [
                *[sys.executable, "-m", "uvicorn", self.application],
                *["--host", self.host, "--port", str(self.port)],
                # Event streams end when the server stops, not ten minutes later.
                *["--timeout-graceful-shutdown", "5", "--no-access-log"],
                *self._several(),
            ],
            log=self.log,
            environment=as_environment(self.settings, os.environ),
        )

    def _several(self) -> list[str]:
        """One is also what WEB_CONCURRENCY may raise, which uvicorn reads itself."""
        number = self.settings.web_processes
        return [] if number == 1 else ["--workers", str(number)]

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        if self.process is not None:
            children.stop(self.process, grace_seconds=10)


class Worker:
    """One Celery worker, pool solo, on one queue.

    It runs in a session of its own and gets only SIGTERM, then SIGKILL: under `solo` a SIGQUIT or a second
    SIGINT makes Celery lose the message of the running task.
    """

    application = "worker.celery"

    def __init__(
        self,
        settings: Settings,
        queue: Literal["quick", "jobs"],
        log: Path,
        *,
        number: int = 1,
        gpu: int | None = None,
    ) -> None:
        self.settings = settings
        self.queue = queue
        self.name = f"worker-{queue}" if number == 1 else f"worker-{queue}-{number}"
        self.node = f"{queue}{number}.{os.getpid()}@localhost"
        self.log = log
        self.gpu = gpu
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._started = 0.0

    def start(self) -> None:
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._started = time.monotonic()
        self.process = children.spawn(
            [
                *[sys.executable, "-m", "celery", "-q", "-A", self.application, "worker"],
                *["-P", "solo", "-Q", self.queue, "-n", self.node, "--prefetch-multiplier", "1"],
                *["--without-gossip", "--without-mingle", "--loglevel", "INFO"],
            ],
            log=self.log,
            environment=as_environment(self.settings, os.environ) | self._only_its_gpu(),
        )

    def _only_its_gpu(self) -> dict[str, str]:
        return {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": str(self.gpu)}

    def is_ready(self) -> bool:
        """It said so in its log. It cannot be asked: under `solo` a worker that works answers nobody."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            if f"{self.node} ready".encode() in log.read():
                return True
        return time.monotonic() - self._started > SILENT_START_SECONDS

    def stop(self) -> None:
        if self.process is not None:
            children.stop(self.process, grace_seconds=self.settings.grace_seconds + 5)
