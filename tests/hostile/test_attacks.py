"""What a child tries that a hostile file has taken over: each attempt is refused, or its harm contained.

Every attack is told from a child that began as all do, in the sandbox of a real inspection.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.conftest import Attacker
from worker.runtime import Runtime
from worker.scratch import make_root, scratch_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[dict[str, socket.socket]]:
    """Servers on this machine, of every kind of address that a process can reach."""
    path = f"/tmp/basisconv-{os.getpid()}.sock"
    addresses = {
        "ipv4": (socket.AF_INET, ("127.0.0.1", 0)),
        "unix": (socket.AF_UNIX, path),
        "abstract": (socket.AF_UNIX, f"\0basisconv-{os.getpid()}"),
    }
    with contextlib.ExitStack() as stack:
        found = {}
        for name, (family, address) in addresses.items():
            found[name] = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            found[name].bind(address)
            found[name].listen()
            found[name].settimeout(0)
        Path(path).chmod(0o777)
        stack.callback(Path(path).unlink)
        yield found


def test_no_server_is_reached_not_even_on_this_machine(
    attack: Attacker, listeners: dict[str, socket.socket]
) -> None:
    told = {name: server.getsockname() for name, server in listeners.items()}
    for name, server in listeners.items():  # or the test would prove nothing
        with socket.create_connection(told[name]) if name == "ipv4" else socket.socket(socket.AF_UNIX) as own:
            if name != "ipv4":
                own.connect(told[name])
            server.accept()[0].close()
    met = attack(f"""
        import socket
        addresses = {told!r}
        def connect(family, address):
            with socket.socket(family, socket.SOCK_STREAM) as client:
                client.settimeout(5)
                client.connect(address)
        for name, address in addresses.items():
            family = socket.AF_INET if name == "ipv4" else socket.AF_UNIX
            attempt(name, lambda: connect(family, address))
        def datagram():
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))
        attempt("datagram", datagram)
        attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
        attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
        attempt("name", lambda: socket.getaddrinfo("localhost.localdomain", 80, proto=socket.IPPROTO_TCP) and
            socket.create_connection(("localhost", 80), 2))
        attempt("io_uring", lambda: call(425, 8, bytes(120)))
    """)
    assert len(met.outcomes) == 8
    assert met.succeeded() == []
    for server in listeners.values():
        with pytest.raises(BlockingIOError):
            server.accept()


def test_no_secret_is_read_neither_from_the_worker_nor_from_its_folders(
    attack: Attacker, runtime: Runtime
) -> None:
    var = runtime.settings.var_dir.resolve()
    make_root(runtime.scratch_root)
    (var / "secrets").mkdir(exist_ok=True)
    secret, leaked = var / "secrets" / "postgres", "s3cr3t-of-the-database"
    secret.write_text(leaked)
    secret.chmod(0o600)
    with scratch_folder(runtime.scratch_root, "job_somebody") as other:
        (other / "model").write_text(leaked)
        met = attack(f"""
            parent = os.getppid()
            attempt("environment", lambda: Path(f"/proc/{{parent}}/environ").read_bytes())
            attempt("memory", lambda: open(f"/proc/{{parent}}/mem", "rb"))
            attempt("descriptor", lambda: os.readlink(f"/proc/{{parent}}/fd/1"))
            attempt("through a descriptor", lambda: open(f"/proc/{{parent}}/fd/1", "rb"))
            attempt("root", lambda: os.listdir(f"/proc/{{parent}}/root"))
            attempt("own secrets", lambda: Path({str(secret)!r}).read_text())
            attempt("other scratch", lambda: Path({str(other / "model")!r}).read_text())
            attempt("list scratch", lambda: os.listdir({str(runtime.scratch_root)!r}))
            attempt("list var", lambda: os.listdir({str(var)!r}))
            attempt("objects", lambda: os.listdir({str(var / "objects")!r}))
            attempt("shadow", lambda: Path("/etc/shadow").read_text())
            attempt("home", lambda: os.listdir({str(Path.home())!r}))
            attempt("project", lambda: os.listdir({str(ROOT)!r}))
            attempt("repository", lambda: Path({str(ROOT / ".git" / "config")!r}).read_text())
            outcomes["own environment"] = str(sorted(os.environ))
            for name in os.listdir("/proc"):
                if name.isdigit() and int(name) != os.getpid():
                    try:
                        found = Path("/proc", name, "environ").read_text()
                        outcomes["environ of " + name] = "done: " + found[:40]
                    except OSError:
                        pass
        """)
    own = met.outcomes.pop("own environment")
    assert "BASISCONV" not in own
    assert "PASSWORD" not in own
    assert met.succeeded() == []
    assert len(met.outcomes) == 14
    assert leaked not in str(met.model.error)


def test_nothing_is_written_outside_its_own_folder(attack: Attacker, runtime: Runtime) -> None:
    with scratch_folder(runtime.scratch_root, "job_somebody") as other:
        met = attack(f"""
            for folder in ("/tmp", "/var/tmp", "/dev/shm", "/etc", "/root", "/proc/self", "/sys", "..",
                           {str(ROOT / "app")!r}, {str(other)!r}, sys.prefix + "/lib"):
                attempt(folder, lambda: Path(folder, "planted").write_text("x"))
            attempt("append", lambda: open({str(ROOT / "app" / "main.py")!r}, "a"))
            attempt("truncate", lambda: os.truncate({str(ROOT / "app" / "main.py")!r}, 0))
            attempt("unlink", lambda: os.unlink({str(ROOT / "app" / "main.py")!r}))
            attempt("symlink", lambda: os.symlink("/etc/passwd", "link"))
            attempt("hard link", lambda: os.link("/usr/bin/env", "link"))
            attempt("device", lambda: os.mknod("device", 0o600 | 0o020000, os.makedev(1, 1)))
            attempt("fifo", lambda: os.mkfifo("fifo"))
            attempt("mode", lambda: os.chmod("upload", 0o777))
            attempt("owner", lambda: os.chown("upload", 0, 0))
            attempt("terminal", lambda: open("/dev/tty", "w"))
            Path("own").write_text("it may write here")
            outcomes["own"] = Path("own").read_text()
        """)
        assert list(other.iterdir()) == []
    assert met.outcomes.pop("own") == "it may write here"
    assert met.succeeded() == []
    assert len(met.outcomes) == 21


def test_no_other_process_is_started(attack: Attacker) -> None:
    met = attack("""
        import multiprocessing, subprocess
        attempt("fork", os.fork)
        attempt("vfork", lambda: call(58))
        attempt("clone", lambda: call(56, 17, 0, 0, 0, 0))
        attempt("clone3", lambda: call(435, (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17), 88))
        attempt("program", lambda: subprocess.run(["/bin/true"]))
        attempt("spawn", lambda: os.posix_spawn("/bin/true", ["true"], {}))
        attempt("exec", lambda: os.execv("/bin/true", ["true"]))
        attempt("shell", lambda: 1 / 0 if os.system("true") else 1)
        attempt("multiprocessing", lambda: multiprocessing.get_context("fork").Process().start())
    """)
    assert met.succeeded() == []
    assert len(met.outcomes) == 9


def test_a_bomb_of_threads_ends_with_its_child(attack: Attacker) -> None:
    """By their number under a uid of its own; else by the memory that each takes, or by the time."""
    met = attack(
        """
        import threading, time
        threading.stack_size(65536)
        threads = []
        def start():
            while len(threads) < 10_000:
                threads.append(threading.Thread(target=time.sleep, args=(300,), daemon=True))
                threads[-1].start()
        attempt("threads", start)
        """,
        inspection_bytes=500_000_000,
        inspection_seconds=20,
    )
    assert met.model.status == "rejected"
    assert met.succeeded() == []
    if met.outcomes:
        assert "can't start new thread" in met.outcomes["threads"]


def test_the_worker_and_others_cannot_be_signalled_traced_or_hindered(attack: Attacker) -> None:
    met = attack("""
        import resource, signal
        parent = os.getppid()
        attempt("ask", lambda: os.kill(parent, 0))
        attempt("kill", lambda: os.kill(parent, signal.SIGKILL))
        attempt("all", lambda: os.kill(-1, signal.SIGKILL))
        attempt("group", lambda: os.killpg(os.getpgid(parent), signal.SIGKILL))
        attempt("tgkill", lambda: call(234, parent, parent, 9))
        attempt("tkill", lambda: call(200, parent, 9))
        attempt("queue", lambda: call(129, parent, 9, bytes(128)))
        attempt("pidfd", lambda: os.pidfd_open(parent))
        attempt("attach", lambda: call(101, 16, parent, 0, 0))
        attempt("seize", lambda: call(101, 0x4206, parent, 0, 0))
        attempt("read", lambda: call(310, parent, bytes(16), 1, bytes(16), 1, 0))
        attempt("write", lambda: call(311, parent, bytes(16), 1, bytes(16), 1, 0))
        attempt("limit", lambda: resource.prlimit(parent, resource.RLIMIT_CPU, (1, 1)))
        attempt("traceme", lambda: call(101, 0, 0, 0, 0))
    """)
    assert met.succeeded() == []
    assert len(met.outcomes) == 14
    assert met.model.error is not None


def test_the_kernel_is_not_asked_for_more(attack: Attacker) -> None:
    met = attack("""
        import resource
        attempt("root", lambda: os.setuid(0) if os.getuid() else 1 / 0)
        attempt("user namespace", lambda: call(272, 0x10000000))
        attempt("mount namespace", lambda: call(272, 0x20000))
        attempt("mount", lambda: call(165, b"none", b".", b"tmpfs", 0, 0))
        attempt("new mount", lambda: call(430, b"tmpfs", 0))
        attempt("chroot", lambda: os.chroot("."))
        attempt("handle", lambda: call(304, -100, bytes(128), 0))
        attempt("bpf", lambda: call(321, 0, bytes(128), 128))
        attempt("perf", lambda: call(298, bytes(128), 0, -1, -1, 0))
        attempt("keys", lambda: call(248, b"user", b"a", b"b", 1, -3))
        attempt("userfaultfd", lambda: call(323, 0))
        attempt("module", lambda: call(313, 0, b"", 0))
        attempt("clock", lambda: __import__("time").clock_settime(0, 0))
        attempt("host name", lambda: __import__("socket").sethostname("x"))
        attempt("more files", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (10**6, 10**6)))
        attempt("more memory", lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)))
        attempt("unfiltered", lambda: call(0x40000000 + 39))
        attempt("newer than the list", lambda: call(460, 0, 0, 0, 0))
        status = Path("/proc/self/status").read_text().splitlines()
        outcomes["status"] = " ".join(line for line in status if line.startswith(("Cap", "NoNew", "Secc")))
    """)
    status = met.outcomes.pop("status")
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert "CapEff:\t0000000000000000 " in status
    assert "CapPrm:\t0000000000000000 " in status
    assert met.succeeded() == []
    assert len(met.outcomes) == 18


def test_the_old_calls_of_32_bits_end_the_child(attack: Attacker) -> None:
    """`int 0x80` numbers its calls otherwise, so that the filter would take them for others."""
    met = attack(
        """
        import mmap
        code = bytes.fromhex("b814000000cd80c3")  # mov eax, 20 (getpid); int 0x80; ret
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        attempt("int 0x80", lambda: ctypes.CFUNCTYPE(ctypes.c_int)(address)())
    """,
        max_attempts=1,
    )
    assert met.outcomes == {}
    assert met.model.status == "rejected"


def test_memory_over_the_limit_is_refused_and_the_upload_for_it(attack: Attacker) -> None:
    met = attack(
        """
        import mmap
        attempt("bytes", lambda: bytearray(40_000_000_000))
        attempt("pages", lambda: mmap.mmap(-1, 40_000_000_000))
        attempt("file in memory", lambda: os.memfd_create("x"))
        attempt("shared memory", lambda: call(29, 0, 1 << 30, 0o1600))
        attempt("secret memory", lambda: call(447, 0))
        attempt("messages", lambda: call(68, 0, 0o1600))
        kept = []
        def grow():
            while True:
                kept.append(bytearray(50_000_000))
        attempt("bit by bit", grow)
        held = len(kept)
        kept.clear()
        outcomes["held"] = str(held * 50_000_000)
    """,
        inspection_bytes=1_000_000_000,
    )
    assert int(met.outcomes.pop("held")) < 1_000_000_000
    assert met.succeeded() == []
    assert len(met.outcomes) == 7
    outcome = attack(
        """
        from worker.problems import as_problem
        try:
            kept = [bytearray(50_000_000) for _ in range(100)]
        except MemoryError as error:
            sandbox.allow_last_words()
            say(type="problem", problem=as_problem(error, {}).document())
            os._exit(0)
    """,
        inspection_bytes=1_000_000_000,
    )
    assert outcome.model.error is not None
    assert outcome.model.error["code"] == "resource_limit"


def test_the_disk_is_not_filled_neither_by_one_file_nor_by_many(attack: Attacker, runtime: Runtime) -> None:
    one = attack(
        """
        def write():
            with open("big", "wb") as file:
                while True:
                    file.write(bytes(1 << 20))
        attempt("one", write)
        attempt("sparse", lambda: os.truncate("big", 1 << 50))
    """,
        max_model_bytes=1_000_000,
    )
    assert one.succeeded() == []
    assert "File too large" in one.outcomes["one"]
    many = attack(
        """
        number = 0
        while True:
            number += 1
            Path(f"file-{number % 2000}").write_bytes(bytes(1 << 20))
    """,
        max_model_bytes=1_000_000,
    )
    assert many.model.error is not None
    assert many.model.error["code"] == "resource_limit"
    assert "bytes of disk" in many.model.error["detail"]
    small = attack("""
        import itertools, time
        for number in range(10_100):
            Path(f"file-{number}").touch()
        time.sleep(60)
    """)
    assert small.model.error is not None
    assert "10,000 files" in small.model.error["detail"]
    hidden = attack(
        """
        import time
        kept = []
        for number in range(300):
            kept.append(open("gone", "wb", buffering=0))
            kept[-1].write(bytes(1 << 20))
            os.unlink("gone")
        time.sleep(60)
    """,
        disk_reserve_bytes=1 << 60,
    )
    assert hidden.model.error is not None
    assert "must stay so" in hidden.model.error["detail"]
    assert list(runtime.scratch_root.iterdir()) == []


def test_its_folder_is_wiped_however_it_was_left(attack: Attacker, runtime: Runtime) -> None:
    attack("""
        os.mkdir("closed", 0)
        os.mkdir("half")
        os.mkdir("half/closed", 0)
        Path("half/file").touch()
        for number in range(700):
            os.mkdir("deeper")
            os.chdir("deeper")
        Path("at the bottom").touch()
    """)
    assert list(runtime.scratch_root.iterdir()) == []


def test_a_child_that_crashes_on_a_file_rejects_it_at_once(attack: Attacker) -> None:
    met = attack("""
        say(type="progress", fraction=0.5, message="Comparing our copy with the file")
        ctypes.string_at(0)
    """)
    assert met.model.error is not None
    assert (met.model.status, met.model.attempt) == ("rejected", 1)
    assert met.model.error["code"] == "malformed_model"
    assert "“Comparing our copy with the file”" in met.model.error["detail"]
    assert "SIGSEGV" in met.model.error["detail"]


def test_processor_time_over_the_limit_ends_it(attack: Attacker) -> None:
    met = attack(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_CPU, (1, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        while True:
            pass
        """
    )
    assert met.model.error is not None
    assert (met.model.attempt, met.model.error["code"]) == (1, "resource_limit")
