"""The bundled example: which files, how the network takes its images, and the job that compresses it."""

from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parent.parent / "examples"
NETWORK: Final = FOLDER / "digits_cnn.onnx"
IMAGES: Final = FOLDER / "digits.npz"
NETWORK_NAME: Final = "digits_cnn"
IMAGES_NAME: Final = "digits"
INPUT: Final[dict[str, Any]] = {"shape": [1, 8, 8], "scale": 255, "mean": [0.3054], "std": [0.376]}


def job_body(model: str, dataset: str) -> dict[str, Any]:
    """Half of the operations, two passes over the images: about a minute on two cores."""
    return {
        "kind": "compress",
        "name": "Example: handwritten digits",
        "model": model,
        "dataset": dataset,
        "compression": {"basis": "activations", "target": {"macs": 0.5}},
        "training": {"epochs": 2, "update": "all", "objective": "distill", "augment": "none"},
        "exports": ["onnx", "pt2", "safetensors"],
    }
