"""The command line as people run it: a process of its own, with a home of its own."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.service import Service

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NETWORK = EXAMPLES / "digits_cnn.onnx"
ARCHIVE = EXAMPLES / "digits_cnn.pt2"
IMAGES = EXAMPLES / "digits.npz"
INPUT = ("--mean", "0.3054", "--std", "0.376")


@dataclass
class Ran:
    """What a command said, and how it ended."""

    status: int
    said: str
    meanwhile: str

    @property
    def json(self) -> Any:
        return json.loads(self.said)


@dataclass
class CommandLine:
    """`basisconv` in `folder`; signed in by the environment unless told otherwise."""

    folder: Path
    environment: dict[str, str]

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "basisconv_client", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Some runners start everything with SIGINT ignored, and then Ctrl-C cannot be tested.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )

    def run(self, *arguments: str | Path, **environment: str) -> Ran:
        return finish(self.start(*arguments, **environment))


def finish(process: subprocess.Popen[str], seconds: float = 120) -> Ran:
    """Wait for the end of a command."""
    try:
        said, meanwhile = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Ran(process.returncode, said, meanwhile)


def command_line(folder: Path, service: Service | None) -> CommandLine:
    """Nothing of the tester's own profile reaches it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BASISCONV_", "XDG_"))}
    kept |= {"HOME": str(folder / "home"), "XDG_CONFIG_HOME": str(folder / "home" / ".config")}
    kept |= {"NO_COLOR": "1", "COLUMNS": "160"}
    if service is not None:
        kept |= {"BASISCONV_SERVER": service.url, "BASISCONV_API_KEY": service.key}
    (folder / "work").mkdir(parents=True, exist_ok=True)
    return CommandLine(folder / "work", kept)
