"""Which columns of a Parquet file are the images, the labels and the part, and what its schema calls them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from app.core.errors import MalformedDataset

IMAGE_NAMES: Final = ("image", "img")
LABEL_NAMES: Final = ("label", "labels", "fine_label")
SPLIT_NAME: Final = "split"
HUGGING_FACE: Final = b"huggingface"  # the key under which the library `datasets` describes its columns
_MAX_CLASSES: Final = 100_000
_MAX_NAME: Final = 255
_EMBED: Final = (
    "Columns as the library `datasets` writes them are read: Dataset.cast_column('image', Image()), then "
    "to_parquet or push_to_hub, which put the files' bytes into the table."
)


@dataclass(frozen=True)
class Columns:
    """What is read of every row: paths inside the schema. None: there is no such column."""

    image: str
    image_path: str  # the same, or the bytes inside it
    label: str | None
    split: str | None
    class_names: tuple[str, ...] | None  # from the schema: what the labels 0, 1, … stand for
    text_labels: bool
    others: tuple[str, ...]

    @property
    def wanted(self) -> list[str]:
        return [name for name in (self.image_path, self.label, self.split) if name is not None]

    def described(self) -> dict[str, Any]:
        return {"image": self.image, "label": self.label, "ignored": list(self.others[:20])}


def find_columns(schema: pa.Schema, file: str) -> Columns:
    """Told by the names, else by what Hugging Face's own metadata says. Raises MalformedDataset."""
    features = _features(schema)
    image = _named(schema, IMAGE_NAMES, file) or _only(schema, features, "Image", file)
    if image is None:
        raise MalformedDataset(
            f"{file} has no column of images; its columns are {_some(schema.names)}.",
            hint=f"Call it `image`. {_EMBED}",
        )
    label = _named(schema, LABEL_NAMES, file) or _only(schema, features, "ClassLabel", file)
    split = SPLIT_NAME if _has(schema, SPLIT_NAME, file) else None
    if split is not None and not _is_text(schema.field(split).type):
        split = None
    read = {image, label, split}
    return Columns(
        image,
        _image_path(schema.field(image), file),
        label,
        split,
        None if label is None else _class_names(features.get(label), label, file),
        label is not None and _label_is_text(schema.field(label), file),
        tuple(name[:100] for name in schema.names if name not in read),
    )


def _named(schema: pa.Schema, names: Sequence[str], file: str) -> str | None:
    return next((name for name in names if _has(schema, name, file)), None)


def _has(schema: pa.Schema, name: str, file: str) -> bool:
    count = len(schema.get_all_field_indices(name))
    if count > 1:
        raise MalformedDataset(f"{file} has {count} columns called {name!r}.", hint="Leave one of them.")
    return count == 1


def _only(schema: pa.Schema, features: dict[str, Any], kind: str, file: str) -> str | None:
    """The one column that the metadata calls by this kind."""
    found = [name for name in features if _kind(features[name]) == kind and _has(schema, name, file)]
    if len(found) > 1:
        raise MalformedDataset(
            f"{file} has {len(found)} columns of the kind {kind}: {_some(found)}.",
            hint="Call the ones to use `image` and `label`.",
        )
    return found[0] if found else None


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Hugging Face's description of the columns; one that cannot be read is as good as none."""
    try:
        described = json.loads((schema.metadata or {}).get(HUGGING_FACE, b"{}"))
        features = described["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind(feature: Any) -> Any:
    return feature.get("_type") if isinstance(feature, dict) else None


def _image_path(field: pa.Field, file: str) -> str:
    kind, name = field.type, field.name
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return str(name)
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        inside = kind.field("bytes").type
        if pa.types.is_binary(inside) or pa.types.is_large_binary(inside):
            return f"{name}.bytes"
    what = "paths or addresses, not the images themselves" if _is_text(kind) else "no encoded images"
    raise MalformedDataset(f"The column {name!r} of {file} is {_type(kind)}: {what}.", hint=_EMBED)


def _label_is_text(field: pa.Field, file: str) -> bool:
    if _is_text(field.type):
        return True
    if pa.types.is_integer(field.type):
        return False
    raise MalformedDataset(
        f"The column {field.name!r} of {file} is {_type(field.type)}; labels are whole numbers or names, "
        "one a row.",
        hint="Networks with several labels an image are no classifiers: leave the column out.",
    )


def _is_text(kind: pa.DataType) -> bool:
    inside = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inside) or pa.types.is_large_string(inside))


def _class_names(feature: Any, label: str, file: str) -> tuple[str, ...] | None:
    if _kind(feature) != "ClassLabel":
        return None
    names = feature.get("names")
    if names is None:
        return None
    if not isinstance(names, list) or not 0 < len(names) <= _MAX_CLASSES or not all(map(is_name, names)):
        raise MalformedDataset(
            f"The class names of the column {label!r} in the metadata of {file} are no list of 1 to "
            f"{_MAX_CLASSES:,} printable names of up to {_MAX_NAME} letters.",
            hint="Dataset.cast_column('label', ClassLabel(names=[…])) writes them anew.",
        )
    if len(set(names)) < len(names):
        raise MalformedDataset(f"{file} gives two classes the same name.", hint="Give each its own.")
    return tuple(names)


def is_name(name: Any) -> bool:
    """Whether a class may be called so."""
    return isinstance(name, str) and 0 < len(name) <= _MAX_NAME and name.isprintable()


def _type(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 80 else text[:79] + "…"


def _some(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:most]) or "none"
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
