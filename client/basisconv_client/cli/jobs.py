"""`basisconv jobs`."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from basisconv_client.cli import options, running, show
from basisconv_client.cli.listing import add_delete
from basisconv_client.cli.output import Output
from basisconv_client.cli.session import session
from basisconv_client.client import Client

app = typer.Typer(no_args_is_help=True, help="Jobs: list, show, watch, cancel, download, report, delete.")

JobId = Annotated[str, typer.Argument(help="job_…", metavar="JOB")]


@app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="Only jobs in this state, such as running.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only jobs of this batch.")] = None,
    limit: options.Most = 20,
    as_json: options.AsJson = False,
) -> None:
    """Your jobs, newest first."""
    told = Output(as_json)
    with session(told) as opened:
        found = list(islice(opened.client.jobs(status=status, batch=batch, limit=min(limit, 100)), limit))
        told.result(found, show.jobs(found))


@app.command("show")
def show_job(job: JobId, as_json: options.AsJson = False) -> None:
    """One job as it stands, with its table of before and after once it has succeeded."""
    told = Output(as_json)
    with session(told) as opened:
        found = opened.client.job(job)
        running.show_ended(told, found, {})
        for warning in show.warnings(found):
            told.say(warning)


@app.command()
def watch(job: JobId, strict: options.Strict = False, as_json: options.AsJson = False) -> None:
    """Follow a job until it has ended; the exit status says how it did."""
    told = Output(as_json)
    with session(told) as opened:
        ended = running.follow(opened, opened.client.job(job))
        running.show_ended(told, ended, {})
    raise typer.Exit(running.status_of(ended, strict=strict))


@app.command()
def cancel(job: JobId, as_json: options.AsJson = False) -> None:
    """Stop a job; asking again is no error."""
    told = Output(as_json)
    with session(told) as opened:
        found = opened.client.cancel(job)
        told.result(found, f"{found.id}: {found.status}")


@app.command()
def download(
    job: JobId,
    output: options.Into = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="onnx, pt2 or safetensors; left out, the ending of -o says it."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Save a job's files, each with its SHA-256 verified; a download that was cut goes on.

    Examples:

        basisconv jobs download job_01k… -o small.onnx

        basisconv jobs download job_01k… -o folder/
    """
    if output is not None and format_ is None:
        running.format_of(output)  # an ending that says nothing is told before anything is asked
    told = Output(as_json)
    with session(told) as opened:
        opened.after_interrupt = "The same command again goes on where the download was cut."
        found = opened.client.job(job)
        into = output or (running.default_name(found.id, format_) if format_ else f"{found.id}/")
        files = running.save(opened, found, into, format_)
        told.result(files)


@app.command()
def report(
    job: JobId,
    output: Annotated[str | None, typer.Option("--output", "-o", help="The HTML file.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Save a job's report as one self-contained HTML file."""
    told = Output(as_json)
    with session(told) as opened:
        saved = running.save_report(opened.client, job, Path(output or f"{job}.html"))
        told.result(saved, f"{saved['path']}  {saved['bytes']:,} bytes")


add_delete(app, "job", "Delete ended jobs with their files.", Client.delete_job)
