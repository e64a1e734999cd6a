"""Every file of the corpus through the whole service: uploaded, inspected by the real worker in its sandbox.

The default run sends a part of it; `make test-hostile` all, and writes benchmarks/results/hostile.md.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.conftest import make_settings
from tests.data.making import class_folders, zip_of
from tests.hostile.canary import Answer, Canary, Watch, canary, send
from tests.hostile.corpus import READY, Hostile, cases
from tests.hostile.table import write_table
from tests.support.servers import Servers
from tests.support.service import Service, running_service
from tests.worker import networks

ALL = cases()
GROUPS = sorted({case.group for case in ALL})
# The default run: what is refused at once, and for each kind of harm one file that the inspector has to read.
AT_ONCE = {"pickles", "other formats", "tables", "requests"}
INSPECTED = {
    "onnx/external data: absolute",
    "onnx/weights of 2^62 by 2^62",
    "onnx/one weight that is NaN",
    "onnx/an operator that runs Python",
    "onnx bombs/ConstantOfShape of 2^36",
    "onnx bombs/a convolution of 10^12 multiplications",
    "onnx bombs/a Loop of 2^62 trips",
    "onnx bombs/functions that double 60 times",
    "pt2/a weight flagged as a pickle",
    "pt2/sample inputs that are a pickle",
    "pt2/a size that is Python",
    "pt2 bombs/full of 2^40",
    "names/a network called HTML",
    "archives/zip with a name: above",
    "archives/tar with a symbolic link",
    "archives/zip of 150 MB of zeros",
    "archives/zip whose directory hides 150 MB",
    "archives/zip of 5,000 names for the same 20 MB",
    "archives/tar.gz of 150 MB of zeros",
    "archives/zip of 50,000 empty images",
    "archives/a zip with a wrong checksum",
    "arrays/x is an array of objects",
    "arrays/a header that is Python",
    "arrays/a shape: 2^62 by 2^62",
    "arrays/pixels that are NaN",
    "images/png of 60,000 pixels a side",
    "images/gif of 60,000 pixels a side",
    "images/png cut in the middle",
    "images/png with 100 MB of text",
    "images/eps called png",
}

LONGEST = 2_000  # letters of a sentence, whatever it quotes
ANSWERS = "BASISCONV_HOSTILE_ANSWERS"  # where the long run leaves what it saw


def is_representative(case: Hostile) -> bool:
    return case.group in AT_ONCE or str(case) in INSPECTED


@pytest.fixture(scope="module")
def service(servers: Servers, process_number: int) -> Iterator[Service]:
    """The whole service in a folder that another uid can reach, so that its children get one."""
    folder = Path(tempfile.mkdtemp(prefix="basisconv-corpus-"))
    folder.chmod(0o711)
    name = f"hostile_{process_number}"
    settings = make_settings(
        servers.new_database(name),
        servers.broker_url(8 + process_number),
        folder / "var",
        sign_in_token=SecretStr(secrets.token_urlsafe(24)),
        lease_seconds=30,
        heartbeat_seconds=2,
        max_requests_per_minute=0,
    )
    try:
        with running_service(settings, folder / "log") as running:
            yield running
    finally:
        servers.drop_database(name)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def trap() -> Iterator[Canary]:
    with canary() as made:
        yield made


@pytest.fixture
def watch(service: Service) -> Iterator[Watch]:
    assert service.quick.process is not None
    with Watch(service.quick.process.pid) as watching:
        yield watching


def good_uploads_work(service: Service) -> None:
    """What follows an attack: an ordinary network and ordinary images are taken as ever."""
    network = Hostile(
        "network", "good", "models", "net.onnx", lambda _: networks.small_cnn(), frozenset({READY})
    )
    images = Hostile(
        "images", "good", "datasets", "i.zip", lambda _: zip_of(class_folders()), frozenset({READY})
    )
    for case in (network, images):
        answer = send(service.client, case, None)  # type: ignore[arg-type]
        assert answer.code == READY, answer


def complaints(
    service: Service, trap: Canary, watch: Watch, chosen: list[Hostile], answers: list[Answer]
) -> list[str]:
    """Send the cases one by one; what of each is not as promised."""
    found = []
    for case in chosen:
        watch.begin()
        answer = send(service.client, case, trap.traps)
        ran = not trap.is_alive()
        answers.append(replace(answer, peak_bytes=watch.bytes, cpu_seconds=watch.cpu_seconds, ran=ran))
        if not answer.is_as_wanted:
            found.append(f"{case}: {answer.status} {answer.code}: {answer.detail}")
        says_what_to_do = answer.hint or answer.code == "validation_failed"  # whose detail names the bound
        if answer.code != READY and not (answer.detail and says_what_to_do):
            found.append(
                f"{case}: says neither what is wrong nor what to do: {answer.detail!r} {answer.hint!r}"
            )
        if not answer.detail.isprintable() or len(answer.detail) > LONGEST:
            found.append(f"{case}: its sentence cannot be shown as it is: {answer.detail[:300]!r}")
        if ran:
            found.append(f"{case}: ran its payload")
            trap.revive()
    return found


@pytest.mark.parametrize("to", ["models", "datasets"])
def test_hostile_uploads_are_refused_and_the_service_goes_on(
    service: Service, trap: Canary, watch: Watch, to: str
) -> None:
    chosen = [case for case in ALL if case.to == to and is_representative(case)]
    assert complaints(service, trap, watch, chosen, []) == []
    good_uploads_work(service)


def test_the_representative_part_exists() -> None:
    assert {str(case) for case in ALL} >= INSPECTED


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_whole_corpus(service: Service, trap: Canary, watch: Watch) -> None:
    answers: list[Answer] = []
    found = []
    try:
        for first, group in product((True, False), GROUPS):
            chosen = [case for case in ALL if case.group == group and is_representative(case) == first]
            found += complaints(service, trap, watch, chosen, answers)
            good_uploads_work(service)
    finally:  # a run that was cut short says how far it came
        write_table(answers, len(ALL), Path(os.environ.get(ANSWERS, "build/hostile")))
    assert found == []
