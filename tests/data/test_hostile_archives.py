"""Archives that lie about themselves: refused with the name or the numbers, and nothing lands outside."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.core.errors import MalformedDataset, Problem, ResourceLimit
from tests.data.making import class_folders, encode, inspect, outcome, picture, tar_of, zip_of

GOOD = class_folders()
ESCAPES = ["../evil.png", "cat/../../evil.png", "/etc/evil.png", "C:\\evil.png", "..\\evil.png"]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str, pack: Any) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    with pytest.raises(MalformedDataset, match="leads out of the archive"):
        inspect(folder, pack({**GOOD, name: encode(picture(2, 2))}), "images")
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


def test_one_file_under_two_names_of_the_same_meaning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedDataset, match=r"holds 'cat/0.png' twice"):
        inspect(tmp_path, zip_of({**GOOD, "./cat//0.png": encode(picture(2, 2))}), "images")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    buffer = io.BytesIO(tar_of(GOOD))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        info = tarfile.TarInfo("cat/odd.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(MalformedDataset, match=r"cat/odd.png is a link or a device"):
        inspect(tmp_path, buffer.getvalue(), "images")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO(zip_of(GOOD))
    with zipfile.ZipFile(buffer, "a") as archive:
        info = zipfile.ZipInfo("cat/odd.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(MalformedDataset, match=r"cat/odd.png is a link or a device"):
        inspect(tmp_path, buffer.getvalue(), "images")


def test_an_encrypted_member_is_named(tmp_path: Path) -> None:
    damaged = bytearray(zip_of(GOOD))
    first = damaged.index(b"PK\x01\x02")
    damaged[first + 8] |= 1  # the flag in the central directory
    with pytest.raises(MalformedDataset, match=r"cat/0.png is encrypted"):
        inspect(tmp_path, bytes(damaged), "images")


@pytest.mark.parametrize("form", ["zip", "gzip"])
def test_a_bomb_is_refused_by_its_ratio_while_it_unfolds(tmp_path: Path, form: str) -> None:
    zeros = bytes(120_000_000)
    if form == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("cat/0.bmp", zeros)
        bomb = buffer.getvalue()
    else:
        bomb = tar_of({"cat/0.bmp": zeros}, "w:gz")
    with pytest.raises(ResourceLimit, match="times as much; the limit is 200 times"):
        inspect(tmp_path, bomb, "images")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2_000_000


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 20_000
    with pytest.raises(ResourceLimit, match=r"cat/big.png has 9000 × 9000 = 81,000,000 pixels"):
        inspect(tmp_path, zip_of({**GOOD, "cat/big.png": buffer.getvalue()}), "images")


def test_too_many_images_and_too_many_decoded_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceLimit, match="10 images; the limit is 9"):
        inspect(tmp_path, zip_of(GOOD), "images", max_images=9)
    flat = {f"a/{n}.png": encode(np.zeros((200, 200, 3), np.uint8)) for n in range(10)}
    with pytest.raises(ResourceLimit, match="10 decoded images of 200 × 200 × 3 take 1,200,000 bytes"):
        inspect(tmp_path, zip_of(flat), "images", max_unpacked_bytes=1_000_000)
    mixed = {f"a/{n}.png": encode(picture(100 + n, 100, seed=n)) for n in range(4)}
    packed = sum(len(data) for data in mixed.values())
    with pytest.raises(ResourceLimit, match="decoded data set takes more than"):
        inspect(tmp_path, zip_of(mixed), "images", max_unpacked_bytes=packed)


@pytest.mark.parametrize("head", [b"", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"hello" * 100])
def test_other_archives_are_refused_with_what_is_accepted(tmp_path: Path, head: bytes) -> None:
    with pytest.raises(MalformedDataset, match="no zip, tar or compressed tar"):
        inspect(tmp_path, head, "images")


def test_a_tar_header_that_claims_gigabytes_is_not_loaded(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8_000_000_000
    with pytest.raises(MalformedDataset, match="is no header"):
        inspect(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + tar_of(GOOD), "images")


WHOLE = {"zip": zip_of(GOOD), "tar": tar_of(GOOD), "gz": tar_of(GOOD, "w:gz"), "xz": tar_of(GOOD, "w:xz")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_an_archive_that_is_cut_anywhere_is_refused(tmp_path: Path, form: str, data: st.DataObject) -> None:
    whole = WHOLE[form].rstrip(b"\0")  # a tar ends with zeros, of which one block is enough
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert isinstance(outcome(tmp_path, whole[:cut], "images"), Problem)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_a_damaged_archive_is_refused_and_never_crashes(
    tmp_path: Path, form: str, data: st.DataObject
) -> None:
    damaged = bytearray(WHOLE[form])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(damaged), data.draw(st.integers(0, len(damaged)))]))
    result = outcome(tmp_path, bytes(damaged[:cut]), "images")
    if isinstance(result, Problem):
        assert result.code in {"malformed_dataset", "resource_limit"}
        return
    assert result["examples"]["train"] + result["examples"]["test"] <= len(GOOD)
