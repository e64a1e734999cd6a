"""The limits of a child, tried in real children. What one does that a hostile file has taken over is told in
tests/hostile/test_attacks.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker import seccomp
from worker.sandbox import FIRST_UID, Policy, environment

ENTER = """
import json, os, sys
from worker.sandbox import Policy, enter
print(json.dumps(enter(Policy(**json.loads(sys.argv[1])), os.getppid()).missing), file=sys.stderr)
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


def test_this_machine_grants_all_of_it(tmp_path: Path) -> None:
    """Or the tests of attacks would skip their point silently."""
    if not Path("/proc/self/attr").exists() and sys.platform != "linux":
        pytest.skip("only Linux has such a sandbox")
    assert in_sandbox("", tmp_path).stderr == "[]\n"


def test_memory_over_its_limit_is_refused_to_it(tmp_path: Path) -> None:
    source = "bytearray(400_000_000); print('fits')"
    assert in_sandbox(source, tmp_path, address_bytes=1_000_000_000).stdout == "fits\n"
    assert "MemoryError" in in_sandbox(source, tmp_path, address_bytes=300_000_000).stderr


def test_its_own_memory_over_its_limit_is_refused_to_it_files_that_it_maps_are_not(tmp_path: Path) -> None:
    with (tmp_path / "mapped").open("wb") as file:
        file.truncate(2_000_000_000)
    source = """
import mmap
kept = mmap.mmap(os.open("mapped", os.O_RDONLY), 0, prot=mmap.PROT_READ)
print("fits")
bytearray(400_000_000)
"""
    result = in_sandbox(source, tmp_path, data_bytes=300_000_000)
    assert result.stdout == "fits\n"
    assert "MemoryError" in result.stderr


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


def test_it_can_count_its_peak_memory_anew(tmp_path: Path) -> None:
    source = """
from worker.sandbox import reset_peak
def peak(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])
bytearray(b'x') * 100_000_000
before = peak()
reset_peak()
print(peak() < before - 50_000)
"""
    uid = FIRST_UID if os.geteuid() == 0 else None
    tmp_path.chmod(0o777)
    assert in_sandbox(source, tmp_path, uid=uid).stdout == "True\n"


def test_a_processor_without_a_list_of_calls_has_no_filter() -> None:
    with pytest.raises(seccomp.Unavailable, match="riscv64"):
        seccomp._program("riscv64", 1, devices=False)


@pytest.mark.parametrize("devices", [False, True])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_fits_the_kernels_bounds(machine: str, devices: bool) -> None:
    code = seccomp._program(machine, 4_194_304, devices)
    assert len(code) // 8 <= 4096  # BPF_MAXINSNS
