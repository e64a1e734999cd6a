"""`basisconv models` and `basisconv datasets`."""

import json
from typing import Annotated, Any, Final

import typer

from basisconv_client.cli import options, show
from basisconv_client.cli.compress import input_of, send_images, send_model
from basisconv_client.cli.listing import Uploads, add_delete, add_list_and_show
from basisconv_client.cli.output import Output
from basisconv_client.cli.session import session
from basisconv_client.client import Client
from basisconv_client.resources import Dataset, Model

models = typer.Typer(no_args_is_help=True, help="Networks: list, show, layers, upload, delete.")
datasets = typer.Typer(no_args_is_help=True, help="Images: list, show, upload, delete.")

NETWORKS: Final = Uploads[Model](
    prefix="model",
    one="network",
    many="networks",
    found=Client.model,
    all=Client.models,
    table=show.models,
    shown=lambda found: (show.described(found), *show.rejection(found)),
)
IMAGES: Final = Uploads[Dataset](
    prefix="dataset",
    one="data set",
    many="images",
    found=Client.dataset,
    all=Client.datasets,
    table=show.datasets,
    shown=lambda found: (show.described_images(found), *show.rejection(found)),
)

add_list_and_show(models, NETWORKS)


@models.command("layers")
def show_layers(
    model: Annotated[str, typer.Argument(help="model_…", metavar="MODEL")], as_json: options.AsJson = False
) -> None:
    """A network's layers: what each costs, and which can be compressed."""
    told = Output(as_json)
    with session(told) as opened:
        found = opened.client.layers(model)
        told.result(found, show.layers(found))


@models.command("upload")
def upload_model(
    file: Annotated[str, typer.Argument(help=options.NETWORK_FILES)],
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
    given = input_of(
        shape=shape,
        scale=scale,
        mean=mean,
        std=std,
        layout=layout,
        resize=resize,
        crop=crop,
        interpolation=interpolation,
    )
    told = Output(as_json)
    with session(told) as opened:
        opened.after_interrupt = "The same command again goes on where the upload was cut."
        found = send_model(opened, file, given, architecture, name)
        told.result(found, found.id)


add_delete(models, "model", "Delete networks that no job uses.", Client.delete_model)
add_list_and_show(datasets, IMAGES)


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


add_delete(datasets, "dataset", "Delete data sets that no job uses.", Client.delete_dataset)


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
