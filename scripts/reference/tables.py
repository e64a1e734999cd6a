"""Markdown tables, and JSON schemas as words."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

GENERATED = "This page is generated from the code (`make reference`)."
Schemas = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(head), "|" + " --- |" * len(head), *(_row(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def resolved(schema: Schemas, schemas: Schemas) -> Schemas:
    """The schema behind a reference; what stands beside the reference goes before it."""
    if "$ref" in schema:
        found = resolved(schemas[schema["$ref"].rsplit("/", 1)[-1]], schemas)
        return found | {name: value for name, value in schema.items() if name != "$ref"}
    return schema


def alternatives(schema: Schemas, schemas: Schemas) -> list[Schemas]:
    """What a value may be, without null."""
    schema = resolved(schema, schemas)
    options = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return [one for option in options if (one := resolved(option, schemas)).get("type") != "null"]


def fields(schema: Schemas, schemas: Schemas, above: str = "") -> Iterator[tuple[str, Schemas, bool]]:
    """Every field of an object and of the objects in it: path, schema, whether it must be given."""
    for name, field in schema.get("properties", {}).items():
        path = f"{above}{name}"
        yield path, field, name in schema.get("required", ())
        for option in alternatives(field, schemas):
            yield from fields(option, schemas, f"{path}.")


def allowed(schema: Schemas, schemas: Schemas) -> str:
    """What may stand there, in words."""
    return " or ".join(dict.fromkeys(_words(option, schemas) for option in alternatives(schema, schemas)))


def _words(schema: Schemas, schemas: Schemas) -> str:
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        inner = allowed(schema.get("items", {}), schemas)
        return f"list of {inner}{_bounds(schema, 'minItems', 'maxItems', ' of them')}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"names to {allowed(schema['additionalProperties'], schemas)}"
    if kind == "string" and schema.get("format") == "date-time":
        return "time (RFC 3339, with its zone)"
    word = {"string": "text", "integer": "whole number", "boolean": "`true`, `false`"}.get(kind, kind)
    return word + _bounds(schema, "minLength", "maxLength", " characters") + _range(schema)


def _bounds(schema: Schemas, low: str, high: str, unit: str) -> str:
    if high in schema:
        return f", {schema.get(low, 0)} to {schema[high]:,}{unit}"
    return f", {schema[low]} or more{unit}" if schema.get(low) else ""


def _range(schema: Schemas) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f", {sign} {schema[name]:g}" for name, sign in signs.items() if name in schema)


def default(schema: Schemas, *, required: bool) -> str:
    if required:
        return "**required**"
    value = schema.get("default")
    if value is None or value in ({}, []):
        return ""
    if isinstance(value, dict):
        return ""  # its fields say theirs
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value}`"


def meaning(schema: Schemas, schemas: Schemas) -> str:
    """Its description; of an object of its own, the first sentence of that object's."""
    if "description" in schema:
        return " ".join(str(schema["description"]).split())
    told = [str(option.get("description", "")) for option in alternatives(schema, schemas)]
    return " ".join(told[0].split()) if len(told) == 1 else ""
