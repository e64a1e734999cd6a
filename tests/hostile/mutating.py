"""Valid files changed a little: bytes anywhere, values of a JSON document, fields of a protobuf message."""

import copy
import os
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("BASISCONV_HOSTILE_EXAMPLES", "25"))
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    64,
    127,
    255,
    65_535,
    1 << 31,
    (1 << 31) - 1,
    (1 << 62),
    (1 << 63) - 1,
    -1,
    -2,
    -(1 << 31),
)
WORDS = ("", "x", "0", "input", "../x", "\0", "\u202e", "<b>", "n" * 5000, "Conv", "aten", "s0", "__class__")
LEAVES: tuple[Any, ...] = (
    None,
    True,
    False,
    0.5,
    1e308,
    float("nan"),
    *NUMBERS,
    *WORDS,
    [],
    {},
    [[]],
    [None],
    {"a": 1},
)


def budget(weight: float = 1.0) -> settings:
    """So many examples, none of them judged by its time; the same ones in every short run."""
    return settings(
        max_examples=max(1, int(EXAMPLES * weight)),
        deadline=None,
        derandomize=EXAMPLES < 100,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def bytes_of(draw: st.DrawFn, data: bytes, most: int = 4) -> bytes:
    """One to `most` edits anywhere in the data."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(len(changed) - 1, 0)))
        length = draw(st.sampled_from((1, 1, 2, 4, 8, 64, 1000)))
        kind = draw(st.sampled_from(("set", "set", "number", "delete", "repeat", "insert", "cut", "move")))
        piece = bytes(changed[at : at + length])
        if kind == "set" and changed:
            changed[at] = draw(st.integers(0, 255))
        elif kind == "number":
            size = draw(st.sampled_from((2, 4, 8)))
            number = draw(st.sampled_from(NUMBERS)) % (1 << (8 * size))
            changed[at : at + size] = number.to_bytes(size, draw(st.sampled_from(("little", "big"))))
        elif kind == "delete":
            del changed[at : at + length]
        elif kind == "repeat":
            changed[at:at] = piece * draw(st.sampled_from((1, 2, 100)))
        elif kind == "insert":
            changed[at:at] = draw(st.binary(max_size=20))
        elif kind == "cut":
            del changed[at:]
        elif kind == "move":
            to = draw(st.integers(0, max(len(changed) - 1, 0)))
            changed[to : to + len(piece)] = piece
    return bytes(changed)


@st.composite
def json_of(draw: st.DrawFn, document: Any, most: int = 3) -> Any:
    """Some values of a document replaced, removed, repeated, or put where others stood."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(changed))
        if not places:
            return draw(st.sampled_from(LEAVES))
        # Short paths are few: a number of steps is drawn first, so that each depth gets its turn.
        depths = sorted({depth for depth, _, _ in places})
        depth = draw(st.sampled_from(depths))
        _, holder, key = draw(st.sampled_from([place for place in places if place[0] == depth]))
        kind = draw(st.sampled_from(("leaf", "leaf", "remove", "other", "wrap", "rename")))
        if kind == "leaf":
            holder[key] = draw(st.sampled_from(LEAVES))
        elif kind == "remove":
            del holder[key]
        elif kind == "other":
            _, elsewhere, there = draw(st.sampled_from(places))
            if isinstance(elsewhere, dict) and there not in elsewhere:
                continue
            holder[key] = copy.deepcopy(elsewhere[there])
        elif kind == "wrap":
            holder[key] = [holder[key]] * draw(st.sampled_from((1, 2, 50)))
        elif isinstance(holder, dict):
            holder[draw(st.sampled_from(WORDS))] = holder.pop(key)
    return changed


def _places(value: Any, depth: int = 0) -> Iterator[tuple[int, Any, Any]]:
    """Every value of a document by its container and its key or index, with its depth."""
    keys: Any = (
        list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield depth, value, key
        yield from _places(value[key], depth + 1)


@st.composite
def message_of(draw: st.DrawFn, message: Message, most: int = 3) -> Message:
    """Some fields of a protobuf message, at any depth, changed."""
    changed = copy.deepcopy(message)
    for _ in range(draw(st.integers(1, most))):
        parts = list(_parts(changed))
        kinds = sorted(
            {type(part).__name__ for part in parts}
        )  # else tensors' fields would be all that changes
        kind = draw(st.sampled_from(kinds))
        part = draw(st.sampled_from([part for part in parts if type(part).__name__ == kind]))
        _change(draw, part, draw(st.sampled_from(part.DESCRIPTOR.fields)), parts)
    return changed


def _parts(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                yield from _parts(inner)


def _change(draw: st.DrawFn, part: Message, field: FieldDescriptor, parts: list[Message]) -> None:
    if draw(st.integers(0, 4)) == 0:
        part.ClearField(field.name)
        return
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        same = [other for other in parts if other.DESCRIPTOR is field.message_type]
        donor = copy.deepcopy(draw(st.sampled_from(same))) if same else None
        target = getattr(part, field.name).add() if field.is_repeated else getattr(part, field.name)
        target.SetInParent()
        if donor is not None:
            target.CopyFrom(donor)
        return
    value = _value(draw, field)
    if not field.is_repeated:
        setattr(part, field.name, value)
        return
    values = getattr(part, field.name)
    where = draw(st.integers(0, len(values)))
    values[where : where + draw(st.integers(0, 1))] = [value] * draw(st.sampled_from((0, 1, 2, 300)))


def _value(draw: st.DrawFn, field: FieldDescriptor) -> Any:
    number = draw(st.sampled_from(NUMBERS))
    if field.type == FieldDescriptor.TYPE_STRING:
        return draw(st.sampled_from(WORDS))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw(st.sampled_from((b"", b"\0", b"\xff" * 16, b"same")))
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return draw(st.sampled_from((0.0, -1.0, 1e30, float("nan"), float("inf"))))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return draw(st.sampled_from([value.number for value in field.enum_type.values]))
    if field.type == FieldDescriptor.TYPE_INT32:
        return max(min(number, (1 << 31) - 1), -(1 << 31))
    return abs(number) if field.type == FieldDescriptor.TYPE_UINT64 else number
