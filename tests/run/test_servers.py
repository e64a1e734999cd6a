"""The embedded servers: closed to strangers, one per folder, gone with their parent."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine, inspect

from app.embedded import folders
from app.embedded.children import wait_ready
from app.embedded.postgres import Postgres
from app.embedded.valkey import Valkey
from tests.support.processes import alive, wait_until
from tests.support.servers import Servers


def test_the_template_has_the_migrated_tables(engine: Engine) -> None:
    assert {"models", "datasets", "jobs", "alembic_version"} <= set(inspect(engine).get_table_names())


def test_postgres_refuses_a_wrong_password(servers: Servers, database_url: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(database_url.replace("+psycopg", "").replace(servers.role_password, "guess"))


def test_valkey_refuses_a_stranger(broker_url: str) -> None:
    port = redis.Redis.from_url(broker_url).connection_pool.connection_kwargs["port"]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=port, retry=Retry(NoBackoff(), 0)).ping()


def test_no_secret_shows_in_the_process_list(servers: Servers) -> None:
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    valkey_password = servers.valkey_base.split(":")[2].split("@")[0]
    assert not [
        secret
        for secret in (servers.admin_password, servers.role_password, valkey_password)
        if secret in shown
    ]


def test_everything_of_the_servers_is_closed_to_others(servers: Servers) -> None:
    folder = Path(servers.folder)
    private = [folder / "postgres" / "data", folder / "postgres" / "run", folder / "valkey"]
    assert [path.name for path in private if stat.S_IMODE(path.stat().st_mode) != 0o700] == []
    assert stat.S_IMODE((folder / "valkey" / "valkey.conf").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change the uid")
def test_root_runs_postgres_as_another_uid_even_below_a_closed_folder(tmp_path: Path) -> None:
    closed = folders.private_folder(tmp_path / "closed")
    postgres = Postgres(closed / "a folder", "secret", tmp_path / "log", durable=False)
    postgres.prepare()
    postgres.start()
    try:
        wait_ready(postgres)
        assert postgres.process is not None
        assert Path(f"/proc/{postgres.process.pid}").stat().st_uid != 0
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700  # nothing was opened for it
    finally:
        postgres.stop()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
@pytest.mark.parametrize("dropped", ["-sys_admin", "-sys_admin,-dac_read_search"])
def test_root_that_may_not_mount_as_in_a_container_still_can(tmp_path: Path, dropped: str) -> None:
    closed = folders.private_folder(tmp_path / "closed")
    owner = subprocess.Popen(
        ["setpriv", f"--bounding-set={dropped}", sys.executable, "-c", OWNER, closed],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) == 2
    try:
        status = Path(f"/proc/{pids[0]}/status").read_text()
        assert "Uid:\t0" not in status
        effective = int(status.split("CapEff:")[1].split()[0], 16)
        assert effective.bit_count() == 1
    finally:
        owner.terminate()
        owner.wait(20)
        owner.stdout.close()
    wait_until(lambda: not any(alive(pid) for pid in pids), 20)


def test_a_path_too_long_for_a_socket_still_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    postgres = Postgres(deep, "secret", tmp_path / "log", durable=False)
    postgres.prepare()
    postgres.start()
    try:
        wait_ready(postgres)
    finally:
        postgres.stop()


OWNER = """
import signal, sys
from pathlib import Path
from app.embedded.children import wait_ready
from app.embedded.postgres import Postgres
from app.embedded.valkey import Valkey
folder = Path(sys.argv[1])
servers = [Postgres(folder / "p", "a", folder / "p.log"), Valkey(folder / "v", "v", folder / "v.log")]
for server in servers:
    server.prepare(); server.start(); wait_ready(server)
print(*(server.process.pid for server in servers), flush=True)
signal.pause()
"""


def test_killed_parents_take_their_servers_along_and_the_next_start_finds_the_data(tmp_path: Path) -> None:
    for _ in range(2):
        owner = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE, text=True)
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 2
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        wait_until(lambda pids=pids: not any(alive(pid) for pid in pids), 20)
        owner.stdout.close()


def test_two_valkeys_never_share_a_folder(tmp_path: Path) -> None:
    first = Valkey(tmp_path, "v", tmp_path / "log")
    first.prepare()
    first.start()
    try:
        wait_ready(first)
        with pytest.raises(folders.AlreadyRunning):
            folders.lock(tmp_path / "lock", wait_seconds=0)
    finally:
        first.stop()
    os.close(folders.lock(tmp_path / "lock", wait_seconds=5))


def test_a_stale_pid_file_of_a_crash_does_not_block_the_start(tmp_path: Path) -> None:
    postgres = Postgres(tmp_path, "secret", tmp_path / "log", durable=False)
    postgres.prepare()
    sleeper = subprocess.Popen(["sleep", "60"])  # the recycled pid: somebody else's, of the same user
    try:
        (tmp_path / "data" / "postmaster.pid").write_text(
            f"{sleeper.pid}\n{tmp_path}/data\n{int(time.time())}\n5432\n{tmp_path}/run\n\n0 0\nready\n"
        )
        postgres.start()
        wait_ready(postgres)
    finally:
        postgres.stop()
        sleeper.kill()
        sleeper.wait()
