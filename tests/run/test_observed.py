"""What the real processes tell of themselves: figures of web, siblings and workers in one place, and logs in
which one id leads from a request to the last words of the child that it caused."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from app import example
from app.core.settings import Settings
from app.embedded.folders import free_port
from app.embedded.owner import owner_key
from app.embedded.processes import as_environment
from tests.api.test_metrics import HAS_GPU, value
from tests.conftest import make_settings
from tests.run.test_alerts import MANUAL, NAMED, RULES
from tests.support.processes import alive, wait_until
from tests.support.servers import Servers
from tests.support.service import Service, running_service

SECONDS = 60
LIMIT = 30  # requests a minute


@pytest.fixture(scope="module")
def service(
    servers: Servers, process_number: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Path]]:
    """A service that writes its logs as JSON, and the folder that they lie in."""
    folder = tmp_path_factory.mktemp("observed")
    name = f"observed_{process_number}"
    broker_url = servers.broker_url(4 + process_number)
    settings = make_settings(servers.new_database(name), broker_url, folder / "var", log_format="json")
    with running_service(settings, folder / "log") as running:
        yield running, folder / "log"
    servers.drop_database(name)


@pytest.fixture(scope="module")
def finished(service: tuple[Service, Path]) -> dict[str, Any]:
    """A job's document, with the id of the request that made it."""
    running, _ = service
    client = running.client
    with example.NETWORK.open("rb") as file:
        answer = client.post("/v1/models", files={"file": file}, data={"input": json.dumps(example.INPUT)})
    model = answer.json()["id"]
    wait_until(lambda: client.get(f"/v1/models/{model}").json()["status"] == "ready", SECONDS)
    body = {"model": model, "compression": {"target": {"macs": 0.5}, "basis": "weights"}, "exports": ["onnx"]}
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 201, answer.text
    job = answer.json()["id"]
    wait_until(lambda: client.get(f"/v1/jobs/{job}").json()["finished_at"], SECONDS)
    document: dict[str, Any] = client.get(f"/v1/jobs/{job}").json()
    assert document["status"] == "succeeded", document["error"]
    return document | {"request_id": answer.headers["x-request-id"]}


def _lines(log: Path) -> list[dict[str, Any]]:
    """Every line of a log; one that is no JSON object fails here."""
    found = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(isinstance(line, dict) for line in found)
    return found


def test_one_request_id_leads_from_the_web_process_to_the_childs_own_words(
    service: tuple[Service, Path], finished: dict[str, Any]
) -> None:
    _, logs = service
    told = {
        line["event"]: line
        for name in ("web", "worker-jobs")
        for line in _lines(logs / f"{name}.log")
        if line.get("request_id") == finished["request_id"]
    }
    expected = {"request", "job.created", "attempt.started", "stage.finished", "child.said", "job.ended"}
    assert expected <= set(told)
    assert told["request"]["route"] == "/v1/jobs"
    assert told["request"]["key_id"].startswith("key_")
    assert (told["request"]["process"], told["job.ended"]["process"]) == ("web", "worker")
    in_the_worker = expected - {"request", "job.created"}
    assert len({told[event]["task_id"] for event in in_the_worker}) == 1
    for event in expected - {"request"}:
        assert told[event]["job_id"] == finished["id"], event
    said = told["child.said"]
    assert (said["said"], said["by"], said["fields"]["device"]) == ("work.opened", "worker.pipeline", "cpu")
    assert said["child_pid"] != said["pid"]


def test_no_log_holds_a_secret(service: tuple[Service, Path], finished: dict[str, Any]) -> None:
    running, logs = service
    assert finished["status"] == "succeeded"
    secrets = [
        running.key,
        running.settings.secret_key.get_secret_value(),
        httpx.URL(running.settings.broker_url.get_secret_value().replace("+socket", "")).password,
    ]
    for log in logs.iterdir():
        text = log.read_text()
        assert [secret for secret in secrets if secret and secret in text] == [], log.name


def test_the_workers_figures_are_at_the_webs_address(
    service: tuple[Service, Path], finished: dict[str, Any]
) -> None:
    running, _ = service
    assert finished["status"] == "succeeded"
    text = ""

    def told() -> bool:
        nonlocal text
        text = running.client.get("/metrics").text
        return value(text, "basisconv_jobs_ended_total", status="succeeded") == 1

    wait_until(told, 30)  # workers tell every 5 s
    assert value(text, "basisconv_inspections_ended_total", kind="model", status="ready") == 1
    assert value(text, "basisconv_stage_seconds_count", stage="verify") == 1
    assert (value(text, "basisconv_stage_seconds_sum", stage="verify") or 0) > 0
    assert value(text, "basisconv_attempt_seconds_count", work="job", ending="result") == 1
    assert value(text, "basisconv_wait_seconds_count", work="job") == 1
    assert value(text, "basisconv_worker_up", queues="jobs") == 1
    assert value(text, "basisconv_worker_up", queues="quick") == 1
    network_bytes = example.NETWORK.stat().st_size
    assert value(text, "basisconv_upload_bytes_total", kind="model") == network_bytes
    assert (value(text, "basisconv_http_requests_total", route="/v1/jobs", method="POST") or 0) == 1


def test_every_figure_that_an_alert_or_the_manual_names_is_told(service: tuple[Service, Path]) -> None:
    running, _ = service
    named = {name for rule in RULES for name in NAMED.findall(rule["expr"])} | set(NAMED.findall(MANUAL))
    assert named
    missing = {name for name in named if HAS_GPU or not name.startswith("basisconv_gpu_")}

    def all_told() -> bool:
        families = text_string_to_metric_families(running.client.get("/metrics").text)
        missing.difference_update(name for family in families for name in _names(family))
        return not missing

    with contextlib.suppress(TimeoutError):
        wait_until(all_told, 20)  # workers tell every 5 s
    assert missing == set()


def _names(family: Metric) -> set[str]:
    """As a query may name it, also while it has no samples yet."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {family.name, *(family.name + suffix for suffix in suffixes.get(family.type, ()))}


def test_the_labels_by_which_an_alert_chooses_exist(
    service: tuple[Service, Path], finished: dict[str, Any]
) -> None:
    running, _ = service
    assert finished["status"] == "succeeded"
    chosen = re.compile(r"(basisconv_\w+)\{([^}]+)\}")
    label = re.compile(r"(\w+)(?:=~|!~|!=|=)")
    wanted = {
        (name, one)
        for rule in RULES
        for name, inside in chosen.findall(rule["expr"])
        for one in label.findall(re.sub(r'"[^"]*"', '""', inside))
    }
    assert wanted

    missing = set(wanted)

    def all_told() -> bool:
        families = text_string_to_metric_families(running.client.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        missing.difference_update((sample.name, one) for sample in samples for one in sample.labels)
        return not missing

    with contextlib.suppress(TimeoutError):
        wait_until(all_told, 20)
    assert missing == set()


def test_a_worker_that_stops_in_order_says_so_and_its_counts_stay(
    settings: Settings, worker_process: Callable[..., Any]
) -> None:
    from app.core.board import Board

    worker = worker_process("quick")
    board = Board(settings.broker_url.get_secret_value())
    wait_until(board.read, 10)
    worker.stop()
    (sheet,) = board.read()
    board.close()
    assert value(sheet.text, "basisconv_worker_up", queues="quick") == 0


@pytest.fixture(scope="module")
def siblings(
    servers: Servers, process_number: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, Callable[[], list[int]]]]:
    """Two web processes behind one port, and how to ask for their ids."""
    folder = tmp_path_factory.mktemp("siblings")
    name = f"siblings_{process_number}"
    broker_url = servers.broker_url(12 + process_number)
    settings = make_settings(servers.new_database(name), broker_url, folder / "var")
    port = free_port()
    key = owner_key(settings)
    with (folder / "web.log").open("wb") as log:
        parent = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app.asgi:app", "--port", str(port), "--workers", "2"],
            env=as_environment(settings, os.environ),
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def pids() -> list[int]:
        children = [child for child in psutil.Process(parent.pid).children() if alive(child.pid)]
        return [child.pid for child in children if any("spawn_main" in part for part in child.cmdline())]

    url = f"http://127.0.0.1:{port}"
    # A connection stays with one process: none is kept, so that both are asked.
    limits = httpx.Limits(max_keepalive_connections=0)
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, limits=limits, timeout=30) as client:
        wait_until(lambda: _both_serve(client), SECONDS)
        yield client, pids
    parent.send_signal(signal.SIGTERM)
    parent.wait(30)
    servers.drop_database(name)


def _both_serve(client: httpx.Client) -> bool:
    """Each of them has told of its 40 threads."""
    try:
        return value(client.get("/metrics").text, "basisconv_threads_most") == 80
    except httpx.TransportError:
        return False


def test_a_limit_of_requests_holds_for_all_processes_together(
    siblings: tuple[httpx.Client, Callable[[], list[int]]],
) -> None:
    client, _ = siblings
    made = client.post("/v1/keys", json={"name": "often", "limits": {"requests_per_minute": LIMIT}}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    began = time.monotonic()
    answers = [client.get("/v1/jobs", headers=headers) for _ in range(2 * LIMIT)]
    paid_meanwhile = int((time.monotonic() - began) * LIMIT / 60) + 1
    allowed = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert LIMIT <= len(allowed) <= LIMIT + paid_meanwhile
    # What is left is told alike, whichever is asked: it goes down by one each time.
    left = [int(answer.headers["ratelimit"].split(";")[1].removeprefix("r=")) for answer in allowed[:10]]
    assert left == list(range(LIMIT - 1, LIMIT - 11, -1))


def test_whichever_process_is_asked_tells_what_all_have_counted(
    siblings: tuple[httpx.Client, Callable[[], list[int]]],
) -> None:
    client, pids = siblings
    for _ in range(40):
        assert client.get("/v1/models").status_code == 200
    told = [_answered(client) for _ in range(10)]
    assert told == [40] * 10
    assert (value(client.get("/metrics").text, "basisconv_resident_bytes") or 0) > 1e8

    victim = pids()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not alive(victim) and len(pids()) == 2 and victim not in pids(), SECONDS)
    told = [_answered(client) for _ in range(10)]
    assert told == [40] * 10  # what the dead one counted stays: a counter that falls reads as a new one
    wait_until(lambda: _both_serve(client), SECONDS)


def _answered(client: httpx.Client) -> float | None:
    text = client.get("/metrics").text
    return value(text, "basisconv_http_requests_total", route="/v1/models", method="GET", status="200")


def test_what_an_earlier_run_counted_is_swept_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (folder / f"counter_{gone.pid}.db").write_bytes(b"")
    code = (
        "import sys; from pathlib import Path; from app.core.multiprocess import share_counters\n"
        "share_counters(Path(sys.argv[1])); from prometheus_client import values\n"
        "print(values.ValueClass._multiprocess)"
    )
    shared = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert shared.stdout.strip() == "True"
    assert list(folder.iterdir()) == []


def test_naming_the_folder_too_late_is_an_error(tmp_path: Path) -> None:
    from app.core.multiprocess import share_counters

    with pytest.raises(RuntimeError, match="before"):  # this process has imported prometheus_client
        share_counters(tmp_path)
