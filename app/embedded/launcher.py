"""`make run`: everything on one machine, from nothing, until Ctrl-C.

PostgreSQL and Valkey (unless the environment names others), migrations, the owner's key, one Celery worker
for quick work, one per GPU (or one on the CPU) for jobs, and the web process. Started in that order, stopped
in the reverse one. Children die with this process, by whatever means it goes.
"""

import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pydantic import SecretStr, ValidationError

from app.core import migrations
from app.core.settings import Settings
from app.embedded import children
from app.embedded.children import NotStarted, Server
from app.embedded.confine import NotReachable
from app.embedded.console import Relay, rotate
from app.embedded.folders import AlreadyRunning, lock, private_folder
from app.embedded.owner import key_file, owner_key
from app.embedded.postgres import Postgres
from app.embedded.processes import PREFIX, Web, Worker
from app.embedded.secrets import DATABASE, ROLE, Secrets, given, settings_with
from app.embedded.supervisor import GaveUp, Supervisor
from app.embedded.valkey import Valkey

READY_SECONDS = 60.0


class Refused(Exception):  # noqa: N818 - says what is wrong
    """The run cannot begin; the message says why and what helps."""


class StopAsked(Exception):  # noqa: N818 - says what happened
    """Ctrl-C or SIGTERM came while things were still starting."""


@dataclass(frozen=True)
class Options:
    var_dir: Path
    port: int = 8000
    host: str = "127.0.0.1"
    stop_with_parent: bool = False


def serve(options: Options, say: Callable[[str], None]) -> int:
    """Run until told to stop; 0 after a stop that was asked for, 1 with a clear message otherwise."""
    if options.stop_with_parent:
        children.die_with_parent(os.getppid(), signal.SIGTERM)
    launcher = Launcher(options, say)
    launcher.listen_to_signals()
    try:
        launcher.run()
    except StopAsked:
        pass
    except ValidationError as problem:  # of the settings; without the values, which may be secret
        for error in problem.errors(include_input=False, include_url=False):
            say(f"{PREFIX}{str(error['loc'][0]).upper()}: {error['msg']}")
        return 1
    except (Refused, NotStarted, NotReachable, GaveUp, AlreadyRunning) as problem:
        say(str(problem))
        return 1
    finally:
        launcher.stop()
    return 0


class Launcher:
    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._var = options.var_dir.resolve()
        self._stopping = False
        self._started: list[Server] = []
        self._lock: int | None = None

    def run(self) -> None:
        """Start everything and watch over it until a stop is asked for."""
        self._take_lock()
        _refuse_taken_port(self._options.host, self._options.port)
        settings = self._start_servers()
        migrations.upgrade(settings.database_url.get_secret_value())
        owner_key(settings)
        self._start_service(settings)
        self._greet(settings)
        supervisor = Supervisor(self._started, self._say)
        relay = Relay({server.name: server.log for server in self._started})
        parent = os.getppid()
        while not self._stopping:
            if self._options.stop_with_parent and children.make_was_interrupted(parent):
                break
            supervisor.look()
            for line in relay.lines():
                self._say(line)
            time.sleep(0.2)

    def listen_to_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup has set SIGHUP so
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._stopping = True

    def stop(self) -> None:
        """End what was started, last first; a worker hands its job back before it ends."""
        running = [server for server in reversed(self._started) if _runs(server)]
        if running:
            self._say("Stopping…")
        for server in running:
            if isinstance(server, Web | Worker) and server.process is not None:
                server.process.send_signal(signal.SIGTERM)  # all at once: each takes its time
        for server in running:
            server.stop()
        if running:
            self._say("Stopped. Everything is kept in " + str(self._var))
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        private_folder(self._var, 0o711)  # job children of another uid pass through to their scratch folder
        private_folder(self._var / "log")
        path = self._var / "lock"
        try:
            self._lock = lock(path, wait_seconds=0)
        except AlreadyRunning as problem:
            raise Refused(f"Already running on {self._var} ({path.read_text().strip()}).") from problem
        url = f"http://{self._options.host}:{self._options.port}"
        path.write_text(f"process {os.getpid()}, {url}\n")

    def _start_servers(self) -> Settings:
        """PostgreSQL and Valkey, unless the environment names others, and the settings that lead to them."""
        own = Secrets.of(self._var)
        found: dict[str, str | SecretStr | Path] = {
            "secret_key": SecretStr(own.service),
            "var_dir": self._var,
            "public_url": f"http://{self._options.host}:{self._options.port}",
            "sign_in_token": SecretStr(secrets.token_urlsafe(24)),
        }
        if not given("database_url"):
            postgres = Postgres(self._var / "postgres", own.postgres_admin, self._log("postgres"))
            self._start(postgres)
            postgres.ensure_database(DATABASE, ROLE, own.postgres)
            found["database_url"] = SecretStr(postgres.url(DATABASE, ROLE, own.postgres))
        if not given("broker_url"):
            valkey = Valkey(self._var / "valkey", own.valkey, self._log("valkey"))
            self._start(valkey)
            found["broker_url"] = SecretStr(valkey.url())
        return settings_with(found)

    def _start_service(self, settings: Settings) -> None:
        workers = [Worker(settings, "quick", self._log("worker-quick"))]
        for number, gpu in enumerate(_gpus() if settings.wants_gpu() else [None], start=1):
            name = "worker-jobs" if number == 1 else f"worker-jobs-{number}"
            workers.append(Worker(settings, "jobs", self._log(name), number=number, gpu=gpu))
        web = Web(settings, self._options.port, self._log("web"), host=self._options.host)
        service: list[Server] = [*workers, web]
        for server in service:  # together: each needs a second or two to import
            server.start()
            self._started.append(server)
        for server in service:
            self._wait(server)

    def _start(self, server: "Postgres | Valkey") -> None:
        server.prepare()
        server.start()
        self._started.append(server)
        self._wait(server)

    def _wait(self, server: Server) -> None:
        children.wait_ready(server, READY_SECONDS, self._check)

    def _check(self) -> None:
        if self._stopping:
            raise StopAsked

    def _log(self, name: str) -> Path:
        log = self._var / "log" / f"{name}.log"
        rotate(log)
        return log

    def _greet(self, settings: Settings) -> None:
        token = settings.sign_in_token.get_secret_value() if settings.sign_in_token else ""
        self._say(
            "\nBasisConv is ready.\n\n"
            f"  Open      http://{self._options.host}:{self._options.port}/?token={token}\n"
            f"  API key   {key_file(settings)}\n"
            f"  Logs      {self._var / 'log'}\n"
            "  Stop      Ctrl-C\n"
        )


def _runs(server: Server) -> bool:
    return server.process is not None and server.process.poll() is None


def _refuse_taken_port(host: str, port: int) -> None:
    """Say so before anything starts. A listener of a run that was just killed may need a moment to go."""
    deadline = time.monotonic() + 3
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except PermissionError as problem:
                raise Refused(
                    f"Port {port} needs more rights. Choose another: PORT=8001 make run"
                ) from problem
            except OSError as problem:
                if time.monotonic() > deadline:
                    raise Refused(
                        f"Port {port} is taken by another program. Choose another: PORT={port + 1} make run"
                    ) from problem
            else:
                return
        time.sleep(0.1)


def _gpus() -> list[int | None]:
    """The numbers of NVIDIA's devices, without loading torch; [None] where there are none."""
    found = sorted(
        int(path.name[6:]) for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()
    )
    return list(range(len(found))) or [None]
