"""The client's pages, its example notebook, and its package by itself."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.running import IMAGES, NETWORK
from tests.support.service import Service

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "client" / "basisconv_client"
ALLOWED = {"basisconv_client", "httpx", "pydantic", "rich", "typer"}


@pytest.mark.parametrize("script", ["client_doc.py", "notebook.py"])
def test_generated_pages_say_what_the_code_says(script: str) -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, "--check"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def imported(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_the_client_needs_neither_torch_nor_the_service(file: Path) -> None:
    more = {"torch", "numpy"} if file.name == "torch.py" else set()
    assert imported(file) <= ALLOWED | more


def signed_in(service: Service) -> dict[str, str]:
    return os.environ | {"BASISCONV_SERVER": service.url, "BASISCONV_API_KEY": service.key}


def test_the_notebook_runs(shared_server: Service) -> None:
    ran = subprocess.run(
        [sys.executable, "examples/notebook.py"],
        cwd=ROOT,
        env=signed_in(shared_server),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    served, here = re.findall(r"accuracy +[\d.]+% -> +([\d.]+)%", ran.stdout)
    assert served == here, ran.stdout
    assert float(here) > 80


@pytest.mark.slow
def test_the_quick_start_runs_in_an_empty_environment(shared_server: Service, tmp_path: Path) -> None:
    """The wheel alone, its pinned dependencies, no torch, no numpy, no server: its README's commands."""
    bin_ = tmp_path / "venv" / "bin"
    wheels = tmp_path / "wheels"

    def run(*command: str | Path, **environment: str) -> str:
        kept = {
            name: text for name, text in os.environ.items() if not name.startswith(("BASISCONV_", "PYTHON"))
        }
        done = subprocess.run(
            command, cwd=tmp_path, env=kept | {"HOME": str(tmp_path)} | environment,
            capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pip = ("-m", "pip", "-q", "--disable-pip-version-check")
    leftovers = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "client", tmp_path / "client", ignore=leftovers)  # pip builds beside the source
    run(sys.executable, *pip, "wheel", "--no-deps", "-w", wheels, tmp_path / "client")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    (wheel,) = wheels.glob("*.whl")
    run(bin_ / "python", *pip, "install", "-c", ROOT / "constraints.txt", wheel)
    installed = run(bin_ / "python", "-m", "pip", "list", "--format=freeze").lower()
    assert not set(re.findall(r"^([\w-]+)==", installed, re.MULTILINE)) & {
        "torch",
        "numpy",
        "fastapi",
        "celery",
    }

    (tmp_path / "net.onnx").write_bytes(NETWORK.read_bytes())
    (tmp_path / "images.npz").write_bytes(IMAGES.read_bytes())
    (tmp_path / "key").write_text(shared_server.key)
    run(bin_ / "basisconv", "login", shared_server.url, "--key-file", "key")
    said = run(
        bin_ / "basisconv",
        *["compress", "net.onnx", "--data", "images.npz", "--macs", "0.5", "-o", "small.onnx"],
    )
    assert "Before and after" in said
    assert (tmp_path / "small.onnx").stat().st_size < NETWORK.stat().st_size
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "client" / "README.md").read_text(), re.DOTALL)
    run(bin_ / "python", "-c", code)
    assert {file.suffix for file in (tmp_path / "smaller").iterdir()} >= {".onnx", ".pt2", ".safetensors"}
