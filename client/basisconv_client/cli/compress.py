"""`basisconv compress` and `basisconv plan`."""

import json
import sys
from pathlib import Path
from typing import Any, cast

import typer

from basisconv_client.cli import exits, options, running, show
from basisconv_client.cli.output import Output, safe
from basisconv_client.cli.session import Session, session
from basisconv_client.resources import Dataset, Model
from basisconv_client.sources import is_id
from basisconv_client.wishes import TARGETS, CompressionWishes, InputWishes, Wishes


def compress(
    model: options.Network,
    data: options.Data = None,
    macs: options.Macs = None,
    params: options.Params = None,
    latency: options.Latency = None,
    accuracy_drop: options.AccuracyDrop = None,
    energy: options.Energy = None,
    rank_fraction: options.RankFraction = None,
    expansion: options.Expansion = None,
    ranks: options.Ranks = None,
    output: options.Into = None,
    exports: options.Exports = None,
    report: options.Report = None,
    strict: options.Strict = False,
    no_wait: options.NoWait = False,
    epochs: options.Epochs = None,
    objective: options.Objective = None,
    update: options.Update = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    augment: options.Augment = None,
    seed: options.Seed = None,
    patience: options.Patience = None,
    limit_accuracy_drop: options.LimitAccuracyDrop = None,
    limit_learnable_params: options.LimitLearnable = None,
    basis: options.Basis = None,
    forms: options.Forms = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    rank_multiple: options.RankMultiple = None,
    kind: options.Kind = None,
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
    """Make a network smaller: upload, compress, show before and after, download.

    A file that is on the server already is not sent again. Ctrl-C leaves the job running, and says how to go
    on with it.

    Examples:

        basisconv compress net.onnx --data images.npz --macs 0.5 -o small.onnx

        basisconv compress net.pt2 -d photos.zip --accuracy-drop 0.01 --epochs 5 --mean 0.5 --std 0.25

        basisconv compress model_01k… --data dataset_01k… --latency 0.7 --strict --json > job.json
    """
    wanted = running.format_of(output)
    made = options.words(exports)
    if wanted and made and wanted not in made:
        raise typer.BadParameter(
            f"-o {output} needs the format {wanted}, which --exports {exports} leaves out"
        )
    wishes = cast(
        Wishes,
        given(
            kind=kind,
            macs=macs,
            params=params,
            latency=latency,
            accuracy_drop=accuracy_drop,
            energy=energy,
            rank_fraction=rank_fraction,
            expansion=expansion,
            ranks=read_ranks(ranks),
            basis=basis,
            forms=forms,
            include=include,
            exclude=exclude,
            rank_multiple=rank_multiple,
            epochs=epochs,
            objective=objective,
            update=update,
            batch_size=batch_size,
            learning_rate=learning_rate,
            augment=augment,
            seed=seed,
            patience=patience,
            limit_accuracy_drop=limit_accuracy_drop,
            limit_learnable_params=limit_learnable_params,
            exports=made,
            name=name,
        ),
    )
    check_target(wishes)
    input_ = input_of(
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
        opened.after_interrupt = (
            "No job was begun. The same command again goes on with the upload where it was cut."
        )
        network = send_model(opened, model, input_, architecture)
        images = None if data is None else send_images(opened, data)
        job = opened.client.create_job(network, images, **wishes)
        told.say(f"Job [bold]{job.id}[/bold]: {safe(opened.client.server)}/jobs/{job.id}")
        if no_wait:
            told.result(job, job.id)
            return
        ended = running.follow(opened, job)
        more: dict[str, Any] = {}
        if ended.status == "succeeded":
            wanted = wanted or running.own_format(network.format, made)
            into = output or running.default_name(network.name if is_id(model, "model") else model, wanted)
            more["files"] = running.save(opened, ended, into, wanted)
        if report is not None:
            more["report"] = running.save_report(opened.client, ended.id, Path(report))
        running.show_ended(told, ended, more)
    raise typer.Exit(running.status_of(ended, strict=strict))


def plan(
    model: options.Network,
    data: options.Data = None,
    macs: options.Macs = None,
    params: options.Params = None,
    latency: options.Latency = None,
    accuracy_drop: options.AccuracyDrop = None,
    energy: options.Energy = None,
    rank_fraction: options.RankFraction = None,
    ranks: options.Ranks = None,
    output: str | None = typer.Option(
        None, "--output", "-o", help="Write the ranks as JSON, to edit and to give to `compress --ranks`."
    ),
    basis: options.Basis = None,
    forms: options.Forms = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    rank_multiple: options.RankMultiple = None,
    shape: options.Shape = None,
    scale: options.Scale = None,
    mean: options.Mean = None,
    std: options.Std = None,
    layout: options.Layout = None,
    resize: options.Resize = None,
    crop: options.Crop = None,
    interpolation: options.Interpolation = None,
    architecture: options.Architecture = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what a job would do to every layer, and what to expect of it, without doing it.

    Examples:

        basisconv plan net.onnx --data images.npz --macs 0.5

        basisconv plan net.onnx --data images.npz --macs 0.5 -o ranks.json

        basisconv compress net.onnx --data images.npz --ranks ranks.json -o small.onnx
    """
    wishes = cast(
        CompressionWishes,
        given(
            macs=macs,
            params=params,
            latency=latency,
            accuracy_drop=accuracy_drop,
            energy=energy,
            rank_fraction=rank_fraction,
            ranks=read_ranks(ranks),
            basis=basis,
            forms=forms,
            include=include,
            exclude=exclude,
            rank_multiple=rank_multiple,
        ),
    )
    check_target(wishes)
    input_ = input_of(
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
        network = send_model(opened, model, input_, architecture)
        images = None if data is None else send_images(opened, data)
        with told.err.status("Measuring the network …"):
            found = opened.client.plan(network, images, **wishes)
        told.result(found, show.plan(found), show.expectation(found), *show.warnings(found))
        if not found.feasible:
            told.say(f"The target cannot be reached; the smallest share that can: {found.achievable}.")
            raise typer.Exit(exits.FAILED)
        if output is not None:
            Path(output).write_text(json.dumps(found.ranks, indent=1) + "\n")
            told.say(f"The ranks are in [bold]{safe(output)}[/bold].")


def send_model(
    opened: Session,
    source: str,
    input_: InputWishes,
    architecture: str | None = None,
    name: str | None = None,
) -> Model:
    """A network that is ready, from a file or an id."""
    with opened.output.transfer(Path(source).name) as told:
        found = opened.client.ready_model(
            source, name=name, input=input_, architecture=architecture, progress=told
        )
    opened.output.say(show.described(found))
    return found


def send_images(
    opened: Session, source: str, name: str | None = None, classes: dict[str, int] | None = None
) -> Dataset:
    """Images that are ready, from a file or an id."""
    with opened.output.transfer(Path(source).name) as told:
        found = opened.client.ready_dataset(source, name=name, classes=classes, progress=told)
    opened.output.say(show.described_images(found))
    return found


def input_of(
    *,
    shape: str | None,
    scale: float | None,
    mean: str | None,
    std: str | None,
    layout: str | None,
    resize: int | None,
    crop: int | None,
    interpolation: str | None,
) -> InputWishes:
    """The options about the input that were given."""
    sides = options.numbers("--shape", shape)
    found = given(
        shape=None if sides is None else [int(side) for side in sides],
        scale=scale,
        mean=options.numbers("--mean", mean),
        std=options.numbers("--std", std),
        layout=layout,
        resize=resize,
        crop=crop,
        interpolation=interpolation,
    )
    return cast(InputWishes, found)


def given(**said: Any) -> dict[str, Any]:
    """Those of a command's options that were given."""
    return {name: value for name, value in said.items() if value not in (None, [])}


def check_target(wishes: Any) -> None:
    """Exactly one target, before anything is sent."""
    targets = [name for name in TARGETS if wishes.get(name) is not None]
    if len(targets) != 1:
        flags = ", ".join("--" + name.replace("_", "-") for name in TARGETS)
        got = " and ".join("--" + name.replace("_", "-") for name in targets) or "none"
        raise typer.BadParameter(f"give exactly one target of {flags}; got {got}")


def read_ranks(source: str | None) -> Any:
    """The ranks of a JSON file."""
    if source is None:
        return None
    try:
        found = json.loads(sys.stdin.read() if source == "-" else Path(source).read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--ranks {source}: {error}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f'--ranks {source}: expected {{"layer": rank}}')
    return found
