"""The run as a page: each figure beside its bare baseline."""

from collections.abc import Mapping
from typing import Any, Final

GOAL_START_MS: Final = 150

Figures = Mapping[str, Any]


def text(figures: Figures) -> str:
    load, bare, start = figures["load"], figures["bare"], figures["start"]
    parts = [
        "# The service under load",
        _about(figures),
        _table(
            "requests",
            *(_row(name, quantiles) for name, quantiles in load["kinds"].items()),
            _row("**all**", load["all"]),
            _row("bare Starlette, same rate", bare["all"]),
        ),
        _found(figures),
        _cost(figures["cost"]),
        _table(
            "from submission to start, idle worker",
            _row(f"a job, over REST (goal {GOAL_START_MS} ms)", start["job"]),
            _row("a bare Celery task on the same broker", start["bare Celery task"]),
        ),
        _upload(figures["upload"]),
    ]
    return "\n\n".join(parts) + "\n"


def _about(figures: Figures) -> str:
    asked, machine = figures["asked"], figures["machine"]
    return (
        f"`make bench-service`: {asked['rate']:g} requests a second for {asked['seconds']:g} s, with "
        f"{asked['old']:,} ended and {asked['queued']:,} queued jobs in the table, {asked['streams']} event "
        f"streams open and ten events a second; {_processes(asked)}. Open loop: a latency counts from the "
        "moment at which the request was to be sent. Web, PostgreSQL (with fsync), Valkey and the generator "
        "share "
        f"{figures['cores']} cores ({machine['processor']}, Python {machine['python']}), which others kept "
        f"busy with a load of {figures['busy_before']:.1f} before."
    )


def _processes(asked: Figures) -> str:
    return "one web process" if asked["web_processes"] == 1 else f"{asked['web_processes']} web processes"


def _found(figures: Figures) -> str:
    asked, load, bare = figures["asked"], figures["load"], figures["bare"]
    streams, memory = load["streams"], load["resident_bytes"]
    megabytes = {when: f"{size / 1e6:.0f} MB" for when, size in memory.items()}
    errors = (
        f"Errors: {load['errors']} of {load['requests'] + load['errors']:,} (bare: {bare['errors']}). "
        + " ".join(load["first_errors"])
    )
    resident = (
        f"Memory of the web process: {megabytes['begin']} at the begin, {megabytes['end']} at the end, "
        f"{megabytes['most']} at most; it took {load['cores_of_web']:.2f} cores."
    )
    events = (
        f"Event streams: {streams['open']} of {asked['streams']} open to the end; {streams['events']:,} "
        f"events, from the row to the reader {_p(streams, 50)} ms (p99 {_p(streams, 99)} ms)."
    )
    generator = (
        f"The generator was at most {load['generator_late_ms']:g} ms behind its own schedule (bare: "
        f"{bare['generator_late_ms']:g} ms)."
    )
    sentences = (errors, resident, events, generator)
    return "\n".join(f"- {sentence.rstrip()}" for sentence in sentences)


def _cost(cost: Mapping[str, float]) -> str:
    rows = [f"| {name} | {milliseconds:.1f} |" for name, milliseconds in cost.items()]
    head = "| processor time of the web, one request at a time | ms |\n| --- | ---: |"
    return "\n".join([head, *rows])


def _table(what: str, *rows: str) -> str:
    head = f"| {what} | number | p50, ms | p99, ms | most, ms |\n| --- | ---: | ---: | ---: | ---: |"
    return "\n".join([head, *rows])


def _row(name: str, found: Figures) -> str:
    most = f"{found['most_ms']:.1f}" if found else "–"
    return f"| {name} | {found.get('count', 0):,} | {_p(found, 50)} | {_p(found, 99)} | {most} |"


def _p(quantiles: Figures, share: int) -> str:
    value = quantiles.get(f"p{share}_ms")
    return "–" if value is None else f"{value:.1f}"


def _upload(upload: Figures) -> str:
    speed, ratio = upload["megabytes_per_second"], upload["ratio_to_cp"]
    rows = [f"| as {way} | {speed[way]:.0f} | {ratio[way]:.2f} |" for way in ratio]
    head = f"| an upload of {upload['bytes'] / 1e6:.0f} MB | MB/s | of `cp` |\n| --- | ---: | ---: |"
    return "\n".join([head, *rows, f"| `cp` | {speed['cp']:.0f} | 1 |"])
