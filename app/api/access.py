"""Who may call which route. Every route declares a scope, or says that it is open to all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from app.core.security import DECLARATIONS, Scope

# Starlette's own routes know no dependencies: the description of the interface, and files anybody may have.
_OPEN_FILES: Final = frozenset({"/openapi.json", "/static"})


@dataclass(frozen=True)
class Access:
    """One method of one address, and what it asks for."""

    method: str
    path: str
    asks: Scope | Literal["nothing", "undeclared"]


def routes(app: FastAPI) -> Iterator[Access]:
    """All that the application answers to, pages too."""
    for route in iter_route_contexts(app.routes):
        path = route.path or ""
        for method in sorted(route.methods or {"GET"}):
            yield Access(method, path, _asks(path, getattr(route, "dependant", None)))


def _asks(path: str, dependant: Dependant | None) -> Scope | Literal["nothing", "undeclared"]:
    if dependant is None:
        return "nothing" if path in _OPEN_FILES else "undeclared"
    declared = set(_declared(dependant))
    scopes = [scope for scope in declared if scope is not None]
    if len(scopes) == 1:
        return scopes[0]
    return "nothing" if declared == {None} else "undeclared"


def _declared(dependant: Dependant) -> Iterator[Scope | None]:
    if dependant.call in DECLARATIONS:
        yield DECLARATIONS[dependant.call]
    for needed in dependant.dependencies:
        yield from _declared(needed)
