"""`basisconv batch`."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from basisconv_client.cli import exits, options, show
from basisconv_client.cli.compress import send_images, send_model
from basisconv_client.cli.output import Output, safe
from basisconv_client.cli.session import Session, session
from basisconv_client.resources import Batch
from basisconv_client.sources import is_id

app = typer.Typer(
    no_args_is_help=True, help="Many jobs as one: submit, watch, results, list, show, cancel, delete."
)

BatchId = Annotated[str, typer.Argument(help="batch_…", metavar="BATCH")]
OnError = Annotated[
    Literal["abort", "skip"] | None,
    typer.Option(help="abort: one line that is not valid, and none is started. skip: the others are."),
]


@app.command()
def submit(
    file: Annotated[str, typer.Argument(help=".jsonl with a job's body a line; .json with jobs or a grid.")],
    name: options.Name = None,
    on_error: OnError = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it has ended.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Queue many jobs. Where a body names a file instead of model_… or dataset_…, the file is sent first.

    Examples:

        basisconv batch submit sweep.jsonl --watch

        basisconv batch submit grid.json --name "half and a third"

    A line of sweep.jsonl, and a grid.json:

        {"model": "net.onnx", "dataset": "images.npz", "compression": {"target": {"macs": 0.5}}}

        {"models": ["a.onnx", "b.onnx"], "grid": {"compression.target.macs": [0.3, 0.5]}, "base": {"dataset": "images.npz"}}
    """  # noqa: E501 - a line of a file is one line
    told = Output(as_json)
    with session(told) as opened:
        opened.after_interrupt = "No batch was begun."
        text = Path(file).read_text()
        sent = _Sent(opened, Path(file).parent)
        if Path(file).suffix == ".json":
            body: Any = sent.body(json.loads(text))
            said = {"name": name, "on_error": on_error}
            made = opened.client.submit_batch(body | {n: v for n, v in said.items() if v is not None})
        else:
            lines = "\n".join(sent.line(line) for line in text.splitlines())
            made = opened.client.submit_batch_lines(lines, name=name, on_error=on_error)
        told.say(f"Batch [bold]{made.id}[/bold]: {made.counts.get('total', 0)} jobs")
        _tell_errors(told, made)
        if not watch:
            told.result(made, made.id)
            return
        ended = _follow(opened, made.id)
        told.result(ended, show.batches([ended]))
    raise typer.Exit(exits.DONE if ended.went_well else exits.FAILED)


@app.command()
def watch(batch: BatchId, as_json: options.AsJson = False) -> None:
    """Follow a batch until it has ended; 0 if every job succeeded, else 1."""
    told = Output(as_json)
    with session(told) as opened:
        ended = _follow(opened, batch)
        _tell_errors(told, ended)
        told.result(ended, show.batches([ended]))
    raise typer.Exit(exits.DONE if ended.went_well else exits.FAILED)


@app.command()
def results(
    batch: BatchId,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Write them as JSONL.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """What came of the jobs that have ended so far, side by side."""
    told = Output(as_json)
    with session(told) as opened:
        rows = opened.client.batch_results(batch)
        if output is not None:
            Path(output).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            told.say(f"The results are in [bold]{safe(output)}[/bold].")
        told.result(rows, show.batch_results(rows))


@app.command("list")
def list_batches(limit: options.Most = 20, as_json: options.AsJson = False) -> None:
    """Your batches, newest first."""
    told = Output(as_json)
    with session(told) as opened:
        found = list(islice(opened.client.batches(limit=min(limit, 100)), limit))
        told.result(found, show.batches(found))


@app.command("show")
def show_batch(batch: BatchId, as_json: options.AsJson = False) -> None:
    """One batch and how far it is."""
    told = Output(as_json)
    with session(told) as opened:
        found = opened.client.batch(batch)
        _tell_errors(told, found)
        told.result(found, show.batches([found]))


@app.command()
def cancel(batch: BatchId, as_json: options.AsJson = False) -> None:
    """Stop a batch: what waits at once, what runs within seconds."""
    told = Output(as_json)
    with session(told) as opened:
        found = opened.client.cancel_batch(batch)
        told.result(found, f"{found.id}: {found.status}")


@app.command()
def delete(batch: BatchId, as_json: options.AsJson = False) -> None:
    """Delete an ended batch with its jobs and their files."""
    told = Output(as_json)
    with session(told) as opened:
        opened.client.delete_batch(batch)
        told.result({"deleted": [batch]}, f"Deleted: {batch}.")


class _Sent:
    """Files that bodies name become ids, each sent once; a name is looked for beside the batch's own file."""

    def __init__(self, opened: Session, folder: Path) -> None:
        self._opened, self._folder = opened, folder
        self._ids: dict[tuple[str, str], str] = {}

    def line(self, line: str) -> str:
        """What is no JSON object goes as it is: the service tells its line."""
        try:
            found = json.loads(line)
        except ValueError:
            return line
        return json.dumps(self.job(found)) if isinstance(found, dict) else line

    def body(self, body: Any) -> dict[str, Any]:
        if not isinstance(body, dict):
            raise TypeError("The file holds no JSON object with `jobs`, or `models` and `grid`.")
        changed: dict[str, Any] = dict(body)
        if isinstance(body.get("jobs"), list):
            changed["jobs"] = [self.job(job) for job in body["jobs"]]
        if isinstance(body.get("models"), list):
            changed["models"] = [self._id("model", model) for model in body["models"]]
        if isinstance(body.get("base"), dict):
            changed["base"] = self.job(body["base"])
        return changed

    def job(self, job: Any) -> Any:
        if not isinstance(job, dict):
            return job
        return job | {kind: self._id(kind, job[kind]) for kind in ("model", "dataset") if job.get(kind)}

    def _id(self, kind: str, source: Any) -> Any:
        if not isinstance(source, str) or is_id(source, kind):
            return source
        if (kind, source) not in self._ids:
            path = str(self._folder / source)
            send: dict[str, Callable[[], str]] = {
                "model": lambda: send_model(self._opened, path, {}).id,
                "dataset": lambda: send_images(self._opened, path).id,
            }
            self._ids[kind, source] = send[kind]()
        return self._ids[kind, source]


def _follow(opened: Session, batch: str) -> Batch:
    """The batch once it has ended; its progress on a bar until then."""
    opened.after_interrupt = (
        f"The batch {batch} goes on. Watch it with `basisconv batch watch {batch}`, or end it with "
        f"`basisconv batch cancel {batch}`."
    )
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    output = opened.output
    with Progress(*columns, console=output.err, disable=not output.err.is_terminal) as bars:
        bar = bars.add_task("running", total=None)
        found: Batch | None = None
        for found in opened.client.watch_batch(batch):
            counts = found.counts
            ended = sum(counts.get(name, 0) for name in ("succeeded", "failed", "cancelled", "invalid"))
            bars.update(bar, description=found.status, completed=ended, total=counts.get("total"))
    if found is None:
        raise RuntimeError("a batch is looked at once at least")
    return found


def _tell_errors(told: Output, batch: Batch) -> None:
    for error in batch.errors:
        told.say(f"[yellow]Line {error.get('line')}:[/yellow] {safe(str(error.get('detail')))}")
