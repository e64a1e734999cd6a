"""What a child cannot do, tried in real children."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from worker.sandbox import FIRST_UID, Policy, environment

ENTER = """
import json, os, sys
from worker.sandbox import Policy, enter
print(json.dumps(enter(Policy(**json.loads(sys.argv[1])), os.getppid())), file=sys.stderr)
"""


def in_sandbox(source: str, folder: Path, **policy: object) -> subprocess.CompletedProcess[str]:
    document = json.dumps(Policy(**policy).document())  # type: ignore[arg-type]
    return subprocess.run(
        [sys.executable, "-P", "-c", ENTER + source, document],
        cwd=folder,
        env=environment(folder, 1, {}),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_reaches_no_server_not_even_on_this_machine(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        source = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        result = in_sandbox(source, tmp_path)
        if "network" in result.stderr.splitlines()[0]:
            pytest.skip("this kernel grants no network namespace")
        assert result.returncode == 1
        assert "Error" in result.stderr
        assert in_sandbox(source, tmp_path, network=True).returncode == 0  # the server was there


def test_memory_over_its_limit_is_refused_to_it(tmp_path: Path) -> None:
    source = "bytearray(400_000_000); print('fits')"
    assert in_sandbox(source, tmp_path, address_bytes=1_000_000_000).stdout == "fits\n"
    assert "MemoryError" in in_sandbox(source, tmp_path, address_bytes=300_000_000).stderr


def test_a_file_over_its_limit_is_refused_to_it(tmp_path: Path) -> None:
    result = in_sandbox("open('big', 'wb').write(bytes(2_000_000))", tmp_path, file_bytes=1_000_000)
    assert "OSError" in result.stderr
    assert (tmp_path / "big").stat().st_size <= 1_000_000


def test_processor_time_over_its_limit_ends_it(tmp_path: Path) -> None:
    assert in_sandbox("while True: pass", tmp_path, cpu_seconds=1).returncode < 0


def test_it_can_gain_no_privileges_and_dumps_no_core(tmp_path: Path) -> None:
    source = (
        "import resource; print(open('/proc/self/status').read(), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    out = in_sandbox(source, tmp_path).stdout
    assert "NoNewPrivs:\t1" in out
    assert "(0, 0)" in out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand out another uid")
def test_under_root_it_has_another_uid_and_no_groups(tmp_path: Path) -> None:
    result = in_sandbox("print(os.getresuid(), os.getresgid(), os.getgroups())", tmp_path, uid=FIRST_UID)
    assert result.stdout == f"{(FIRST_UID,) * 3} {(FIRST_UID,) * 3} []\n"


def test_its_home_and_temporary_files_are_its_scratch_and_nothing_else_is_passed_on(tmp_path: Path) -> None:
    passed = environment(
        tmp_path, 3, {"AWS_SECRET_ACCESS_KEY": "x", "BASISCONV_SECRET_KEY": "x", "TZ": "UTC"}
    )
    assert passed["HOME"] == passed["TMPDIR"] == str(tmp_path)
    assert passed["OMP_NUM_THREADS"] == "3"
    assert passed["TZ"] == "UTC"
    assert "x" not in passed.values()
