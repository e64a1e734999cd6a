"""tus's rules as pure decisions: headers and a state in, a decision or a refusal out."""

import base64
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from app.core.errors import (
    MalformedRequest,
    OffsetMismatch,
    Problem,
    UnsupportedMediaType,
    UnsupportedTusVersion,
    UploadLocked,
    UploadTooLarge,
)
from app.uploads import tus

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TYPE = {"Content-Type": tus.CONTENT_TYPE}


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _state(received: int = 4, length: int = 10, *, locked: bool = False) -> tus.State:
    return tus.State(length, received, NOON, locked)


@pytest.mark.parametrize("given", [None, "0.2.2", "1.0", "", "1.0.0 "])
def test_another_version_is_refused_with_the_one_that_is_spoken(given: str | None) -> None:
    with pytest.raises(UnsupportedTusVersion) as refused:
        tus.check_version(Headers({} if given is None else {"Tus-Resumable": given}))
    assert refused.value.headers["Tus-Version"] == "1.0.0"
    tus.check_version(Headers({"Tus-Resumable": "1.0.0"}))


def test_a_creation_is_read_from_its_headers() -> None:
    header = f"filename {_b64('Netz ä.onnx')},kind {_b64('model')}, sha256 {_b64('A' * 64)},is_final"
    asked = tus.read_creation(Headers({"Upload-Length": "100", "Upload-Metadata": header}))
    assert asked == tus.Creation(100, header, "Netz ä.onnx", "model", "a" * 64)
    plain = tus.read_creation(Headers({"Upload-Length": "0"}))
    assert plain == tus.Creation(0, "", "", None, None)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upload-Length": "-1"},
        {"Upload-Length": "1.5"},
        {"Upload-Length": "٣"},
        {"Upload-Length": "9" * 30},
        {"Upload-Defer-Length": "1"},
        {"Upload-Length": "1", "Upload-Metadata": "filename !!"},
        {"Upload-Length": "1", "Upload-Metadata": "a YQ==,a YQ=="},
        {"Upload-Length": "1", "Upload-Metadata": ",a YQ=="},
        {"Upload-Length": "1", "Upload-Metadata": "ä YQ=="},
        {"Upload-Length": "1", "Upload-Metadata": "a /w=="},
        {"Upload-Length": "1", "Upload-Metadata": "a YQ==,\x0bb YQ=="},
        {"Upload-Length": "1", "Upload-Metadata": "a YQ==,\u00a0b YQ=="},
        {"Upload-Length": "1", "Upload-Metadata": f"a {_b64(chr(0))}"},
        {"Upload-Length": "1", "Upload-Metadata": f"kind {_b64('film')}"},
        {"Upload-Length": "1", "Upload-Metadata": f"sha256 {_b64('abc')}"},
        {"Upload-Length": "1", "Upload-Metadata": "a " + "A" * 5000},
    ],
)
def test_a_creation_that_says_nonsense_is_refused(headers: dict[str, str]) -> None:
    raw = [(name.lower().encode(), value.encode("utf-8")) for name, value in headers.items()]
    with pytest.raises(MalformedRequest):
        tus.read_creation(Headers(raw=raw))


def test_a_post_brings_data_only_if_its_headers_announce_some() -> None:
    assert not tus.brings_data(Headers({"Content-Length": "0"}))
    assert not tus.brings_data(Headers({}))
    assert tus.brings_data(Headers({"Content-Length": "3", **TYPE}))
    assert tus.brings_data(Headers({"Transfer-Encoding": "chunked", **TYPE}))
    with pytest.raises(UnsupportedMediaType):
        tus.brings_data(Headers({"Content-Length": "3", "Content-Type": "text/plain"}))


def test_an_append_is_read_from_its_headers() -> None:
    digest = base64.b64encode(b"x" * 20).decode()
    headers = Headers(
        {"Upload-Offset": "4", "Content-Length": "6", "Upload-Checksum": f"sha1 {digest}", **TYPE}
    )
    assert tus.read_append(headers) == tus.Append(4, 6, tus.Checksum("sha1", b"x" * 20))
    assert tus.read_append(Headers({"Upload-Offset": "0", **TYPE})) == tus.Append(0, None, None)


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ({"Upload-Offset": "4"}, UnsupportedMediaType),
        ({"Upload-Offset": "4", "Content-Type": "application/octet-stream"}, UnsupportedMediaType),
        (TYPE, MalformedRequest),
        ({"Upload-Offset": "-4", **TYPE}, MalformedRequest),
        ({"Upload-Offset": "0", "Upload-Checksum": "crc32 AAAA", **TYPE}, MalformedRequest),
        ({"Upload-Offset": "0", "Upload-Checksum": "sha1 ?", **TYPE}, MalformedRequest),
        ({"Upload-Offset": "0", "Upload-Checksum": "", **TYPE}, MalformedRequest),
    ],
)
def test_an_append_that_says_nonsense_is_refused(headers: dict[str, str], refusal: type[Problem]) -> None:
    with pytest.raises(refusal):
        tus.read_append(Headers(headers))


@pytest.mark.parametrize(
    ("asked", "state", "refusal"),
    [
        (tus.Append(3, 1, None), _state(), OffsetMismatch),
        (tus.Append(5, 1, None), _state(), OffsetMismatch),
        (tus.Append(5, 1, None), _state(locked=True), OffsetMismatch),
        (tus.Append(4, 7, None), _state(), UploadTooLarge),
        (tus.Append(4, 1, None), _state(locked=True), UploadLocked),
        (tus.Append(10, 1, None), _state(10), UploadTooLarge),
    ],
)
def test_an_append_at_the_wrong_place_or_time_is_refused(
    asked: tus.Append, state: tus.State, refusal: type[Problem]
) -> None:
    with pytest.raises(refusal):
        tus.decide_append(asked, state)


def test_a_wrong_offset_is_told_the_right_one() -> None:
    with pytest.raises(OffsetMismatch) as refused:
        tus.decide_append(tus.Append(3, 1, None), _state())
    assert refused.value.headers["Upload-Offset"] == "4"


@given(st.integers(0, 1000), st.integers(0, 1000), st.one_of(st.none(), st.integers(0, 2000)))
def test_what_is_allowed_never_passes_the_length(received: int, left: int, declared: int | None) -> None:
    state = _state(received, received + left)
    asked = tus.Append(received, declared, None)
    if declared is not None and declared > left:
        with pytest.raises(UploadTooLarge):
            tus.decide_append(asked, state)
    else:
        assert tus.decide_append(asked, state) == left


@given(st.dictionaries(st.from_regex(r"[a-zA-Z_.-]{1,20}", fullmatch=True), st.text(max_size=30), max_size=6))
def test_metadata_come_back_as_they_were_given(values: dict[str, str]) -> None:
    values = {key: value.replace("\0", "") for key, value in values.items()}
    encoded = ",".join(
        f"{key} {base64.b64encode(value.encode('utf-8', 'replace')).decode()}"
        for key, value in values.items()
    )
    assert tus.parse_metadata(encoded) == {
        key: value.encode("utf-8", "replace").decode() for key, value in values.items()
    }


@given(st.text(max_size=200))
def test_no_metadata_header_crashes(header: str) -> None:
    try:
        tus.parse_metadata(header)
    except MalformedRequest:
        return


def test_only_an_unfinished_upload_tells_when_it_expires() -> None:
    assert tus.describe(_state()) == {
        "Upload-Offset": "4",
        "Upload-Expires": "Tue, 24 Nov 2026 12:00:00 GMT",
    }
    assert tus.describe(_state(10)) == {"Upload-Offset": "10"}
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5)))
    assert tus.http_date(elsewhere) == "Tue, 24 Nov 2026 12:00:00 GMT"


def test_head_tells_length_metadata_and_no_cache() -> None:
    state: Any = tus.State(10, 4, NOON, locked=False, metadata="a YQ==")
    told = tus.describe_fully(state)
    assert (told["Upload-Length"], told["Upload-Metadata"], told["Cache-Control"]) == (
        "10",
        "a YQ==",
        "no-store",
    )
    assert "Upload-Metadata" not in tus.describe_fully(_state())


def test_options_names_version_extensions_and_limit() -> None:
    assert tus.capabilities(5) == {
        "Tus-Version": "1.0.0",
        "Tus-Extension": "creation,creation-with-upload,expiration,checksum,termination",
        "Tus-Checksum-Algorithm": "sha256,sha1,md5",
        "Tus-Max-Size": "5",
    }
