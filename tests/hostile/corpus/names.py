"""Good files under names made to harm whoever shows or stores them."""

import functools

from tests.data.making import class_folders, zip_of
from tests.formats.nets import small_onnx
from tests.hostile.corpus import READY, add

NAMES = {
    "HTML": "<script>alert(1)</script>.onnx",
    "an attribute of HTML": '" onmouseover="alert(1)".onnx',
    "a template": "{{ 7*7 }}${7*7}#{7*7}%s%n.onnx",
    "SQL": "'; DROP TABLE models; --.onnx",
    "a path": "../../../../etc/passwd",
    "a path of Windows": "..\\..\\windows\\system32\\x.onnx",
    "an absolute path": "/etc/cron.d/evil",
    "text that turns its direction": "\u202exnno.evil\u2066.onnx",
    "invisible letters": "a\u200b\u2060\ufeffb.onnx",
    "a new line and a header": "a\\r\\nSet-Cookie: x=1.onnx",
    "ten thousand letters": "n" * 10_000 + ".onnx",
    "only dots": "...",
    "nothing": "",
    "accents by the hundred": "e" + "\u0301" * 150 + ".onnx",
    "letters beyond the first plane": "\U0001f4a3\U0001f595.onnx",
    "a device of Windows": "CON.onnx",
    "a shell's words": "$(touch x);`touch y`|z.onnx",
}


@functools.cache
def images() -> bytes:
    return zip_of(class_folders())


for _what, _name in NAMES.items():
    # A form's headers end at some kilobytes.
    _codes = READY if len(_name) <= 200 else f"{READY} malformed_request"
    add("names", f"a network called {_what}", lambda _: small_onnx(), _codes, filename=_name)
    add("names", f"images called {_what}", lambda _: images(), _codes, to="datasets", filename=_name)
    if _name and len(_name) <= 200:
        add(
            "names",
            f"the field `name` with {_what}",
            lambda _: images(),
            "validation_failed" if "\u202e" in _name else READY,
            to="datasets",
            filename="images.zip",
            fields={"name": _name},
        )
add(
    "names",
    "the field `name` with ten thousand letters",
    lambda _: images(),
    "validation_failed",
    to="datasets",
    fields={"name": "n" * 10_000},
)
add(
    "names",
    "the field `name` with NUL",
    lambda _: images(),
    "validation_failed",
    to="datasets",
    fields={"name": "a\0b"},
)
add(
    "names",
    "classes called HTML and worse",
    lambda _: zip_of(
        {
            f"{c}/{n}.png": data
            for c in ("<script>alert(1)<", "${7*7}", "' OR 1=1 --")
            for n, data in enumerate(class_folders(2).values())
        }
    ),
    READY,
    to="datasets",
    filename="images.zip",
)
