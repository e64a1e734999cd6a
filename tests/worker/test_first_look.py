"""What a network's inspection imports before it refuses: seen in a process of its own for each file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app import example
from tests.hostile.corpus import Traps, cases

LOOK = """
import json, sys
from pathlib import Path
from worker import first_look
from worker.problems import as_problem

task = {"file": "upload", "canonical": "canonical", "format": sys.argv[1], "input": json.loads(sys.argv[2])}
try:
    first_look.inspect_model(task, Path.cwd(), lambda _: None)
    code = "ready"
except Exception as error:
    code = as_problem(error, task).code
heavy = ("torch", "torch._export.serde.serialize")
print(json.dumps([code, [name for name in heavy if name in sys.modules]]))
"""
REFUSED_AT_ONCE = [
    "other formats/one byte",
    "onnx/external data: absolute",
    "onnx/weights of 2^62 by 2^62",
    "onnx/one weight that is NaN",
    "onnx bombs/a Loop of 2^62 trips",
    "onnx bombs/functions that double 60 times",
    "pickles/joblib in a zip",
    "pt2/a weight flagged as a pickle",
]


def look(folder: Path, data: bytes, said: str = "", about: object = None) -> tuple[str, list[str]]:
    """How the inspection ended, and what of torch it took for that."""
    (folder / "upload").write_bytes(data)
    command = [sys.executable, "-c", LOOK, said, json.dumps(about or {})]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    code, imported = json.loads(ran.stdout)
    return code, imported


@pytest.mark.parametrize("name", REFUSED_AT_ONCE)
def test_what_the_file_alone_tells_is_refused_before_torch_is_imported(name: str, tmp_path: Path) -> None:
    (case,) = (case for case in cases() if str(case) == name)
    code, imported = look(tmp_path, case.make(Traps(tmp_path / "trap", 1)))
    assert code in case.codes
    assert imported == []


def test_an_onnx_network_is_looked_at_without_torchs_serialiser(tmp_path: Path) -> None:
    assert look(tmp_path, example.NETWORK.read_bytes(), "onnx", example.INPUT) == ("ready", ["torch"])
