"""A real S3-compatible server over HTTP on 127.0.0.1: moto's, as a process of its own."""

import http.client
import secrets
import subprocess
import sys
from pathlib import Path

from app.embedded import children
from app.embedded.folders import free_port


class S3Server:
    """One server; every test gets a bucket of its own. It keeps nothing when it ends."""

    name = "s3"

    def __init__(self, log: Path) -> None:
        self.log = log
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = children.spawn(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)], log=self.log
        )

    def is_ready(self) -> bool:
        try:
            return self._ask("GET", "/moto-api/") == http.client.OK
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            children.stop(self.process, grace_seconds=2)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it; the keys are as good as any."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def new_bucket(self) -> str:
        """The URL of an empty bucket."""
        name = f"bucket-{secrets.token_hex(6)}"
        status = self._ask("PUT", f"/{name}")
        assert status == http.client.OK, status
        return f"s3://{name}/some/prefix"

    def _ask(self, method: str, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            return connection.getresponse().status
        finally:
            connection.close()
