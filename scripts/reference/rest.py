"""docs/reference/rest.md: every operation with a call that runs, from the OpenAPI document."""

import json
import re
from collections.abc import Iterator
from typing import Any

from app.api.examples import DATASET, JSON, MODEL
from app.openapi import document
from reference.calls import CALLS, VARIABLES
from reference.tables import GENERATED, allowed, table

HEAD = f"""# The REST interface

Every operation, with a call that you can paste. `/docs` of a running server shows the same, lets you try it, and has [openapi.json](../openapi.json) for generators of clients. What a body may say is in [options](options.md), what an error means in [errors](errors.md).

**Before the first call**, as in the [tutorial](../tutorial.md#with-curl): `api` is curl with the key, `$URL` the address, `$MODEL` and `$DATA` a network and images that are ready. The calls build on each other from top to bottom; those that delete are run last.

**Everywhere.** Keys go into the header `Authorization: Bearer …`. Lists are pages: `after` is the id behind which the page begins, `limit` at most 100, `order` `asc` or `desc`; `has_more` says whether there is another. A POST that makes something takes an `Idempotency-Key`: sent again with the same body, it gives the first answer again instead of making a second thing. Times are UTC. Beside the answers that are listed, every operation may answer 400, 401, 403, 422, 429, 500 and 503 with the [codes](errors.md) of these.

{GENERATED}
"""
ORDER = (
    "models",
    "datasets",
    "uploads",
    "plans",
    "jobs",
    "artifacts",
    "batches",
    "webhooks",
    "keys",
    "health",
)
DOCUMENT = document()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
USUAL = {"400", "401", "403", "422", "429", "500", "503"}
PAGING = {"after", "limit", "order"}


def page() -> str:
    parts = [HEAD]
    for tag, operations in _by_tag().items():
        parts.append(f"## {tag.capitalize()}\n")
        parts += [_told(method, path, operation) for method, path, operation in operations]
    return "\n".join(parts)


def _by_tag() -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    found: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            found.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    places = {tag: place for place, tag in enumerate(ORDER)}
    return dict(sorted(found.items(), key=lambda item: places.get(item[0], len(ORDER))))


def _told(method: str, path: str, operation: dict[str, Any]) -> str:
    words = "run last" if method == "DELETE" else "run"
    parts = [
        f"### {method} {path}\n",
        operation["description"].replace("\n", " ").strip() + "\n",
        f"```sh {words}\n{_call(method, path, operation)}\n```\n",
        _parameters(operation),
        _answers(operation),
    ]
    return "\n".join(part for part in parts if part)


def _call(method: str, path: str, operation: dict[str, Any]) -> str:
    """The one that was written for it, else what its kind is called like."""
    written = CALLS.get(f"{method} {path}")
    if written is not None:
        return written.strip()
    address = "$URL" + path.removeprefix("/v1")
    for name, variable in VARIABLES.items():
        address = address.replace("{" + name + "}", variable)
    if method == "GET":
        return f"api {address}"
    if "requestBody" not in operation:
        return f"api -X {method} {address}"
    examples = operation["requestBody"]["content"][JSON]["examples"]
    body = json.dumps(next(iter(examples.values()))["value"], ensure_ascii=False)
    body = body.replace(MODEL, "'$MODEL'").replace(DATASET, "'$DATA'")
    return f"api -X {method} {address} -H 'Content-Type: application/json' -d '{body}'"


def _parameters(operation: dict[str, Any]) -> str:
    """Those of the query and the header that are this operation's own."""
    rows = list(_rows(operation))
    if not rows:
        return ""
    return table(("parameter", "in", "allowed", "meaning"), rows)


def _rows(operation: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path" or parameter["name"] in PAGING | {"Idempotency-Key", "idempotency-key"}:
            continue
        told = parameter.get("description") or parameter["schema"].get("description", "")
        yield f"`{parameter['name']}`", parameter["in"], allowed(parameter["schema"], SCHEMAS), told


def _answers(operation: dict[str, Any]) -> str:
    """The statuses beside those that every operation may answer with."""
    said = [
        f"{status} {_sorts(answer['description'])}".strip()
        for status, answer in operation["responses"].items()
        if status not in USUAL
    ]
    return f"Answers: {'; '.join(said)}.\n"


def _sorts(description: str) -> str:
    """A problem's codes, or what else the document says of the answer."""
    codes = re.findall(r"`\w+`(?=: )", description)
    told = "" if description == "Successful Response" else f"({description.rstrip('.')})"
    return ", ".join(codes) or told
