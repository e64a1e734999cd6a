"""Resources as tables and sentences."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.table import Table

from basisconv_client.cli.output import safe
from basisconv_client.resources import Batch, Dataset, Figures, Job, Layer, Model, Plan, Result

NOTHING: Final = "–"
_COUNTS: Final = ("total", "queued", "running", "succeeded", "failed", "cancelled", "invalid")


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]], *, numbers: int = 0) -> Table:
    """Plain columns; the last `numbers` of them stand to the right. No rows are said in words."""
    made = Table(title=title or None, title_justify="left", caption=None if rows else "None.")
    for index, heading in enumerate(headings):
        right = index >= len(headings) - numbers
        made.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=right)
    for row in rows:
        made.add_row(*(safe(NOTHING if cell is None else str(cell)) for cell in row))
    return made


def before_and_after(result: Result) -> Table:
    """The three networks of a job beside each other."""
    columns = {"original": result.original, "truncated": result.truncated, "compressed": result.compressed}
    given = {name: figures for name, figures in columns.items() if figures is not None}
    rows = {
        "accuracy": [percent(figures.accuracy) for figures in given.values()],
        "agreement": [percent(figures.agreement) for figures in given.values()],
        "MACs": _counts(given, "macs"),
        "parameters": _counts(given, "params"),
        "file bytes": _counts(given, "bytes"),
        "latency, batch 1": [_latency(figures, "batch_1") for figures in given.values()],
        "latency, batch 32": [_latency(figures, "batch_32") for figures in given.values()],
    }
    kept = [[name, *cells] for name, cells in rows.items() if set(cells) != {NOTHING}]
    return table("Before and after", ["", *given], kept, numbers=len(given))


def verdict(result: Result) -> str:
    met = "[green]met[/green]" if result.target_met else "[yellow]missed[/yellow]"
    return f"Target {met}; measured on {safe(result.device)}."


def jobs(rows: Sequence[Job]) -> Table:
    headings = ["job", "status", "name", "model", "made", "progress"]
    return table("", headings, [[j.id, j.status, j.name, j.model, when(j.created_at), _far(j)] for j in rows])


def models(rows: Sequence[Model]) -> Table:
    cells = [
        [m.id, m.status, m.name, m.format, size(m.bytes), *_summary(m)]
        for m in rows
    ]  # fmt: skip
    return table("", ["network", "status", "name", "format", "size", "MACs", "parameters"], cells, numbers=3)


def layers(rows: Sequence[Layer]) -> Table:
    cells = [
        [x.name, x.kind, x.reason, f"{x.macs:,}", f"{x.params:,}", x.max_rank, x.break_even_rank]
        for x in rows
    ]
    headings = ["layer", "kind", "stays because", "MACs", "parameters", "full rank", "pays below"]
    return table("", headings, cells, numbers=4)


def datasets(rows: Sequence[Dataset]) -> Table:
    cells = [
        [
            d.id,
            d.status,
            d.name,
            size(d.bytes),
            None if d.examples is None else f"{d.examples.train:,}",
            None if d.examples is None else f"{d.examples.test:,}",
            d.classes,
        ]
        for d in rows
    ]
    return table("", ["images", "status", "name", "size", "train", "test", "classes"], cells, numbers=4)


def plan(found: Plan) -> Table:
    cells = [
        [
            x.name,
            x.form if x.replaced else f"stays ({x.reason})" if x.reason else "stays",
            x.rank if x.replaced else None,
            f"{x.macs_before:,}",
            f"{x.macs:,}",
        ]
        for x in found.layers
    ]
    return table("", ["layer", "becomes", "rank", "MACs before", "MACs after"], cells, numbers=3)


def expectation(found: Plan) -> str:
    """What to expect of a plan, in one sentence."""
    before, after = found.original or {}, found.predicted or {}
    if not before or not after:
        return "No smaller network was found."
    said = [
        f"{ratio(after.get(n), before.get(n))} of the {w}"
        for n, w in (("macs", "MACs"), ("params", "parameters"))
    ]
    if after.get("agreement") is not None:
        said.append(f"{percent(after['agreement'])} of the images answered as before")
    if after.get("accuracy_drop") is not None:
        said.append(f"{100 * after['accuracy_drop']:.2f} points of accuracy lost")
    return f"Expected before any fine-tuning: {', '.join(said)}."


def job_lines(job: Job) -> str:
    """A job that has no result."""
    said = f"{job.id}: {safe(job.status)}"
    if job.stage and not job.ended:
        said += f", {safe(job.stage)}, {job.progress.fraction:.0%}"
    if job.error:
        said += f"\n{safe(str(job.error.get('code')))}: {safe(str(job.error.get('detail')))}"
        said += f" {safe(str(job.error['hint']))}" if job.error.get("hint") else ""
    return said


def warnings(job: Job | Plan) -> list[str]:
    return [f"[yellow]Note:[/yellow] {safe(warning.detail)}" for warning in job.warnings]


def described(model: Model) -> str:
    summary = model.summary
    said = f"Network [bold]{safe(model.name)}[/bold] ({model.id})"
    if summary is None:
        return f"{said}: {safe(model.status)}"
    return (
        f"{said}: {summary.macs:,} MACs, {summary.params:,} parameters, "
        f"{summary.compressible} of {summary.layers} layers compressible"
    )


def described_images(dataset: Dataset) -> str:
    said = f"Images [bold]{safe(dataset.name)}[/bold] ({dataset.id})"
    if dataset.examples is None:
        return f"{said}: {safe(dataset.status)}"
    kinds = "no labels" if not dataset.labelled else f"{dataset.classes} classes"
    return f"{said}: {dataset.examples.train:,} to learn from, {dataset.examples.test:,} to judge by, {kinds}"


def batches(rows: Sequence[Batch]) -> Table:
    cells = [
        [b.id, b.status, b.name, when(b.created_at), *(b.counts.get(n, 0) for n in _COUNTS)] for b in rows
    ]
    return table("", ["batch", "status", "name", "made", *_COUNTS], cells, numbers=len(_COUNTS))


def batch_results(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What came of each line, side by side."""
    headings = ["line", "job", "status", "target", "of the MACs", "accuracy", "was"]
    return table("", headings, [_batch_row(row) for row in rows], numbers=3)


def _batch_row(row: Mapping[str, Any]) -> list[Any]:
    result = row.get("result") or {}
    after, before = result.get("compressed") or {}, result.get("original") or {}
    error = row.get("error") or {}
    met = error.get("code")
    if "target_met" in result:
        met = "met" if result["target_met"] else "missed"
    figures = [ratio(after.get("macs"), before.get("macs"))]
    figures += [percent(figure.get("accuracy")) for figure in (after, before)]
    return [row.get("line"), row.get("id"), row.get("status"), met, *figures]


def rejection(found: Model | Dataset) -> list[str]:
    """Why an upload cannot be used."""
    if not found.error:
        return []
    said = f"{found.error.get('code')}: {found.error.get('detail')} {found.error.get('hint') or ''}"
    return [f"[red]{safe(said.strip())}[/red]"]


def percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2%}"


def ratio(value: Any, before: Any) -> str:
    return NOTHING if value is None or not before else f"{value / before:.1%}"


def size(value: float | None) -> str:
    """Bytes in powers of 1000."""
    if value is None:
        return NOTHING
    for step, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= step:
            return f"{value / step:.1f} {unit}"
    return f"{value:.0f} B"


def when(moment: datetime | None) -> str:
    return NOTHING if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _counts(figures: Mapping[str, Figures], name: str) -> list[str]:
    before = getattr(figures["original"], name)
    return [_count(getattr(column, name), before) for column in figures.values()]


def _count(value: float | None, before: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,}" if not before or value == before else f"{value:,} ({value / before:.0%})"


def _latency(figures: Figures, name: str) -> str:
    value = (figures.latency_ms or {}).get(name)
    return NOTHING if value is None else f"{value:.3f} ms"


def _summary(model: Model) -> list[str | None]:
    return [None, None] if model.summary is None else [f"{model.summary.macs:,}", f"{model.summary.params:,}"]


def _far(job: Job) -> str:
    return NOTHING if job.status in ("failed", "cancelled") else f"{job.progress.fraction:.0%}"
