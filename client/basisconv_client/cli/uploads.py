"""`basisconv models` and `basisconv datasets`."""

import json
from itertools import islice
from typing import Annotated, Any

import typer

from basisconv_client.cli import options, show
from basisconv_client.cli.compress import input_of, send_images, send_model
from basisconv_client.cli.jobs import Most
from basisconv_client.cli.output import Output
from basisconv_client.cli.session import session

models = typer.Typer(no_args_is_help=True, help="Networks: list, show, layers, upload, delete.")
datasets = typer.Typer(no_args_is_help=True, help="Images: list, show, upload, delete.")

ModelId = Annotated[str, typer.Argument(help="model_…", metavar="MODEL")]
DatasetId = Annotated[str, typer.Argument(help="dataset_…", metavar="DATASET")]


@models.command("list")
def list_models(
    status: Annotated[str | None, typer.Option(help="inspecting, ready or rejected.")] = None,
    limit: Most = 20,
    as_json: options.AsJson = False,
) -> None:
    """Your networks, newest first."""
    told = Output(as_json)
    with session(told) as opened:
        found = list(islice(opened.client.models(status=status, limit=min(limit, 100)), limit))
        told.result(found, show.models(found))


@models.command("show")
def show_model(model: ModelId, as_json: options.AsJson = False) -> None:
    """One network."""
    told = Output(as_json)
    with session(told) as opened:
        found = opened.client.model(model)
        told.result(found, show.described(found), *show.rejection(found))


@models.command("layers")
def show_layers(model: ModelId, as_json: options.AsJson = False) -> None:
    """A network's layers: what each costs, and which can be compressed."""
    told = Output(as_json)
    with session(told) as opened:
        found = opened.client.layers(model)
        told.result(found, show.layers(found))


@models.command("upload")
def upload_model(
    file: Annotated[str, typer.Argument(help="ONNX or .pt2")],
    shape: options.Shape = None,
    scale: options.Scale = None,
    mean: options.Mean = None,
    std: options.Std = None,
    layout: options.Layout = None,
    resize: options.Resize = None,
    crop: options.Crop = None,
    interpolation: options.Interpolation = None,
    architecture: options.Architecture = None,
    name: options.Name = None,
    as_json: options.AsJson = False,
) -> None:
    """Send a network, and wait until it was looked at. One that is there already is not sent again."""
    said = locals()
    told = Output(as_json)
    with session(told) as opened:
        opened.after_interrupt = "The same command again goes on where the upload was cut."
        found = send_model(opened, file, input_of(said), architecture, name)
        told.result(found, found.id)


@models.command("delete")
def delete_models(
    ids: Annotated[list[str], typer.Argument(help="model_…", metavar="MODEL…")],
    as_json: options.AsJson = False,
) -> None:
    """Delete networks that no job uses."""
    told = Output(as_json)
    with session(told) as opened:
        for one in ids:
            opened.client.delete_model(one)
        told.result({"deleted": ids}, f"Deleted: {', '.join(ids)}.")


@datasets.command("list")
def list_datasets(
    status: Annotated[str | None, typer.Option(help="inspecting, ready or rejected.")] = None,
    limit: Most = 20,
    as_json: options.AsJson = False,
) -> None:
    """Your images, newest first."""
    told = Output(as_json)
    with session(told) as opened:
        found = list(islice(opened.client.datasets(status=status, limit=min(limit, 100)), limit))
        told.result(found, show.datasets(found))


@datasets.command("show")
def show_dataset(dataset: DatasetId, as_json: options.AsJson = False) -> None:
    """One data set."""
    told = Output(as_json)
    with session(told) as opened:
        found = opened.client.dataset(dataset)
        told.result(found, show.described_images(found), *show.rejection(found))


@datasets.command("upload")
def upload_dataset(
    file: Annotated[str, typer.Argument(help=".npz, Parquet, zip or tar of class folders")],
    classes: Annotated[
        str | None, typer.Option(help='JSON {"folder": index}; left out, folders in sorted order.')
    ] = None,
    name: options.Name = None,
    as_json: options.AsJson = False,
) -> None:
    """Send images, and wait until they were looked at. A file that is there already is not sent again."""
    told = Output(as_json)
    with session(told) as opened:
        opened.after_interrupt = "The same command again goes on where the upload was cut."
        found = send_images(opened, file, name, _classes(classes))
        told.result(found, found.id)


@datasets.command("delete")
def delete_datasets(
    ids: Annotated[list[str], typer.Argument(help="dataset_…", metavar="DATASET…")],
    as_json: options.AsJson = False,
) -> None:
    """Delete data sets that no job uses."""
    told = Output(as_json)
    with session(told) as opened:
        for one in ids:
            opened.client.delete_dataset(one)
        told.result({"deleted": ids}, f"Deleted: {', '.join(ids)}.")


def _classes(text: str | None) -> dict[str, int] | None:
    if text is None:
        return None
    try:
        found: Any = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"--classes: {error}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter('--classes: expected {"folder": index}')
    return found
