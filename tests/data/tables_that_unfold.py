"""Parquet files made to harm: a few kilobytes or megabytes that stand for far more, or hold a pickle."""

import pyarrow as pa

from tests.data.making import encode, picture
from tests.data.test_parquet import table


def bomb_of_a_page() -> bytes:
    """400 MB of zeros in one page of some kilobytes, a value each of 200 MB."""
    return table(
        {"image": pa.array([bytes(200_000_000)] * 2)},
        use_dictionary=False,
        compression="zstd",
        write_statistics=False,
    )


def bomb_of_a_dictionary() -> bytes:
    """One picture of 12 MB that a hundred thousand rows name: a terabyte."""
    picked = pa.DictionaryArray.from_arrays(
        pa.array([0] * 100_000, pa.int32()), pa.array([encode(picture(2000, 2000))])
    )
    return table({"image": picked}, store_schema=False, dictionary_pagesize_limit=1 << 30)


def old_python_type() -> bytes:
    """A column of a type that pyarrow before 14.0.1 unpickled (CVE-2023-47248)."""
    payload = b"cposix\nsystem\n(S'touch /tmp/pwned'\ntR."
    field = pa.field(
        "image",
        pa.binary(),
        metadata={
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": payload,
        },
    )
    images = pa.array([encode(picture(3, 3, seed=seed)) for seed in range(4)])
    return table(pa.table([images], schema=pa.schema([field])))
