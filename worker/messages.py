"""What a child may say: one JSON object a line, each checked before anything believes it.

A child has read a stranger's file and may be its puppet, so sizes, names and numbers are bounded here.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.jobs.states import Stage

LINE_BYTES = 32_000_000  # the layer table of a network with 60,000 layers takes about 20 MB
LogValue = Annotated[str, Field(max_length=1_000)] | int | float | bool | None
Text = Annotated[str, Field(max_length=4_000)]


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class StageMessage(Message):
    type: Literal["stage"]
    stage: Stage


class ProgressMessage(Message):
    type: Literal["progress"]
    fraction: Annotated[float, Field(ge=0, le=1)]
    epoch: Annotated[int, Field(ge=0, lt=10**9)] | None = None
    eta_seconds: Annotated[float, Field(ge=0, lt=1e9)] | None = None
    message: Text = ""


class MetricMessage(Message):
    type: Literal["metric"]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")]
    step: Annotated[int, Field(ge=0, lt=2**31)]
    value: float


class WarningMessage(Message):
    type: Literal["warning"]
    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    detail: Text
    layer: Text | None = None


class CheckpointMessage(Message):
    """A file in the scratch folder from which another attempt can go on."""

    type: Literal["checkpoint"]
    part: Literal["network", "training"]
    file: Annotated[str, Field(pattern=r"^checkpoint-[0-9]{1,9}\.safetensors$")]
    stage: Stage
    epoch: Annotated[int, Field(ge=0, lt=2**31)]
    step: Annotated[int, Field(ge=0, lt=2**31)]


class RestartMessage(Message):
    """What an earlier attempt left is of no use: everything is done, and said, again."""

    type: Literal["restart"]
    reason: Text


class SandboxMessage(Message):
    """Which optional parts of its sandbox the kernel granted the child, and which not."""

    type: Literal["sandbox"]
    holds: Annotated[list[Text], Field(max_length=10)] = []
    missing: Annotated[list[Text], Field(max_length=10)]


class LogMessage(Message):
    """A line for the worker's log. What it holds is the child's word: it names no field of ours."""

    type: Literal["log"]
    level: Literal["debug", "info", "warning", "error"]
    logger: Annotated[str, Field(max_length=100)] = ""
    event: Text
    fields: Annotated[dict[str, LogValue], Field(max_length=20)] = {}


class ResultMessage(Message):
    type: Literal["result"]
    result: dict[str, Any]


class ProblemMessage(Message):
    type: Literal["problem"]
    problem: dict[str, Any]


Said = (
    StageMessage
    | ProgressMessage
    | MetricMessage
    | WarningMessage
    | CheckpointMessage
    | RestartMessage
    | SandboxMessage
    | LogMessage
    | ResultMessage
    | ProblemMessage
)
_ADAPTER: TypeAdapter[Said] = TypeAdapter(Annotated[Said, Field(discriminator="type")])


class NotAMessage(ValueError):  # noqa: N818 - says what the line is
    """A line that no child of ours writes."""


def parse(line: bytes) -> Said:
    try:
        said = json.loads(line, parse_constant=_refuse)
        return _ADAPTER.validate_python(_storable(said))
    except (ValueError, RecursionError, ValidationError) as error:
        raise NotAMessage(f"{type(error).__name__}: {line[:200]!r}") from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _storable(value: Any) -> Any:
    """The value without NUL characters and lone surrogates, which PostgreSQL's text cannot hold."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    return value
