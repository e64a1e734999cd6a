"""A job's events as they happen, each once, in order, whatever the connection does meanwhile."""

import json
from collections.abc import Iterator

import httpx

from basisconv_client.errors import ServiceError
from basisconv_client.resources import Event
from basisconv_client.transport import Failure, Transport, problem_of


class _StreamOver(Exception):  # noqa: N818 - says what is so
    """The job has ended and every event was read."""


def events(transport: Transport, job: str, after: str = "") -> Iterator[Event]:
    """Every event after that one, to `done`; a lost connection is taken up again where it broke off."""
    last, failures = after, 0
    while True:
        problem: Failure | None = None
        try:
            for id_, event in _stream(transport, job, last):
                last, failures = id_, 0
                yield event
                if event.type == "done":
                    return
        except _StreamOver:
            return
        except (httpx.TransportError, ServiceError) as error:
            problem = error
        failures += 1
        if problem is not None:
            transport.rest_or_give_up(problem, failures, transport.patience.tries_following)
        else:  # the server ends long streams by itself, so this is no failure
            transport.patience.sleep(min(transport.patience.pause(failures), 2.0))


def _stream(transport: Transport, job: str, last: str) -> Iterator[tuple[str, Event]]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    with transport.http.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as response:
        if response.is_error:
            response.read()
            raise problem_of(response)
        if response.status_code == httpx.codes.NO_CONTENT:
            raise _StreamOver
        for id_, data in messages(response.iter_lines()):
            yield id_ or last, Event.model_validate(json.loads(data))


def messages(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """The (id, data) of server-sent events; comments, which keep the line open, are passed over."""
    id_, data = "", list[str]()
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and data:
            yield id_, "\n".join(data)
            data = []
        elif name == "id":
            id_ = value
        elif name == "data":
            data.append(value)
