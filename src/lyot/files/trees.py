"""ASDF trees from elsewhere, checked before they are loaded, and read as plain values."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from lyot.compute import process
from lyot.errors import LyotError, readable

MAX_NODES = 10_000_000
"""Nodes of a tree with its aliases written out."""
MAX_UNPACKED_BYTES = 2**28
"""Bytes that the compressed arrays of a tree become."""
_END = b"\n..."
_BLOCK = b"\xd3BLK"
_HEADER = struct.Struct(">4sHI4sQQQ")
"""The header of a block: magic, size, flags, compression; bytes allocated, used and unpacked."""
_SIZE_OF_START = 6
"""Bytes before those that the size of the header counts."""
_INSIDE = r"\d|['\"]?fits:"
"""Sources of arrays inside the file: the number of a block, or an extension."""
_SUSPECT = re.compile(rf"[\s\[,]\*\w|source['\"]?\s*:\s*(?!{_INSIDE})\S|strides".encode())

_OF_AN_ARRAY = {"source", "data", "datatype", "byteorder", "shape", "offset", "strides"}
"""What describes an array of plain numbers."""


def hasten_schemas() -> None:
    """Let asdf parse its manifests in C, and each schema once, in a process of the package's own.

    It reads its fifty manifests by `yaml.safe_load` when the first file is opened: half a second in
    Python. And of each product that it checks it parses the schemas of all tags again, by
    `yaml.load` of their bytes: a fifth of the time of saving it.
    """
    if process.is_owned():
        _hasten_schemas()


@cache
def _hasten_schemas() -> None:
    """Do so once: a survey reduces many associations in a process."""
    import yaml

    if not hasattr(yaml, "CSafeLoader"):
        return
    parse, schemas = yaml.load, dict[bytes, Any]()

    def _load(stream: Any, Loader: Any) -> Any:
        if not (isinstance(stream, bytes) and Loader.__module__.startswith("asdf.")):
            return parse(stream, Loader)
        if stream not in schemas:
            schemas[stream] = parse(stream, Loader)
        return schemas[stream]

    # Not the class: astropy derives its own from it, which read what the parser in C refuses.
    yaml.safe_load = partial(parse, Loader=yaml.CSafeLoader)
    yaml.load = _load


def check_tree(stored: bytes, what: object, /) -> None:
    """Raise `LyotError` where a tree grows without end by its aliases, or leads to other files."""
    text, _, rest = stored.partition(_END)
    for packing, _, n_bytes in _blocks(rest):
        if packing and n_bytes > MAX_UNPACKED_BYTES:
            raise LyotError(
                f"A compressed array of the ASDF tree of {what} would take {n_bytes / 1e6:.0f} MB; "
                "fetch it again."
            )
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


def _blocks(rest: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield how each array is compressed, its bytes in the file, and how many they become."""
    at = rest.find(_BLOCK)
    while at >= 0 and at + _HEADER.size <= len(rest):
        _, size, _, packing, n_allocated, n_used, n_bytes = _HEADER.unpack_from(rest, at)
        first = at + _SIZE_OF_START + size
        yield packing.strip(b"\0"), rest[first : first + n_used], n_bytes
        at = rest.find(_BLOCK, at + _HEADER.size + n_allocated)


def read_branch(stored: bytes, name: str, what: object, /) -> dict[str, Any]:
    """Return an ASDF tree as plain values, with the arrays of one of its branches.

    asdf would first import what reads the objects of all packages: more than a second.
    """
    import yaml

    check_tree(stored, what)
    text, end, rest = stored.partition(_END)
    tree = yaml.load(text, Loader=_plain_loader())
    if not (end and isinstance(tree, dict)):
        raise ValueError("its tree is not whole")
    return {**tree, name: _with_arrays(tree.get(name, {}), list(_blocks(rest)))}


class _Array(NamedTuple):
    """An array as a tree describes it."""

    description: Any


@cache
def _plain_loader() -> Any:
    """Return a loader of YAML that makes no objects: of other types, what they are written as."""
    import yaml

    class _Plain(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    def _make(loader: Any, tag: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            made = loader.construct_mapping(node, deep=True)
        elif isinstance(node, yaml.SequenceNode):
            made = loader.construct_sequence(node, deep=True)
        else:
            made = loader.construct_scalar(node)
        return _Array(made) if "core/ndarray-" in tag else made

    _Plain.add_multi_constructor("", _make)
    return _Plain


def _with_arrays(node: Any, blocks: list[tuple[bytes, bytes, int]]) -> Any:
    if isinstance(node, _Array):
        return _array(node.description, blocks)
    if isinstance(node, dict):
        return {key: _with_arrays(each, blocks) for key, each in node.items()}
    return [_with_arrays(each, blocks) for each in node] if isinstance(node, list) else node


def _array(node: Any, blocks: list[tuple[bytes, bytes, int]]) -> Any:
    """Return an array of numbers as a tree describes it."""
    if isinstance(node, list):
        node = {"data": node}
    kind = node.get("datatype", "float64")
    dtype = np.dtype("bool" if kind == "bool8" else kind)
    if dtype.kind not in "biufc" or not node.keys() <= _OF_AN_ARRAY:
        raise ValueError("an array of its tree holds no plain numbers")
    if "data" in node:
        array = np.asarray(node["data"], dtype)
        return array.reshape(node.get("shape", array.shape))
    number, shape = node["source"], tuple(node["shape"])
    if number not in range(len(blocks)):
        raise ValueError(f"block {number} of its tree is missing")
    packing, data, n_bytes = blocks[number]
    if packing == b"zlib":
        data = zlib.decompressobj().decompress(data, n_bytes)
    elif packing:
        raise ValueError(f"an array of its tree is compressed by {packing.decode('latin-1')}")
    if math.prod(shape) * dtype.itemsize > len(data):
        raise ValueError("an array of its tree is larger than its block")
    dtype = dtype.newbyteorder(node["byteorder"])
    return np.ndarray(shape, dtype, data, node.get("offset", 0), node.get("strides"))
