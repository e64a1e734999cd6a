"""What the commands do with a job: follow it, show what came of it, save its files."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import typer
from rich.progress import Progress, TaskID

from basisconv_client.cli import exits, show
from basisconv_client.cli.output import Output, safe
from basisconv_client.cli.session import Session
from basisconv_client.client import Client
from basisconv_client.resources import Artifact, Event, Job, Json

FORMATS: Final = {".onnx": "onnx", ".pt2": "pt2", ".safetensors": "safetensors"}
_ENDINGS: Final = {name: ending for ending, name in FORMATS.items()}


def format_of(into: str | None) -> str | None:
    """The format that a file's ending asks for; None for a folder or nothing. Raises BadParameter."""
    if into is None or is_folder(into):
        return None
    ending = Path(into).suffix.lower()
    if ending not in FORMATS:
        raise typer.BadParameter(
            f"-o {into}: the ending must be one of {', '.join(FORMATS)}, or it is a folder"
        )
    return FORMATS[ending]


def is_folder(into: str) -> bool:
    return into.endswith("/") or Path(into).is_dir()


def default_name(source: str, format_: str) -> str:
    """Where the smaller network goes when nobody said: beside nothing else of that name."""
    return f"{Path(source).stem}-compressed{_ENDINGS.get(format_, '')}"


def follow(opened: Session, job: Job) -> Job:
    """The job once it has ended, however; its progress on a bar until then."""
    opened.after_interrupt = goes_on(job.id)
    with opened.output.stages() as bars:
        bar = bars.add_task(job.status, total=1.0)
        for event in opened.client.events(job.id):
            _tell(event, bars, bar, opened.output)
        ended = opened.client.job(job.id)
        bars.update(bar, description=ended.status, completed=1.0 if ended.status == "succeeded" else None)
    opened.after_interrupt = f"The job has ended as {ended.status}: `basisconv jobs show {job.id}`."
    return ended


def goes_on(job: str) -> str:
    return (
        f"The job {job} goes on. Watch it with `basisconv jobs watch {job}`, take its files with "
        f"`basisconv jobs download {job}`, or end it with `basisconv jobs cancel {job}`."
    )


def _tell(event: Event, bars: Progress, bar: TaskID, output: Output) -> None:
    if event.type in ("stage", "progress"):
        bars.update(bar, description=safe(event.stage or "running"))
        if isinstance(fraction := event.data.get("fraction"), int | float):
            bars.update(bar, completed=fraction)
        if event.type == "stage" and not output.err.is_terminal:
            output.say(f"{safe(event.stage or 'running')} …")
    elif event.type == "warning":
        bars.console.print(f"[yellow]Note:[/yellow] {safe(event.message)}", soft_wrap=True)


def status_of(job: Job, *, strict: bool) -> int:
    """The exit status that an ended job stands for."""
    if job.status != "succeeded":
        return exits.FAILED
    missed = job.result is not None and not job.result.target_met
    return exits.MISSED if strict and missed else exits.DONE


def own_format(format_: str, exports: Sequence[str] | None) -> str:
    """What comes back for a network of this format: folders and bare weights come back as .pt2."""
    own = format_ if format_ in _ENDINGS else "pt2"
    return own if not exports or own in exports else exports[0]


def save(opened: Session, job: Job, into: str, wanted: str | None) -> list[Json]:
    """Download one format as the file `into`, or everything into the folder `into`."""
    found = opened.client.artifacts(job.id)
    if is_folder(into):
        Path(into).mkdir(parents=True, exist_ok=True)
        targets = {artifact: Path(into) / Path(artifact.name).name for artifact in found}
        return [_save(opened, artifact, target) for artifact, target in targets.items()]
    artifact = _pick(found, wanted or format_of(into), job)
    return [_save(opened, artifact, Path(into))]


def _pick(found: Iterable[Artifact], wanted: str | None, job: Job) -> Artifact:
    found = list(found)
    for artifact in found:
        if artifact.format == wanted:
            return artifact
    there = ", ".join(sorted({artifact.format for artifact in found})) or "none"
    raise ValueError(f"The job {job.id} made no file of the format {wanted}; it made: {there}.")


def _save(opened: Session, artifact: Artifact, target: Path) -> Json:
    with opened.output.transfer(target.name) as told:
        path = opened.client.download(artifact, target, told)
    opened.output.say(
        f"[bold]{safe(str(path))}[/bold]  {artifact.bytes:,} bytes, sha256 {artifact.sha256[:16]}… verified"
    )
    return {"path": str(path), "format": artifact.format, "bytes": artifact.bytes, "sha256": artifact.sha256}


def save_report(client: Client, job: str, file: Path) -> Json:
    """The HTML report as a file."""
    text = client.report(job).encode()
    fresh = file.with_name(f".{file.name}.part")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        fresh.write_bytes(text)
        fresh.replace(file)
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
    return {"path": str(file), "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}


def show_ended(output: Output, job: Job, more: Mapping[str, Any]) -> None:
    """The job as a table, or as JSON with what else there is to say."""
    parts: list[Any] = [show.job_lines(job)] if job.result is None else []
    if job.result is not None:
        parts = [show.before_and_after(job.result), show.verdict(job.result)]
    output.result({**job.json_object(), **more}, *parts)
