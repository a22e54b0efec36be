"""ASDF trees from elsewhere, checked before a library loads them."""

from __future__ import annotations

import re
from typing import Any

from lyot.errors import LyotError, readable

MAX_NODES = 10_000_000
"""Nodes of a tree with its aliases written out."""
_INSIDE = r"\d|['\"]?fits:"
"""Sources of arrays inside the file: the number of a block, or an extension."""
_SUSPECT = re.compile(rf"[\s\[,]\*\w|source['\"]?\s*:\s*(?!{_INSIDE})\S".encode())


def check_tree(stored: bytes, what: object, /) -> None:
    """Raise `LyotError` where a tree grows without end by its aliases, or leads to other files."""
    text = stored.partition(b"\n...")[0]
    if not _SUSPECT.search(text):
        return
    import yaml

    sizes: dict[str, int] = {}
    parents: list[tuple[Any, list[int]]] = []
    key = ""
    with readable(what):
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            size = 1
            if isinstance(event, yaml.CollectionStartEvent):
                parents.append((event, [1]))
                continue
            if isinstance(event, yaml.AliasEvent):
                size = sizes.get(event.anchor, 1)
            elif isinstance(event, yaml.CollectionEndEvent):
                start, [size] = parents.pop()
                sizes[start.anchor] = size
            elif isinstance(event, yaml.ScalarEvent):
                sizes[event.anchor] = 1
                tag = str(parents[-1][0].tag) if parents else ""
                if key == "source" and "ndarray" in tag and not re.match(_INSIDE, event.value):
                    raise LyotError(
                        f"The ASDF tree of {what} takes an array from {event.value[:80]!r}; only "
                        "arrays inside the file are read: fetch it again."
                    )
                key = event.value
            if parents:
                parents[-1][1][0] += size
            if size > MAX_NODES:
                raise LyotError(
                    f"The ASDF tree of {what} has more than {MAX_NODES} nodes; fetch it again."
                )
