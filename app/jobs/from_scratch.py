"""What a job of the kind `train` may ask for: structure and labels, nothing that needs trained weights."""

from typing import Final

from app.core.problems import invalid
from app.datasets.tables import Dataset
from app.jobs.options import JobCreate, JobOptions

_BETTER: Final = "A trained network has better filters than random ones: its own, or those of its responses."
_OF_TRAINED: Final = ("energy", "latency", "accuracy_drop")  # targets


def check_kind(request: JobCreate) -> None:
    """Refuse what one of the two kinds of job cannot do."""
    target, basis = request.compression.target.kind, request.compression.basis
    if request.kind == "train":
        _check_training(request)
    elif basis == "random":
        raise invalid(("compression", "basis"), "The basis `random` is for the kind `train`.", hint=_BETTER)
    elif target == "expansion":
        path = ("compression", "target", "expansion")
        raise invalid(path, "The target `expansion` is for the kind `train`.", hint=_BETTER)


def _check_training(request: JobCreate) -> None:
    compression, training = request.compression, request.training
    kind, asked = compression.target.kind, training.model_fields_set
    basis, objective = compression.basis, training.objective
    for wrong, path, detail in (
        (
            basis not in (None, "random"),
            ("compression", "basis"),
            f"From scratch the basis is `random`, not `{basis}`: the network's weights are not used.",
        ),
        (
            kind in _OF_TRAINED,
            ("compression", "target", kind),
            f"The target `{kind}` needs a trained network: there is nothing yet to measure it by.",
        ),
        (
            compression.forms == "auto",
            ("compression", "forms"),
            "From scratch there is the form `basis` only.",
        ),
        (
            any(asked.form != "basis" for asked in (compression.target.ranks or {}).values()),
            ("compression", "target", "ranks"),
            "From scratch a layer is given its rank alone.",
        ),
        (training.epochs < 1, ("training", "epochs"), "Training from scratch needs at least 1 epoch."),
        (
            "update" in asked and training.update != "mixing",
            ("training", "update"),
            "The random basis stays as it is: update can be `mixing` only.",
        ),
        (
            "objective" in asked and objective != "labels",
            ("training", "objective"),
            f"From scratch the network learns from labels; `{objective}` would need a trained one.",
        ),
    ):
        if wrong:
            raise invalid(path, detail)


def check_data(dataset: Dataset | None) -> None:
    """Refuse to learn from nothing."""
    if dataset is None or not dataset.labelled:
        missing = "the job names none" if dataset is None else f"the data set {dataset.id} has no labels"
        raise invalid(("dataset",), f"Training from scratch needs labelled images, and {missing}.")


def frozen_options(request: JobCreate) -> JobOptions:
    """The options with what follows from the kind written out."""
    compression = request.compression.model_copy(update={"basis": "random", "forms": "basis"})
    training = request.training.model_copy(update={"update": "mixing", "objective": "labels"})
    return request.options().model_copy(update={"compression": compression, "training": training})
