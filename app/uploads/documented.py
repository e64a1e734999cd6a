"""tus's headers as the OpenAPI document describes them; FastAPI does not parse them, `tus.py` does."""

from typing import Any, Final

from app.uploads import tus

_TEXT: Final = {"type": "string"}
_BYTES: Final = {"type": "integer", "minimum": 0}

_VERSION: Final = ("Tus-Resumable", {"type": "string", "const": tus.VERSION}, "The version of tus.", True)
_CHECKSUM: Final = (
    "Upload-Checksum",
    _TEXT,
    "Algorithm (sha256, sha1 or md5) and base64 digest of this request's bytes, which count only if right.",
    False,
)
_LENGTH: Final = ("Upload-Length", _BYTES, "Bytes of the whole file.", True)
_KEYS: Final = (
    "Pairs of a key and a base64 value, separated by commas: `filename`; `kind` (model or dataset) lets its "
    "limit and its formats be judged from the start; `sha256` (hex) of the whole file is checked at its end."
)
_METADATA: Final = ("Upload-Metadata", _TEXT, _KEYS, False)
_OFFSET: Final = ("Upload-Offset", _BYTES, "The byte at which this request's body begins.", True)
_OVERRIDE: Final = (
    "X-HTTP-Method-Override",
    {"type": "string", "enum": ["PATCH", "DELETE"]},
    "The method that is meant.",
    True,
)
_BODY: Final = {tus.CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}}

RESUMABLE: Final = {"Tus-Resumable": {"schema": _TEXT, "description": "Always 1.0.0."}}
PROGRESS: Final = RESUMABLE | {
    "Upload-Offset": {"schema": _BYTES, "description": "Bytes that have come."},
    "Upload-Expires": {"schema": _TEXT, "description": "When an unfinished upload that rests is deleted."},
}
LOCATION: Final = {"Location": {"schema": _TEXT, "description": "The address of the upload."}}
WHOLE: Final = PROGRESS | {
    "Upload-Length": {"schema": _BYTES, "description": "Bytes of the whole file."},
    "Upload-Metadata": {"schema": _TEXT, "description": "As it was given."},
}
CAPABILITIES: Final = RESUMABLE | {
    name: {"schema": _TEXT}
    for name in ("Tus-Version", "Tus-Extension", "Tus-Checksum-Algorithm", "Tus-Max-Size")
}


def _operation(*parameters: tuple[str, dict[str, Any], str, bool], body: bool | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "parameters": [
            {"name": name, "in": "header", "required": required, "schema": schema, "description": said}
            for name, schema, said, required in parameters
        ]
    }
    if body is not None:
        described["requestBody"] = {"required": body, "content": _BODY}
    return described


CREATE: Final = _operation(_VERSION, _LENGTH, _METADATA, _CHECKSUM, body=False)
APPEND: Final = _operation(_VERSION, _OFFSET, _CHECKSUM, body=True)
OVERRIDE: Final = _operation(_VERSION, _OVERRIDE, body=False)
ASK: Final = _operation(_VERSION, body=None)
