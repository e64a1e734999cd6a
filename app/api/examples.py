"""Requests worth sending, for the page `/docs` and for the reference: one or more for every body.

They are about the example that comes along: a small network for handwritten digits and its images. Ids are
placeholders; the page puts the reader's own newest ones in their place, and a test sends every example.
"""

from typing import Any, Final

MODEL: Final = "model_01k00000000000000000000000"
DATASET: Final = "dataset_01k00000000000000000000000"
UPLOAD: Final = "upload_01k00000000000000000000000"
PLACEHOLDERS: Final = (MODEL, DATASET, UPLOAD)

JSON: Final = "application/json"
FORM: Final = "multipart/form-data"
LINES: Final = "application/jsonl"

_FOR_BOTH: Final = {"model": MODEL, "dataset": DATASET}
_INPUT: Final = {"mean": [0.3054], "std": [0.376]}


def _example(summary: str, value: Any) -> dict[str, Any]:
    return {"summary": summary, "value": value}


def _job(summary: str, target: dict[str, Any], **more: Any) -> dict[str, Any]:
    return _example(summary, {**_FOR_BOTH, "compression": {"target": target}, **more})


_JOBS: Final = {
    "half_of_the_operations": _job("Half of the operations, no training", {"macs": 0.5}),
    "with_training": _job(
        "30 % of the parameters, then two epochs of learning from the original's answers",
        {"params": 0.3},
        training={"epochs": 2, "objective": "distill"},
        name="Digits, small",
    ),
    "accuracy": _job(
        "The smallest network that loses at most one point of accuracy", {"accuracy_drop": 0.01}
    ),
    "latency": _job("At most 80 % of the time on the worker's machine", {"latency": 0.8}, exports=["onnx"]),
    "without_images": _example(
        "No images: responses are measured on images made from the network itself",
        {"model": MODEL, "compression": {"target": {"macs": 0.5}}},
    ),
    "as_in_the_paper": _example(
        "The paper's method: a basis of the weights, ranks by energy, linear layers and the stem left alone",
        {
            "model": MODEL,
            "compression": {
                "basis": "weights",
                "target": {"energy": 0.9},
                "layers": {"exclude": ["stem"]},
            },
            "exports": ["onnx", "safetensors"],
        },
    ),
    "ranks": _job("Ranks of your own, such as a plan's", {"ranks": {"block1.conv1": 8, "block2.conv2": 12}}),
    "from_scratch": _job(
        "From scratch: fixed random filters, only their mixing learns, from your labels",
        {"macs": 0.5},
        kind="train",
        training={"epochs": 3},
    ),
}

_PLANS: Final = {
    "half_of_the_operations": _job("What would half of the operations keep of each layer?", {"macs": 0.5}),
    "without_images": _example(
        "The same from the weights alone",
        {"model": MODEL, "compression": {"basis": "weights", "target": {"macs": 0.5}}},
    ),
}

_LINE: Final = (
    '{{"model": "{model}", "dataset": "{dataset}", "compression": {{"target": {{"macs": {share}}}}}}}\n'
)
_BATCH_LINES: Final = "".join(
    _LINE.format(model=MODEL, dataset=DATASET, share=share) for share in (0.3, 0.5, 0.7)
)

EXAMPLES: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "POST /v1/models": {
        FORM: {
            "digits": _example(
                "A network that was trained on normalised pixels",
                {"name": "digits", "input": '{"mean": [0.3054], "std": [0.376]}'},
            )
        },
        JSON: {
            "from_an_upload": _example(
                "A file that was sent to /v1/uploads before",
                {"upload": UPLOAD, "name": "digits", "input": _INPUT},
            )
        },
    },
    "POST /v1/datasets": {
        FORM: {"digits": _example("Images with labels", {"name": "digits"})},
        JSON: {
            "from_an_upload": _example(
                "A file that was sent to /v1/uploads before", {"upload": UPLOAD, "name": "digits"}
            )
        },
    },
    "POST /v1/plans": {JSON: _PLANS},
    "POST /v1/jobs": {JSON: _JOBS},
    "POST /v1/batches": {
        JSON: {
            "grid": _example(
                "One network at three sizes, each by both ways to a basis: six jobs",
                {
                    "models": [MODEL],
                    "grid": {
                        "compression.target.macs": [0.3, 0.5, 0.7],
                        "compression.basis": ["weights", "activations"],
                    },
                    "base": {"dataset": DATASET},
                    "name": "Sizes",
                },
            ),
            "jobs": _example(
                "Two jobs, written out",
                {"jobs": [_JOBS["half_of_the_operations"]["value"], _JOBS["accuracy"]["value"]]},
            ),
        },
        LINES: {"lines": _example("A job a line", _BATCH_LINES)},
        FORM: {"file": _example("The same lines as a file", {"name": "Sizes", "on_error": "skip"})},
    },
    "POST /v1/webhooks": {
        JSON: {
            "ends": _example(
                "Be told when jobs and batches end",
                {
                    "url": "https://example.com/hooks/basisconv",
                    "events": ["job.succeeded", "job.failed", "batch.completed"],
                },
            )
        }
    },
    "POST /v1/keys": {
        JSON: {
            "colleague": _example("For a colleague who shall see nothing of yours", {"name": "Ada"}),
            "reader": _example(
                "To look only, with your own things, until the end of the year 2099",
                {
                    "name": "dashboard",
                    "scopes": ["read"],
                    "owner": "self",
                    "expires_at": "2099-12-31T23:59:59Z",
                },
            ),
            "limited": _example(
                "With less room and fewer jobs than others",
                {"name": "student", "limits": {"stored_bytes": 5_000_000_000, "active_jobs": 4}},
            ),
        }
    },
    "PATCH /v1/keys/{key_id}": {
        JSON: {"limits": _example("Let it run more at once", {"limits": {"active_jobs": 20}})},
    },
}


def add_examples(document: dict[str, Any]) -> None:
    """Write the examples into the OpenAPI document."""
    for operation, by_media in EXAMPLES.items():
        method, path = operation.split()
        content = document["paths"][path][method.lower()]["requestBody"]["content"]
        for media, examples in by_media.items():
            content[media]["examples"] = examples
