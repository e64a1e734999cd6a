"""Hugging Face model folders, as `save_pretrained` writes them, with small networks of random weights."""

import importlib
import io
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save

SIDE = 32
PREPROCESSOR = {
    "image_processor_type": "ConvNextImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": SIDE},
    "crop_pct": 0.875,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": (
        "ResNet",
        {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 2], "layer_type": "basic"},
    ),
    "convnext": ("ConvNext", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    "convnextv2": ("ConvNextV2", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    "mobilenet_v1": ("MobileNetV1", {"depth_multiplier": 0.25}),
    "mobilenet_v2": ("MobileNetV2", {"depth_multiplier": 0.25}),
    "efficientnet": (
        "EfficientNet",
        {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320, "image_size": SIDE},
    ),
    "regnet": (
        "RegNet",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8},
    ),
    "hgnet_v2": (
        "HGNetV2",
        {
            "stem_channels": [3, 8, 8],
            "stage_in_channels": [8, 16, 16, 16],
            "stage_mid_channels": [8, 8, 8, 8],
            "stage_out_channels": [16, 16, 16, 32],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [1, 1, 1, 1],
            "hidden_sizes": [16, 16, 16, 32],
        },
    ),
    "poolformer": ("PoolFormer", {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}),
    "focalnet": ("FocalNet", {"embed_dim": 8, "depths": [1, 1, 1, 1], "image_size": SIDE}),
    "swiftformer": ("SwiftFormer", {"embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}),
    "textnet": (
        "TextNet",
        {
            "hidden_sizes": [8, 8, 8, 8, 8],
            "stem_out_channels": 8,
            **{
                f"conv_layer_{what}s": [[value]] * 4
                for what, value in (("kernel_size", [3, 3]), ("stride", 2))
            },
        },
    ),
}


@cache
def network(kind: str, classes: int = 10, seed: int = 0) -> Any:
    """The network as `transformers` itself builds it, with statistics that a trained one might have."""
    name, fields = SMALL[kind]
    folder = f"transformers.models.{kind}"
    config = getattr(importlib.import_module(f"{folder}.configuration_{kind}"), f"{name}Config")
    model = getattr(importlib.import_module(f"{folder}.modeling_{kind}"), f"{name}ForImageClassification")
    torch.manual_seed(seed)
    made = model(config(num_labels=classes, **fields)).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return made


def files(kind: str = "resnet", **config: Any) -> dict[str, bytes]:
    """What lies in the folder; `config`: changes to config.json."""
    model = network(kind)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        found = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    told = json.loads(found["config.json"]) | config
    found["config.json"] = json.dumps(told).encode()
    found["preprocessor_config.json"] = json.dumps(PREPROCESSOR).encode()
    return found


def sharded(kind: str = "resnet") -> dict[str, bytes]:
    """The same weights in two files with an index."""
    found = files(kind)
    state = {name: value.contiguous() for name, value in network(kind).state_dict().items()}
    names = list(state)
    parts = {
        "model-00001-of-00002.safetensors": names[::2],
        "model-00002-of-00002.safetensors": names[1::2],
    }
    del found["model.safetensors"]
    found |= {name: save({key: state[key] for key in keys}) for name, keys in parts.items()}
    index = {"weight_map": {key: name for name, keys in parts.items() for key in keys}}
    return found | {"model.safetensors.index.json": json.dumps(index).encode()}


def pickled() -> bytes:
    """As older versions wrote weights."""
    buffer = io.BytesIO()
    torch.save(network("resnet").state_dict(), buffer)
    return buffer.getvalue()
