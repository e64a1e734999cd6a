"""Routes whose work holds one thread, and a database connection only within it."""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from fastapi import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from app.core.unit import RequestUnit


class OneThread(APIRoute):
    """What every router here takes as its ``route_class``.

    FastAPI runs a plain endpoint in one thread, checks its answer in another and ends its transaction in a
    third; the connection is held from the first to the last. With the pool empty all threads wait for a
    connection, and those who hold one wait for a thread: nobody goes on until the pool's patience ends. Here
    the transaction ends in the thread in which it began, which takes fewer threads as well.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, in_one_thread(endpoint, options.get("status_code") or 200), **options)


def in_one_thread(endpoint: Callable[..., Any], status: int = 200) -> Callable[..., Any]:
    """The endpoint as FastAPI sees it; one that is async already is left alone."""
    if iscoroutinefunction(endpoint):
        return endpoint

    @wraps(endpoint)
    async def call(**arguments: Any) -> Any:
        return await run_in_threadpool(_to_its_end, endpoint, arguments, status)

    return call


def _to_its_end(endpoint: Callable[..., Any], arguments: dict[str, Any], status: int) -> Any:
    answer = endpoint(**arguments)
    if isinstance(answer, BaseModel) and not any(isinstance(one, Response) for one in arguments.values()):
        answer = written(answer, status)
    for unit in arguments.values():
        if isinstance(unit, RequestUnit):
            unit.finish()
    return answer


def written(answer: BaseModel, status: int = 200) -> Response:
    """The answer as JSON. It was checked when it was made; FastAPI would check it and copy it once more."""
    return Response(answer.model_dump_json(by_alias=True), status, media_type="application/json")
