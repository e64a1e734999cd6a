"""`basisconv` before the real service: the whole job, what it prints, how it ends."""

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from app.embedded.folders import free_port
from basisconv.formats import pt2_reader
from basisconv_client import Client
from tests.client.running import ARCHIVE, IMAGES, INPUT, NETWORK, CommandLine, finish
from tests.data.making import zip_of
from tests.support import folders
from tests.support.networks import CifarResNet
from tests.support.processes import wait_until
from tests.support.service import Service

QUICK = ("--basis", "weights", "--rank-fraction", "0.5", "--exports", "onnx")


def test_compress_uploads_follows_shows_and_leaves_a_verified_file(
    basisconv: CommandLine, client: Client
) -> None:
    ran = basisconv.run(
        "compress",
        NETWORK,
        "--data",
        IMAGES,
        "--macs",
        "0.5",
        *INPUT,
        "-o",
        "small.onnx",
        "--report",
        "r.html",
    )
    assert ran.status == 0, ran.meanwhile
    for word in ("Before and after", "accuracy", "99.17%", "MACs", "latency, batch 1", "Target met"):
        assert word in ran.said
    job = next(client.jobs())
    assert job.id in ran.meanwhile
    assert job.result is not None
    assert job.result.compressed.macs <= 0.5 * job.result.original.macs
    small = basisconv.folder / "small.onnx"
    (listed,) = (a.sha256 for a in client.artifacts(job.id) if a.format == "onnx")
    assert hashlib.sha256(small.read_bytes()).hexdigest() == listed
    assert (
        onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"]).get_inputs()[0].name
        == "image"
    )
    assert "<html" in (basisconv.folder / "r.html").read_text()


def test_what_is_on_the_server_already_is_not_sent_again(basisconv: CommandLine, client: Client) -> None:
    first = basisconv.run("models", "upload", NETWORK, *INPUT, "--json").json
    images = basisconv.run("datasets", "upload", IMAGES, "--json").json
    networks = len(list(client.models()))
    copy = basisconv.folder / "another name.onnx"
    copy.write_bytes(NETWORK.read_bytes())
    ran = basisconv.run("compress", copy, "--data", IMAGES, *INPUT, *QUICK, "--json")
    assert ran.status == 0, ran.meanwhile
    assert (ran.json["model"], ran.json["dataset"]) == (first["id"], images["id"])
    named = basisconv.run("compress", first["id"], "-d", images["id"], *QUICK, "-o", "x.onnx", "--json")
    assert (named.json["model"], named.json["dataset"]) == (first["id"], images["id"])
    assert len(list(client.models())) == networks
    with_other_input = basisconv.run("models", "upload", NETWORK, "--mean", "0.5", "--json").json
    assert with_other_input["id"] != first["id"]


def test_json_is_one_value_with_the_files(basisconv: CommandLine) -> None:
    ran = basisconv.run("compress", ARCHIVE, *QUICK, "--exports", "onnx,pt2", "-o", "made/", "--json")
    assert ran.status == 0, ran.meanwhile
    assert ran.json["status"] == "succeeded"
    files = {file["format"]: Path(file["path"]) for file in ran.json["files"]}
    assert {"onnx", "pt2"} <= set(files)
    assert all((basisconv.folder / path).is_file() for path in files.values())


def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(
    basisconv: CommandLine, client: Client, shared_server: Service
) -> None:
    long = ("--macs", "0.6", "--epochs", "1000", "--objective", "labels", "--learning-rate", "0.01")
    process = basisconv.start("compress", NETWORK, "-d", IMAGES, *INPUT, *long)
    wait_until(lambda: any(job.status == "running" for job in client.jobs()), 60)
    job = next(client.jobs())
    wait_until(lambda: client.job(job.id).stage, 60)
    process.send_signal(signal.SIGINT)
    ran = finish(process)
    assert ran.status == 130
    assert f"basisconv jobs watch {job.id}" in ran.meanwhile
    assert client.job(job.id).status == "running"
    assert basisconv.run("jobs", "cancel", job.id).status == 0
    watched = basisconv.run("jobs", "watch", job.id)
    assert watched.status == 1
    assert "cancelled" in watched.said


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["compress", NETWORK], 2, "exactly one target"),
        (["compress", NETWORK, "--macs", "0.5", "--params", "0.5"], 2, "--macs and --params"),
        (["compress", "nowhere.onnx", "--macs", "0.5"], 2, "nowhere.onnx"),
        (["compress", NETWORK, "--macs", "0.5", "-o", "small.h5"], 2, ".safetensors"),
        (["compress", NETWORK, "--macs", "7"], 2, "#/compression/target/macs"),
        (["compress", IMAGES, "--macs", "0.5"], 2, "unsupported_format"),
        (["jobs", "show", "job_" + "0" * 26], 4, "not_found"),
    ],
)
def test_what_is_wrong_is_told_by_status_and_sentence(
    basisconv: CommandLine, arguments: list[str], status: int, word: str
) -> None:
    ran = basisconv.run(*arguments)
    assert (ran.status, ran.said) == (status, "")
    assert word in " ".join(ran.meanwhile.replace("│", " ").split())


def test_nobody_signed_in_a_wrong_key_and_a_server_that_is_not_there(
    basisconv: CommandLine, shared_server: Service
) -> None:
    nobody = basisconv.run("jobs", "list", BASISCONV_SERVER="", BASISCONV_API_KEY="")
    assert (nobody.status, "basisconv login" in nobody.meanwhile) == (3, True)
    wrong = basisconv.run("jobs", "list", "--json", BASISCONV_API_KEY="bc_wrong")
    assert wrong.status == 3
    assert json.loads(wrong.meanwhile)["error"]["code"] == "unauthenticated"


def test_login_stores_server_and_key_for_its_owner_alone(
    basisconv: CommandLine, shared_server: Service
) -> None:
    unset = {"BASISCONV_SERVER": "", "BASISCONV_API_KEY": ""}
    (basisconv.folder / "key").write_text(f"{shared_server.key}\n")
    assert basisconv.run("login", shared_server.url, "--key-file", "key", **unset).status == 0
    (file,) = (basisconv.folder.parent / "home").rglob("profile.json")
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert basisconv.run("usage", "--json", **unset).json["server"] == shared_server.url
    elsewhere = basisconv.run("usage", BASISCONV_SERVER="http://127.0.0.1:9", BASISCONV_API_KEY="")
    assert elsewhere.status == 3  # the stored key is for the stored server
    (basisconv.folder / "key").write_text("bc_wrong")
    assert basisconv.run("login", shared_server.url, "--key-file", "key", **unset).status == 3
    assert basisconv.run("usage", **unset).status == 0  # what was stored stays
    assert basisconv.run("logout", **unset).status == 0
    assert basisconv.run("usage", **unset).status == 3


def test_strict_tells_a_missed_limit_by_status_and_still_leaves_the_file(basisconv: CommandLine) -> None:
    hopeless = ("--basis", "weights", "--rank-fraction", "0.05", "--limit-accuracy-drop", "0")
    wanted = (*INPUT, *hopeless, "--exports", "onnx", "--strict")
    ran = basisconv.run("compress", NETWORK, "-d", IMAGES, *wanted)
    assert ran.status == 6, ran.meanwhile
    assert "Target missed" in ran.said
    assert (basisconv.folder / "digits_cnn-compressed.onnx").is_file()
    job = basisconv.run("jobs", "list", "--limit", "1", "--json").json[0]["id"]
    (basisconv.folder / "digits_cnn-compressed.onnx").unlink()
    assert basisconv.run("jobs", "download", job, "-o", "again.onnx").status == 0
    assert basisconv.run("jobs", "report", job).status == 0
    assert "<html" in (basisconv.folder / f"{job}.html").read_text()
    assert basisconv.run("jobs", "download", job, "-o", "no.pt2").status == 2  # only ONNX was asked for


def test_a_server_that_is_not_there_is_told_after_some_tries(basisconv: CommandLine) -> None:
    ran = basisconv.run("jobs", "list", BASISCONV_SERVER=f"http://127.0.0.1:{free_port()}")
    assert ran.status == 5
    assert "trying again" in ran.meanwhile
    assert "does not answer" in ran.meanwhile


def test_a_plan_is_written_edited_and_run(basisconv: CommandLine) -> None:
    planned = basisconv.run(
        "plan", NETWORK, *INPUT, "--basis", "weights", "--macs", "0.6", "-o", "ranks.json"
    )
    assert planned.status == 0, planned.meanwhile
    assert "Expected before any fine-tuning" in planned.said
    ranks = json.loads((basisconv.folder / "ranks.json").read_text())
    layer, rank = next((name, rank) for name, rank in ranks.items() if isinstance(rank, int))
    (basisconv.folder / "ranks.json").write_text(json.dumps({layer: rank}))
    ran = basisconv.run("compress", NETWORK, *INPUT, "--ranks", "ranks.json", "--exports", "onnx", "--json")
    assert ran.status == 0, ran.meanwhile
    replaced = {one["name"]: one["rank"] for one in ran.json["result"]["layers"] if one["replaced"]}
    assert replaced == {layer: rank}


def weights(folder: Path) -> tuple[torch.nn.Module, list[str | Path]]:
    """A ResNet-20 as its training script leaves it, and what to say of it."""
    torch.manual_seed(0)
    network = CifarResNet(20, 10, "A").eval()
    save_file(network.state_dict(), folder / "net.safetensors")
    return network, [folder / "net.safetensors", "--architecture", "cifar_resnet20"]


def model_folder(folder: Path, kind: str) -> tuple[torch.nn.Module, list[str | Path]]:
    """A folder of `save_pretrained`, in a zip."""
    (folder / "net.zip").write_bytes(zip_of(folders.files(kind)))
    return folders.network(kind), [folder / "net.zip"]


KINDS: dict[str, Callable[[Path], tuple[torch.nn.Module, list[str | Path]]]] = {
    "weights": weights,
    "resnet": lambda folder: model_folder(folder, "resnet"),
    "convnext": lambda folder: model_folder(folder, "convnext"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_graph_becomes_a_smaller_onnx_file_that_answers_alike(
    basisconv: CommandLine, kind: str
) -> None:
    network, said = KINDS[kind](basisconv.folder)
    ran = basisconv.run("compress", *said, "--macs", "0.8", "-o", "made/", "--json")
    assert ran.status == 0, ran.meanwhile
    result = ran.json["result"]
    assert result["compressed"]["macs"] <= 0.8 * result["original"]["macs"]
    made = {file["format"]: basisconv.folder / file["path"] for file in ran.json["files"]}
    onnx.checker.check_model(onnx.load(made["onnx"]), full_check=True)
    session = onnxruntime.InferenceSession(made["onnx"], providers=["CPUExecutionProvider"])
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    (answers,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        reloaded = pt2_reader.load(made["pt2"]).module(images)
        asked = network(images)
    original = asked if isinstance(asked, torch.Tensor) else asked.logits
    torch.testing.assert_close(torch.from_numpy(answers), reloaded, rtol=1e-3, atol=1e-4)
    assert torch.nn.functional.cosine_similarity(reloaded, original).min() > 0.9
