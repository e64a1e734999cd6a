"""Options that several commands share, each described once."""

from typing import Annotated, Final, Literal

import typer

_TARGET = "Target (exactly one)"
_METHOD = "Method"
_TRAINING = "Fine-tuning"
_INPUT = "The network's input (for a file that does not say)"
_RESULT = "Result"

NETWORK_FILES: Final = "ONNX, .pt2, a zip of a Hugging Face folder, or weights with --architecture"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of words.")]
Most = Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")]
Network = Annotated[
    str, typer.Argument(help=f"{NETWORK_FILES}; or model_… of one that is there already.", metavar="MODEL")
]
Data = Annotated[
    str | None,
    typer.Option("--data", "-d", help="Images: .npz, Parquet, zip or tar of class folders; or dataset_…"),
]

Macs = Annotated[
    float | None,
    typer.Option(help="Keep at most this share of the multiply-accumulates.", rich_help_panel=_TARGET),
]
Params = Annotated[
    float | None, typer.Option(help="Keep at most this share of the parameters.", rich_help_panel=_TARGET)
]
Latency = Annotated[
    float | None,
    typer.Option(
        help="Take at most this share of the time, measured on the worker.", rich_help_panel=_TARGET
    ),
]
AccuracyDrop = Annotated[
    float | None,
    typer.Option(help="Lose at most this much accuracy; 0.01 is one point.", rich_help_panel=_TARGET),
]
Energy = Annotated[
    float | None,
    typer.Option(help="Keep this share of every layer's energy (the paper's t).", rich_help_panel=_TARGET),
]
RankFraction = Annotated[
    float | None,
    typer.Option(help="Keep this share of every layer's full rank.", rich_help_panel=_TARGET),
]
Expansion = Annotated[
    float | None,
    typer.Option(help="With --kind train: fixed filters per output channel.", rich_help_panel=_TARGET),
]
Ranks = Annotated[
    str | None,
    typer.Option(
        help='A JSON file {"layer": rank}, such as `basisconv plan -o` writes; - is standard input.',
        rich_help_panel=_TARGET,
    ),
]

Basis = Annotated[
    Literal["activations", "weights", "random"] | None,
    typer.Option(
        help="Where filters come from: measured responses, or the weights as in the paper.",
        rich_help_panel=_METHOD,
    ),
]
Forms = Annotated[
    Literal["basis", "auto"] | None,
    typer.Option(
        help="basis: always k×k then 1×1. auto: the cheapest pair per layer.", rich_help_panel=_METHOD
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(help="Only layers that match this pattern; may be repeated.", rich_help_panel=_METHOD),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave layers alone that match this pattern; may be repeated.", rich_help_panel=_METHOD
    ),
]
RankMultiple = Annotated[
    int | None, typer.Option(help="Only ranks that are multiples of this.", rich_help_panel=_METHOD)
]
Kind = Annotated[
    Literal["compress", "train"] | None,
    typer.Option(
        help="train: from scratch with fixed random filters; the weights are not used.",
        rich_help_panel=_METHOD,
    ),
]

Epochs = Annotated[
    int | None, typer.Option(help="Passes over the train images; none by default.", rich_help_panel=_TRAINING)
]
Objective = Annotated[
    Literal["labels", "distill", "both"] | None,
    typer.Option(help="Learn from labels, from the original's answers, or both.", rich_help_panel=_TRAINING),
]
Update = Annotated[
    Literal["mixing", "all"] | None,
    typer.Option(help="mixing: the basis stays frozen, as in the paper.", rich_help_panel=_TRAINING),
]
BatchSize = Annotated[int | None, typer.Option(help="Images a step.", rich_help_panel=_TRAINING)]
LearningRate = Annotated[
    float | None, typer.Option(help="Its peak; left out, it is chosen by trials.", rich_help_panel=_TRAINING)
]
Augment = Annotated[
    Literal["flip_crop", "none"] | None,
    typer.Option(help="Mirror and crop images, or leave them.", rich_help_panel=_TRAINING),
]
Seed = Annotated[int | None, typer.Option(help="Of everything random.", rich_help_panel=_TRAINING)]
Patience = Annotated[
    int | None,
    typer.Option(help="End after so many epochs that brought nothing.", rich_help_panel=_TRAINING),
]
LimitAccuracyDrop = Annotated[
    float | None,
    typer.Option(
        help="A wish beside the target: lose no more accuracy than this.", rich_help_panel=_TRAINING
    ),
]
LimitLearnable = Annotated[
    float | None,
    typer.Option(
        "--limit-learnable-params",
        help="A wish beside the target: the share left to learn.",
        rich_help_panel=_TRAINING,
    ),
]

Shape = Annotated[str | None, typer.Option(help="C,H,W, as in 3,224,224.", rich_help_panel=_INPUT)]
Scale = Annotated[
    float | None, typer.Option(help="Pixels are divided by it; 255 by default.", rich_help_panel=_INPUT)
]
Mean = Annotated[
    str | None,
    typer.Option(help="Taken off each channel, as in 0.485,0.456,0.406.", rich_help_panel=_INPUT),
]
Std = Annotated[
    str | None,
    typer.Option(help="Each channel is divided by it, as in 0.229,0.224,0.225.", rich_help_panel=_INPUT),
]
Layout = Annotated[
    Literal["NCHW", "NHWC"] | None,
    typer.Option(help="Order of the axes in the file.", rich_help_panel=_INPUT),
]
Resize = Annotated[
    int | None, typer.Option(help="Length of the shorter side before the crop.", rich_help_panel=_INPUT)
]
Crop = Annotated[int | None, typer.Option(help="Side of the centre crop.", rich_help_panel=_INPUT)]
Interpolation = Annotated[
    Literal["nearest", "bilinear", "bicubic"] | None,
    typer.Option(help="How images are resized.", rich_help_panel=_INPUT),
]
Architecture = Annotated[
    str | None,
    typer.Option(help="Of a file that holds weights only, such as resnet50.", rich_help_panel=_INPUT),
]

Exports = Annotated[
    str | None,
    typer.Option(
        help="Which files to make, as in onnx,pt2,safetensors; left out, all.", rich_help_panel=_RESULT
    ),
]
Name = Annotated[str | None, typer.Option(help="What to call it on the server.")]
Into = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        rich_help_panel=_RESULT,
        help="A file (.onnx, .pt2, .safetensors), or a folder for all files.",
    ),
]
Report = Annotated[
    str | None, typer.Option(help="Also save the report as this HTML file.", rich_help_panel=_RESULT)
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Exit with 6 where the target or a limit is missed.", rich_help_panel=_RESULT
    ),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Queue the job, say its id, and end.", rich_help_panel=_RESULT)
]


def numbers(name: str, text: str | None) -> list[float] | None:
    """`0.5,0.25` as numbers."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{name}: {text!r} is no list of numbers such as 0.5,0.25") from None


def words(text: str | None) -> list[str] | None:
    """`onnx,pt2` as words."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
