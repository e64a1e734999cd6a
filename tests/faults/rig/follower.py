"""Follows a job as a browser does: one event stream, taken up again with Last-Event-ID when it breaks."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import httpx

Seen = dict[str, Any]


class Follower:
    """Collects a job's events in a thread until `done`, whatever happens to the server."""

    def __init__(self, url: str, key: str, job_id: str) -> None:
        self.events: list[Seen] = []
        self.breaks = 0
        self._url = f"{url}/v1/jobs/{job_id}/events"
        self._headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
        self._over = Event()
        self._thread = Thread(target=self._run, name=f"follow-{job_id}", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return any(event["type"] == "done" for event in self.events)

    def has_seen(self, **wanted: str) -> bool:
        return any(all(event.get(k) == v for k, v in wanted.items()) for event in list(self.events))

    def close(self) -> None:
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.is_set() and not self.is_done:
            with suppress(httpx.HTTPError):
                self._listen()
            if not self.is_done:
                self.breaks += 1
                time.sleep(0.1)

    def _listen(self) -> None:
        headers = dict(self._headers)
        if self.events:
            headers["Last-Event-ID"] = str(self.events[-1]["seq"])
        with (
            httpx.Client(trust_env=False, timeout=httpx.Timeout(5, read=20)) as client,
            client.stream("GET", self._url, headers=headers) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                return
            for event in _parsed(answer.iter_lines()):
                self.events.append(event)
                if self._over.is_set():
                    return


def _parsed(lines: Iterator[str]) -> Iterator[Seen]:
    for line in lines:
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))
