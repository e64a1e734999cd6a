"""What may be asked of a job, flat, and the body that the service wants. It chooses what is left out."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypedDict

from basisconv_client.resources import Json

Rank = int | Mapping[str, Any]


class InputWishes(TypedDict, total=False):
    """How pixels become the network's input, where its file does not say so."""

    shape: Sequence[int]
    scale: float
    mean: Sequence[float]
    std: Sequence[float]
    layout: Literal["NCHW", "NHWC"]
    resize: int
    crop: int
    interpolation: Literal["nearest", "bilinear", "bicubic"]


class CompressionWishes(TypedDict, total=False):
    """Exactly one target, and how to get there."""

    macs: float
    params: float
    latency: float
    accuracy_drop: float
    energy: float
    rank_fraction: float
    expansion: float
    ranks: Mapping[str, Rank]
    basis: Literal["activations", "weights", "random"]
    forms: Literal["basis", "auto"]
    include: Sequence[str]
    exclude: Sequence[str]
    rank_multiple: int


class Wishes(CompressionWishes, total=False):
    """A whole job."""

    kind: Literal["compress", "train"]
    epochs: int
    objective: Literal["labels", "distill", "both"]
    update: Literal["mixing", "all"]
    batch_size: int
    learning_rate: float
    augment: Literal["flip_crop", "none"]
    seed: int
    patience: int
    limit_accuracy_drop: float
    limit_learnable_params: float
    exports: Sequence[str]
    name: str
    metadata: Mapping[str, Any]


TARGETS: Final = (
    "macs", "params", "latency", "accuracy_drop", "energy", "rank_fraction", "expansion", "ranks",
)  # fmt: skip
_COMPRESSION: Final = ("basis", "forms", "rank_multiple")
_LAYERS: Final = ("include", "exclude")
_TRAINING: Final = (
    "epochs", "objective", "update", "batch_size", "learning_rate", "augment", "seed", "patience",
)  # fmt: skip
_LIMITS: Final = {"limit_accuracy_drop": "accuracy_drop", "limit_learnable_params": "learnable_params"}
_JOB: Final = ("kind", "exports", "name", "metadata")


def job_body(model: str, dataset: str | None, wishes: Mapping[str, Any]) -> Json:
    """The body of POST /v1/jobs. Raises ValueError for no target, two targets or an unknown wish."""
    given = _given(wishes, (*_JOB, *_TRAINING, *_LIMITS, *TARGETS, *_COMPRESSION, *_LAYERS))
    body: Json = {"kind": "compress", "model": model} | _some(given, _JOB)
    if dataset is not None:
        body["dataset"] = dataset
    body["compression"] = _compression(given)
    if training := _some(given, _TRAINING):
        body["training"] = training
    if limits := {inside: given[name] for name, inside in _LIMITS.items() if name in given}:
        body["limits"] = limits
    return body


def plan_body(model: str, dataset: str | None, wishes: Mapping[str, Any]) -> Json:
    """The body of POST /v1/plans."""
    given = _given(wishes, (*TARGETS, *_COMPRESSION, *_LAYERS))
    body: Json = {"model": model, "compression": _compression(given)}
    return body if dataset is None else body | {"dataset": dataset}


def _compression(given: Json) -> Json:
    targets = _some(given, TARGETS)
    if len(targets) != 1:
        raise ValueError(
            f"exactly one target is needed, of {', '.join(TARGETS)}; got {', '.join(targets) or 'none'}"
        )
    layers = _some(given, _LAYERS)
    return {"target": targets} | _some(given, _COMPRESSION) | ({"layers": layers} if layers else {})


def _given(wishes: Mapping[str, Any], known: Sequence[str]) -> Json:
    unknown = sorted(set(wishes) - set(known))
    if unknown:
        raise ValueError(f"there is no {', '.join(unknown)} to wish for; there are {', '.join(known)}")
    return {name: _plain(value) for name, value in wishes.items() if value is not None}


def _some(given: Json, names: Sequence[str]) -> Json:
    return {name: given[name] for name in names if name in given}


def _plain(value: Any) -> Any:
    """Tuples and the like as JSON's lists."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
