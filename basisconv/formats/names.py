"""Names that are unique, and a stranger's words in sentences. Without torch: files are refused before it."""

_SHOWN = 100  # letters of a stranger's word in a sentence of ours


class Names:
    """Hands out each name once; a repeated one gets _1, _2 …"""

    def __init__(self, taken: set[str] | None = None) -> None:
        self._taken = set(taken or ())

    def unique(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name


def quoted(word: object, most: int = _SHOWN) -> str:
    """A stranger's word as it may stand in a sentence: in quotes, without control characters, and short."""
    return shortened(repr(word), most)


def shortened(text: str, most: int = _SHOWN) -> str:
    """Its beginning and its end, where a text is long."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
