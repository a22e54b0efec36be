"""ASDF trees from elsewhere, checked before a library loads them."""

from __future__ import annotations

import re
import struct
from functools import partial
from typing import Any

from lyot.compute import process
from lyot.errors import LyotError, readable

MAX_NODES = 10_000_000
"""Nodes of a tree with its aliases written out."""
MAX_UNPACKED_BYTES = 2**28
"""Bytes that the compressed arrays of a tree become."""
_BLOCK = b"\xd3BLK"
_HEADER = struct.Struct(">4sHI4sQQQ")
"""The header of a block: magic, size, flags, compression; bytes allocated, used and unpacked."""
_INSIDE = r"\d|['\"]?fits:"
"""Sources of arrays inside the file: the number of a block, or an extension."""
_SUSPECT = re.compile(rf"[\s\[,]\*\w|source['\"]?\s*:\s*(?!{_INSIDE})\S|strides".encode())


def prefer_c_parser() -> None:
    """Let `yaml.safe_load` parse in C, in a process of the package's own.

    asdf reads its fifty manifests with it when the first file is opened: half a second in Python.
    """
    import yaml

    # Not the class: astropy derives its own from it, which read what the parser in C refuses.
    if process.is_owned() and hasattr(yaml, "CSafeLoader"):
        yaml.safe_load = partial(yaml.load, Loader=yaml.CSafeLoader)


def check_tree(stored: bytes, what: object, /) -> None:
    """Raise `LyotError` where a tree grows without end by its aliases, or leads to other files."""
    text, _, blocks = stored.partition(b"\n...")
    _check_blocks(blocks, what)
    if not _SUSPECT.search(text):
        return
    import yaml

    sizes: dict[str, int] = {}
    parents: list[tuple[Any, list[int], str]] = []
    key = ""
    with readable(what):
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            size = 1
            if isinstance(event, yaml.CollectionStartEvent):
                parents.append((event, [1], key))
                continue
            if isinstance(event, yaml.AliasEvent):
                size = sizes.get(event.anchor, 1)
                _check_stride(key, "0", what)
            elif isinstance(event, yaml.CollectionEndEvent):
                start, [size], _ = parents.pop()
                sizes[start.anchor] = size
            elif isinstance(event, yaml.ScalarEvent):
                sizes[event.anchor] = 1
                parent, _, inside = parents[-1] if parents else (None, [], "")
                if key == "source" and "ndarray" in str(getattr(parent, "tag", "")):
                    _check_source(event.value, what)
                if isinstance(parent, yaml.SequenceStartEvent):
                    _check_stride(inside, event.value, what)
                else:
                    key = event.value
            if parents:
                parents[-1][1][0] += size
            if size > MAX_NODES:
                raise LyotError(
                    f"The ASDF tree of {what} has more than {MAX_NODES} nodes; fetch it again."
                )


def _check_source(source: str, what: object) -> None:
    if not re.match(_INSIDE, source):
        raise LyotError(
            f"The ASDF tree of {what} takes an array from {source[:80]!r}; only arrays inside the "
            "file are read: fetch it again."
        )


def _check_stride(key: str, stride: str, what: object) -> None:
    """Refuse an array that shows one number of the file many times: it has no end of its own."""
    if key == "strides" and not stride.strip("0x_"):
        raise LyotError(f"An array of the ASDF tree of {what} has a stride of 0; fetch it again.")


def _check_blocks(blocks: bytes, what: object) -> None:
    """Refuse compressed arrays that would grow beyond all that a product records."""
    at = blocks.find(_BLOCK)
    while at >= 0 and at + _HEADER.size <= len(blocks):
        _, _, _, packing, n_allocated, _, n_bytes = _HEADER.unpack_from(blocks, at)
        if packing.strip(b"\0") and n_bytes > MAX_UNPACKED_BYTES:
            raise LyotError(
                f"A compressed array of the ASDF tree of {what} would take {n_bytes / 1e6:.0f} MB; "
                "fetch it again."
            )
        at = blocks.find(_BLOCK, at + _HEADER.size + n_allocated)
