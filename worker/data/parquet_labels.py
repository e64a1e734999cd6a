"""The labels of a table: whole numbers or names, checked, and what each index stands for in the end."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.core.errors import MalformedDataset
from worker.data import layout
from worker.data.parquet_columns import Columns, is_name

Labels = npt.NDArray[np.int64]
_UNKNOWN: Final = -1  # how Hugging Face marks the labels of a part that are kept secret


class LabelReader:
    """Gathers the labels of all files; they must agree on what labels are."""

    def __init__(self) -> None:
        self._columns: Columns | None = None
        self._texts: dict[str, int] = {}  # in the order in which they came
        self._gathered: list[Labels] = []

    def agree(self, columns: Columns, file: str) -> None:
        """Raises MalformedDataset for a file that does not go with those before it."""
        first = self._columns = self._columns or columns
        whats = {
            "label": "column of labels",
            "text_labels": "kind of labels",
            "class_names": "list of class names",
        }
        for field, what in whats.items():
            if getattr(first, field) != getattr(columns, field):
                raise MalformedDataset(
                    f"{file} has another {what} than the files before it.",
                    hint="Write all parts with one schema.",
                )

    def add(self, array: pa.Array, file: str, begin: int) -> None:
        """The labels of the rows from `begin` on."""
        if array.null_count:
            row = begin + array.is_null().index(True).as_py()
            raise MalformedDataset(f"{file}, row {row} has no label.", hint="Remove such rows.")
        assert self._columns is not None
        if self._columns.text_labels:
            self._gathered.append(self._indices(array.to_pylist(), file, begin))
        else:
            self._gathered.append(array.cast(pa.int64()).to_numpy(zero_copy_only=False))

    def _indices(self, texts: list[str], file: str, begin: int) -> Labels:
        for row, text in enumerate(texts, begin):
            if not is_name(text):
                raise MalformedDataset(
                    f"{file}, row {row} has the label {text[:60]!r}: empty, too long or not printable."
                )
        return np.array([self._texts.setdefault(text, len(self._texts)) for text in texts], np.int64)

    def settle(self, classes: Mapping[str, Any] | None) -> tuple[Labels | None, list[str | None] | None]:
        """All labels as class indices and the name of each index; None, None without labels."""
        labels = np.concatenate(self._gathered) if self._gathered else None
        if labels is None or self._columns is None or bool((labels == _UNKNOWN).all()):
            if classes is not None:
                raise MalformedDataset(
                    "classes maps class names, and the data set has no labels.", hint="Leave classes out."
                )
            return None, None
        named = self._named(labels, self._columns)
        _check_range(labels, self._columns)
        if classes is None and not self._columns.text_labels:
            return labels, list(named.values()) if self._columns.class_names else None
        indices = layout.class_indices(set(named.values()), classes, "class name")
        names: list[str | None] = [None] * (max(indices.values()) + 1)
        for name, index in indices.items():
            names[index] = name
        new = np.zeros(max(named) + 1, np.int64)
        for old, name in named.items():
            new[old] = indices[name]
        return new[labels], names

    def _named(self, labels: Labels, columns: Columns) -> dict[int, str]:
        """What the numbers in the table stand for; a number without a name stands for itself."""
        if columns.text_labels:
            return {index: text for text, index in self._texts.items()}
        if columns.class_names is not None:
            return dict(enumerate(columns.class_names))
        return {int(value): str(value) for value in np.unique(labels)}


def _check_range(labels: Labels, columns: Columns) -> None:
    end = layout.MAX_INDEX if columns.class_names is None else len(columns.class_names)
    outside = (labels < 0) | (labels >= end)
    if not outside.any():
        return
    names = "" if columns.class_names is None else f", which the schema's {end:,} class names allow"
    unknown = bool((labels == _UNKNOWN).any())
    raise MalformedDataset(
        f"The column {columns.label!r} holds values from {labels.min()} to {labels.max()}; class indices go "
        f"from 0 to {end - 1:,}{names}.",
        hint="-1 marks labels that are kept secret: leave that part out." if unknown else None,
    )
