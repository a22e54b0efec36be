"""FITS files changed byte by byte, as no library would write them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits

BLOCK, CARD = 2880, 80


class Unit(NamedTuple):
    """Where a header and its data lie in a file."""

    header: int
    data: int
    end: int
    n_cards: int
    name: str


def units(stored: bytes) -> list[Unit]:
    """Return where the HDUs of a well-formed file lie."""
    found, at = [], 0
    while at < len(stored):
        cards = {}
        for n_cards in range(10_000):
            card = stored[at + n_cards * CARD : at + (n_cards + 1) * CARD].decode("latin-1")
            if card.startswith("END "):
                break
            if card[8:10] == "= ":
                cards[card[:8].strip()] = card[10:].partition("/")[0].strip().strip("' ")
        data = at + -(-(n_cards + 1) * CARD // BLOCK) * BLOCK
        sizes = [int(cards[f"NAXIS{i + 1}"]) for i in range(int(cards["NAXIS"]))]
        n_bytes = abs(int(cards["BITPIX"])) // 8 * int(np.prod(sizes)) if sizes else 0
        end = data + -(-n_bytes // BLOCK) * BLOCK
        found.append(Unit(at, data, end, n_cards, cards.get("EXTNAME", "PRIMARY")))
        at = end
    return found


def keywords(stored: bytes, unit: Unit) -> list[str]:
    """Return the keywords of a header, by card; empty where a card has none."""
    places = range(unit.header, unit.header + unit.n_cards * CARD, CARD)
    return [stored[p : p + 8].decode("latin-1").strip() for p in places]


def with_card(stored: bytes, unit: Unit, key: str, value: bytes, *, again: bool = False) -> bytes:
    """Give a keyword a value as it would be typed; it takes a comment's place where it is new."""
    names = keywords(stored, unit)
    free = [i for i, name in enumerate(names) if name in ("", "COMMENT")]
    number = names.index(key) if key in names and not again else (free or [unit.n_cards - 1])[-1]
    card = (f"{key:<8}= ".encode() + value)[:CARD].ljust(CARD)
    place = unit.header + number * CARD
    return stored[:place] + card + stored[place + CARD :]


def without_card(stored: bytes, unit: Unit, key: str) -> bytes:
    """Blank a card."""
    place = unit.header + keywords(stored, unit).index(key) * CARD
    return stored[:place] + b" " * CARD + stored[place + CARD :]


def tree_of(path: Path) -> bytes:
    """Return the bytes of the ASDF extension."""
    with fits.open(path) as hdus:
        return np.asarray(hdus["ASDF"].data).tobytes()


def with_tree(path: Path, tree: bytes) -> None:
    """Replace the ASDF extension."""
    rows = np.frombuffer(tree, dtype=[("ASDF_METADATA", "u1", (len(tree),))])
    with fits.open(path, memmap=False) as hdus:
        hdus["ASDF"] = fits.BinTableHDU(rows, name="ASDF")
        hdus.writeto(path, overwrite=True, output_verify="ignore")
