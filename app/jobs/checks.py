"""What a job's body must fulfil beyond its schema: the model's layers, the data set."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from app.core.errors import ValidationFailed
from app.core.problems import invalid, pointer
from app.datasets.tables import Dataset
from app.jobs import from_scratch
from app.jobs.options import Compression, JobCreate, JobOptions, LayerForm
from app.models.tables import Model

Layer = Mapping[str, Any]  # a row of the model's layer table
_NAMED: Final = 5  # layer names in a hint; the layer list has them all


def check_data(request: JobCreate, dataset: Dataset | None) -> None:
    """Refuse what needs images, or labels, that are not there."""
    if request.kind == "train":
        from_scratch.check_data(dataset)
    for asked, path, what in (
        (request.training.epochs > 0, ("training", "epochs"), "Fine-tuning"),
        (
            request.compression.target.accuracy_drop is not None,
            ("compression", "target", "accuracy_drop"),
            "A target on accuracy",
        ),
        (request.limits.accuracy_drop is not None, ("limits", "accuracy_drop"), "A limit on accuracy"),
    ):
        if asked and dataset is None:
            raise invalid(path, f"{what} needs a data set, and the job names none.")
    objective = request.training.objective
    learns_labels = request.training.epochs > 0 and objective != "distill"
    if dataset is not None and not dataset.labelled and learns_labels:
        raise invalid(
            ("training", "objective"),
            f"The objective `{objective}` needs labels, and the data set {dataset.id} has none.",
            hint="Use the objective `distill`, which learns from the original network.",
        )


def check_outputs(request: JobCreate, model: Model) -> None:
    """Refuse a target on accuracy for a network that clearly scores no classes."""
    outputs = (model.summary or {}).get("outputs") or []
    asked = request.compression.target.accuracy_drop is not None
    if asked and (len(outputs) != 1 or outputs[0] < 2):
        raise invalid(
            ("compression", "target", "accuracy_drop"),
            f"A target on accuracy needs a network with one output of class scores; this one has "
            f"{len(outputs)} outputs of {', '.join(map(str, outputs))} values.",
            hint="Ask for a share of the operations; the report then tells how far the outputs are apart.",
        )


def check_layers(compression: Compression, model: Model) -> None:
    """Refuse patterns that match no layer, and ranks that no layer can have."""
    layers = {str(layer["name"]): layer for layer in model.layers or []}
    errors = [*_unmatched(compression, layers), *_bad_ranks(compression, layers)]
    if errors:
        shown = ", ".join(list(layers)[:_NAMED])
        raise ValidationFailed(
            " ".join(error["detail"] for error in errors[:_NAMED]),
            hint=f"Layers are named as in /v1/models/{model.id}/layers: {shown} …",
            errors=errors,
        )


def _unmatched(compression: Compression, names: Iterable[str]) -> list[dict[str, str]]:
    found = []
    for side in ("include", "exclude"):
        for index, pattern in enumerate(getattr(compression.layers, side)):
            if not any(fnmatchcase(name, pattern) for name in names):
                found.append(
                    {
                        "pointer": pointer("compression", "layers", side, index),
                        "detail": f"The pattern {pattern!r} matches no layer.",
                    }
                )
    return found


def _bad_ranks(compression: Compression, layers: Mapping[str, Layer]) -> list[dict[str, str]]:
    found = []
    for name, asked in (compression.target.ranks or {}).items():
        detail = _bad_rank(name, asked, layers.get(name))
        if detail is not None:
            found.append({"pointer": pointer("compression", "target", "ranks", name), "detail": detail})
    return found


def _bad_rank(name: str, asked: LayerForm, layer: Layer | None) -> str | None:
    """Why this layer cannot become that, if it cannot."""
    if layer is None:
        return f"There is no layer {name!r}."
    most = most_rank(layer, asked.form)
    if most is None:
        return f"The layer {name!r} has no form {asked.form!r}: its kernel needs two sides, and no groups."
    if asked.rank is not None and asked.rank > most:
        return f"The layer {name!r} has a rank of at most {most}, not {asked.rank}."
    return None


def most_rank(layer: Layer, form: str) -> int | None:
    """The largest rank that this form of the layer can have; None where it has no such form."""
    if form in ("basis", "dense"):
        return int(layer["max_rank"])
    sides = layer["kernel_size"]
    if layer["kind"] != "conv2d" or layer["groups"] != 1 or 1 in sides:
        return None
    first, second = sides if form == "kx1_1xk" else sides[::-1]
    return int(min(layer["in_channels"] * first, layer["out_channels"] * second))


def frozen_options(request: JobCreate, dataset: Dataset | None) -> JobOptions:
    """The options with what was left out decided, so that the row says what was done."""
    if request.kind == "train":
        return from_scratch.frozen_options(request)
    decided = decide(request.compression, with_images=dataset is not None)
    return request.options().model_copy(update={"compression": decided})


def decide(compression: Compression, *, with_images: bool) -> Compression:
    """The compression of trained weights, with basis and forms written out."""
    basis = compression.basis or "activations"
    # A rank that names no form is one of the paper's: kxk, then 1x1.
    free = (with_images or basis == "activations") and compression.target.kind != "ranks"
    forms = compression.forms or ("auto" if free else "basis")
    return compression.model_copy(update={"basis": basis, "forms": forms})
