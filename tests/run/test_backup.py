"""A backup is made beside a running service and brought back into an empty place: nothing is missing, and
what is damaged or in the way is told before anything is lost."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app import example
from app.backup.archive import CONTENTS, back_up, bring_back
from app.backup.tools import BackupFailed
from app.core.settings import Settings
from app.embedded.folders import free_port
from app.storage.keys import object_key
from app.storage.store import Store, open_store
from tests.conftest import make_settings
from tests.run.test_launcher import Run
from tests.support.processes import wait_until
from tests.support.servers import Servers
from tests.worker.rows import add_job, add_model

SECONDS = 60
Sessions = sessionmaker[Session]


@pytest.fixture
def empty(servers: Servers, process_number: int, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a new service: a database without tables, and no object."""
    name = f"restored_{process_number}"
    url = servers.new_database(name, migrated=False)
    yield make_settings(url, "redis://127.0.0.1:1/0", tmp_path / "restored")
    servers.drop_database(name)


@pytest.fixture
def store(settings: Settings) -> Store:
    return open_store(settings.objects_url())


def _silent(_: str) -> None: ...


def _numbers(count: int, store: Store, sessions: Sessions) -> list[str]:
    hashes = [store.put_bytes(f"network {number}".encode()).sha256 for number in range(count)]
    for sha256 in hashes:
        add_job(sessions, add_model(sessions, sha256), status="succeeded")
    return hashes


def test_all_rows_and_objects_come_back(
    settings: Settings, empty: Settings, store: Store, sessions: Sessions, tmp_path: Path
) -> None:
    hashes = _numbers(5, store, sessions)
    store.put_bytes(b"of a job that was deleted")  # no row names it
    made = back_up(settings, tmp_path / "backup", _silent)
    assert (sorted(hashes), made.vanished, made.rows["jobs"]) == (made.objects, [], 5)
    back = bring_back(empty, tmp_path / "backup", _silent)
    assert back == made
    again = open_store(empty.objects_url())
    for number, sha256 in enumerate(hashes):
        assert b"".join(again.read(sha256, 0, 9)) == f"network {number}".encode()
    # The copy is as good as the first: a backup of it holds the same.
    copy = back_up(empty, tmp_path / "second", _silent)
    assert (copy.rows, copy.objects, copy.revision) == (made.rows, made.objects, made.revision)


def test_the_next_backup_copies_only_what_is_new_and_forgets_what_is_gone(
    settings: Settings, store: Store, sessions: Sessions, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    first = _numbers(2, store, sessions)
    back_up(settings, folder, _silent)
    before = {sha256: (folder / object_key(sha256)).stat().st_ino for sha256 in first}
    stale = folder / object_key("0" * 64)
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier backup")
    added = store.put_bytes(b"new").sha256
    add_model(sessions, added)
    again = back_up(settings, folder, _silent)
    assert again.objects == sorted([*first, added])
    assert {sha256: (folder / object_key(sha256)).stat().st_ino for sha256 in first} == before
    assert not stale.exists()


def test_an_object_that_was_deleted_meanwhile_is_named(
    settings: Settings, sessions: Sessions, tmp_path: Path
) -> None:
    add_model(sessions, "e" * 64)
    made = back_up(settings, tmp_path / "backup", _silent)
    assert (made.objects, made.vanished) == ([], ["e" * 64])


def test_a_used_database_is_not_overwritten(
    settings: Settings, store: Store, sessions: Sessions, tmp_path: Path
) -> None:
    _numbers(1, store, sessions)
    back_up(settings, tmp_path / "backup", _silent)
    with pytest.raises(BackupFailed, match="tables already"):
        bring_back(settings, tmp_path / "backup", _silent)


@pytest.mark.parametrize("harm", ["flipped", "missing", "no list"])
def test_a_damaged_backup_is_refused_before_a_row_comes_back(
    harm: str, settings: Settings, empty: Settings, store: Store, sessions: Sessions, tmp_path: Path
) -> None:
    (sha256,) = _numbers(1, store, sessions)
    folder = tmp_path / "backup"
    back_up(settings, folder, _silent)
    if harm == "flipped":
        (folder / object_key(sha256)).write_bytes(b"network X")
    elif harm == "missing":
        (folder / object_key(sha256)).unlink()
    else:
        (folder / CONTENTS).unlink()
    with pytest.raises(BackupFailed):
        bring_back(empty, folder, _silent)
    good = tmp_path / "good"
    back_up(settings, good, _silent)
    bring_back(empty, good, _silent)  # the place is still empty


def test_a_wrong_password_is_told_in_the_tools_own_words(settings: Settings, tmp_path: Path) -> None:
    from app.backup.tools import run

    url = settings.database_url.get_secret_value()
    wrong = url.replace(url.partition("://")[2].partition("@")[0].partition(":")[2], "wrong")
    with pytest.raises(BackupFailed, match="password authentication failed"):
        run("pg_dump", wrong, f"--file={tmp_path / 'dump'}")


# `make run`: from one var folder to another


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Path], Run]]:
    runs: list[Run] = []

    def begin(var: Path) -> Run:
        runs.append(Run(var, free_port(), tmp_path / f"console-{len(runs)}"))
        return runs[-1].wait_ready()

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.stop()


def _cli(var: Path, *arguments: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BASISCONV_")}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, arguments)],
        env=environment | {"BASISCONV_VAR_DIR": str(var)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_runs_jobs_keys_and_files_are_there_in_a_new_folder(
    start: Callable[[Path], Run], tmp_path: Path
) -> None:
    first = start(tmp_path / "var")
    with first.client() as client:
        job, artifact = _finished_job(client)
        content = client.get(f"/v1/artifacts/{artifact}/content").content
    assert "is whole: 1 jobs" in _cli(first.var, "backup", tmp_path / "backup")
    open_to_others = [p for p in (tmp_path / "backup").rglob("*") if p.is_file() and p.stat().st_mode & 0o077]
    assert [path.name for path in open_to_others if path.name not in (CONTENTS, "database.dump")] == []
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    first.stop()

    assert "is back: 1 jobs" in _cli(tmp_path / "new", "restore", tmp_path / "backup")
    second = start(tmp_path / "new")
    with second.client() as client:
        assert client.headers["Authorization"] == f"Bearer {(first.var / 'api-key').read_text().strip()}"
        again = client.get(f"/v1/jobs/{job}").json()
        assert again["status"] == "succeeded"
        assert client.get(f"/v1/artifacts/{artifact}/content").content == content
        assert client.get(f"/v1/jobs/{job}/report").status_code == 200
        assert client.get("/readyz").status_code == 200


def _finished_job(client: httpx.Client) -> tuple[str, str]:
    with example.NETWORK.open("rb") as file:
        answer = client.post("/v1/models", files={"file": file}, data={"input": json.dumps(example.INPUT)})
    model = answer.json()["id"]
    wait_until(lambda: client.get(f"/v1/models/{model}").json()["status"] == "ready", SECONDS)
    compression = {"target": {"macs": 0.5}, "basis": "weights"}
    job = client.post("/v1/jobs", json={"model": model, "compression": compression}).json()["id"]
    wait_until(lambda: client.get(f"/v1/jobs/{job}").json()["finished_at"], SECONDS)
    return job, client.get(f"/v1/jobs/{job}/artifacts").json()["data"][0]["id"]
