"""Families of mutated inputs: each draws a change, applies it to its copy of the world, and says
what the answer must be where algebra tells it.

Changes that must not matter (an order, an unused keyword, a compression) are told from those that
may: of the first the products must be those of the unchanged input.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from astropy.io import fits

from lyot.instruments.instrument import Keywords
from robustness import fitsbytes
from robustness.harness import CANARY, Case, differing, insane

Expected = dict[tuple[str, str], np.ndarray]


@dataclass(frozen=True)
class World:
    """A small observation, its products and a library, from which cases copy what they mutate."""

    home: Path
    expected: Expected  # arrays of the products of ``one_asn.json``
    quick: bool = False  # whether few cases run the whole pipeline

    def copy(self, folder: Path, *parts: str) -> None:
        """Copy exposures and association, and what else is named."""
        for part in ("in", *parts):
            shutil.copytree(self.home / part, folder / part)


@dataclass
class Draw:
    """What a family works with: its random numbers, its copy of the world, and the world."""

    rng: np.random.Generator
    folder: Path
    world: World

    def one_of(self, values):
        """Choose one."""
        return values[int(self.rng.integers(len(values)))]

    def exposure(self, kind: str = "") -> Path:
        """Choose an exposure of the association."""
        members = json.loads((self.folder / "in/one_asn.json").read_text())["products"][0]
        names = [m["expname"] for m in members["members"] if kind in m["exptype"]]
        return self.folder / "in" / self.one_of(names)


RUN = ("run", "in/one_asn.json", "-o", "out", "--no-report", "--no-search", "-q")
ODD_VALUES = [
    *(b"'abc'", b"NAN", b"1E-300", b"1E400", b"-1", b"0", b"99999999999999999999", b"T", b"F"),
    *(b"''", b"'   '", b"(1.0, 2.0)", b"'\xe9'", b"1.0", b"'T'", b"'/../../x'", b"1E5", b"-1E5"),
    *(b"'NaN'", b"'<script>alert(1)</script>'", b"'" + b"x" * 66 + b"'", b"1D5", b"0x10", b""),
    *(b"'unterminated", b"= 3", b"'continued&'", b"7", b"0.5", b"-32", b"1E30", b"INF", b"\x00"),
]
DECIDING = re.compile(
    r"SIMPLE|BITPIX|NAXIS|EXTEND|XTENSION|PCOUNT|GCOUNT|EXTNAME|EXTVER|BSCALE|BZERO|BUNIT|BLANK"
    r"|T(FIELDS|FORM|TYPE|DIM|SCAL|ZERO|HEAP|NULL)\d*|THEAP|END|CONTINUE|DATAMODL|INSTRUME|CHANNEL"
    r"|MODULE|EXP_TYPE|C(TYPE|RVAL|DELT|UNIT)\d|PC\d_\d|WCSAXES|RADESYS|(RA|DEC)_REF|GROUPS|ZNAXIS"
    r"|TARG_(RA|DEC)|V[23]_REF|" + "|".join(Keywords().names)
)
"""Keywords that may decide what is made of the pixels; all others must not."""


def _commands(draw: Draw, path: Path, weights: tuple[float, ...] = (6, 2, 2, 1, 1, 1)) -> tuple:
    """Choose a command that reads an exposure."""
    p = np.array(weights if not draw.world.quick else (0.6, *weights[1:]), float)
    name = f"in/{path.name}"
    exposures = [f"in/{p.name}" for p in sorted((draw.folder / "in").glob("*_calints.fits*"))]
    choices = [
        RUN,
        ("info", name),
        ("asn", *exposures, "-o", "out/made_asn.json"),
        (*RUN, "--plan"),
        ("library", "build", "out/lib", name),
        ("psf", name, "--at", "0.5", "0.4", "--pixels", "9", "-o", "out/psf.fits"),
    ]
    return choices[draw.rng.choice(len(choices), p=p / p.sum())]


def _judged(draw: Draw, command: tuple, *, same: bool) -> Callable[[Path], str] | None:
    """Judge a run by what it must make; other commands make nothing to compare."""
    if command != RUN:
        return None
    expected = draw.world.expected
    rule = partial(differing, expected=expected) if same else partial(insane, expected=expected)
    return lambda folder: rule(folder / "out")


def headers(draw: Draw) -> Case:
    """Any card of any header of an exposure: odd values, gone, twice, or in another place."""
    draw.world.copy(draw.folder)
    path = draw.exposure()
    stored = path.read_bytes()
    unit = draw.one_of(fitsbytes.units(stored))
    names = [n for n in fitsbytes.keywords(stored, unit) if n not in ("", "COMMENT", "HISTORY")]
    key = draw.one_of(names)
    how = draw.one_of(["value", "value", "value", "gone", "again"])
    value = draw.one_of(ODD_VALUES)
    if how == "gone":
        stored = fitsbytes.without_card(stored, unit, key)
    else:
        stored = fitsbytes.with_card(stored, unit, key, value, again=how == "again")
    path.write_bytes(stored)
    command = _commands(draw, path)
    odd = not value or value[:1] in b"(=\x00i" or b"unterminated" in value or b"&" in value
    same = not DECIDING.fullmatch(key) and not odd
    change = f"{key} of {unit.name} in {path.name[:14]}: {how} {value!r}"
    return Case("headers", command, change, check=_judged(draw, command, same=same))


def values(draw: Draw) -> Case:
    """The keywords that the reduction reads, one to three of them."""
    draw.world.copy(draw.folder)
    path, changes = draw.exposure(), []
    keys = [*Keywords().names, "BUNIT", "INSTRUME", "EXP_TYPE", "MODULE", "CHANNEL"]
    for _ in range(draw.rng.integers(1, 4)):
        stored = path.read_bytes()
        found = fitsbytes.units(stored)
        key, value = draw.one_of(keys), draw.one_of(ODD_VALUES)
        unit = found[1] if key in fitsbytes.keywords(stored, found[1]) else found[0]
        path.write_bytes(fitsbytes.with_card(stored, unit, key, value))
        changes.append(f"{key} = {value!r}")
    command = _commands(draw, path)
    change = f"{path.name[:14]}: {', '.join(changes)}"
    return Case("values", command, change, check=_judged(draw, command, same=False))


def structure(draw: Draw) -> Case:
    """Truncations, bytes, blocks, extensions gone, twice, in another order, of another shape."""
    draw.world.copy(draw.folder)
    path = draw.exposure()
    how = draw.one_of([_truncated, _bytes, _block, _extensions, _retyped, _reshaped, _no_file])
    same, change = how(draw, path)
    command = _commands(draw, path)
    check = _judged(draw, command, same=same)
    return Case("structure", command, f"{path.name[:14]}: {change}", check=check)


def _truncated(draw: Draw, path: Path) -> tuple[bool, str]:
    stored = path.read_bytes()
    n = int(draw.rng.integers(len(stored)))
    n = n // 2880 * 2880 if draw.rng.random() < 0.3 else n
    path.write_bytes(stored[:n])
    return False, f"truncated to {n} bytes"


def _bytes(draw: Draw, path: Path) -> tuple[bool, str]:
    stored = bytearray(path.read_bytes())
    unit = draw.one_of(fitsbytes.units(bytes(stored)))
    first, last = draw.one_of([(unit.header, unit.data), (unit.header, unit.end)])
    n = int(draw.one_of([1, 1, 3, 30]))
    for place in draw.rng.integers(first, last, n):
        stored[place] = draw.rng.integers(256)
    path.write_bytes(bytes(stored))
    return False, f"{n} bytes of {unit.name}"


def _block(draw: Draw, path: Path) -> tuple[bool, str]:
    stored = path.read_bytes()
    place = int(draw.rng.integers(len(stored) // 2880)) * 2880
    how = draw.one_of(["removed", "twice", "zero", "blank"])
    block = stored[place : place + 2880]
    filling = {"removed": b"", "twice": 2 * block, "zero": bytes(2880), "blank": b" " * 2880}[how]
    path.write_bytes(stored[:place] + filling + stored[place + 2880 :])
    return False, f"block {place // 2880} {how}"


def _extensions(draw: Draw, path: Path) -> tuple[bool, str]:
    stored = path.read_bytes()
    found = fitsbytes.units(stored)
    parts = [stored[u.header : u.end] for u in found]
    k = int(draw.rng.integers(1, len(parts)))
    how = draw.one_of(["gone", "twice", "shuffled", "foreign"])
    if how == "gone":
        del parts[k]
    elif how == "twice":
        parts.append(parts[k])
    elif how == "shuffled":
        parts = [parts[0], *(parts[i] for i in draw.rng.permutation(range(1, len(parts))))]
    else:
        hdu = fits.ImageHDU(np.zeros((3, 4), np.int16), name="MINE")
        parts.append(hdu.header.tostring().encode() + bytes(2880))
    path.write_bytes(b"".join(parts))
    return how == "foreign", f"{found[k].name} {how}"


def _rewrite(path: Path, name: str, change: Callable[[fits.ImageHDU], fits.ImageHDU]) -> None:
    with fits.open(path, memmap=False) as hdus:
        hdus[name] = change(hdus[name])
        hdus.writeto(path, overwrite=True, output_verify="ignore")


def _retyped(draw: Draw, path: Path) -> tuple[bool, str]:
    """Numbers of another type that hold the same values."""
    name, kind = draw.one_of([("SCI", ">f8"), ("ERR", ">f8"), ("DQ", ">i4"), ("DQ", ">i8")])

    def change(hdu):
        header = hdu.header.copy()
        for key in ("BZERO", "BSCALE"):
            header.remove(key, ignore_missing=True)
        return fits.ImageHDU(hdu.data.astype(kind), header, name=name)

    _rewrite(path, name, change)
    return name != "DQ", f"{name} as {kind}"


def _reshaped(draw: Draw, path: Path) -> tuple[bool, str]:
    name = draw.one_of(["SCI", "ERR", "DQ"])
    rules = {
        "transposed": lambda a: a.transpose(),
        "flat": lambda a: a.ravel(),
        "four axes": lambda a: a[None],
        "one frame": lambda a: a[0],
        "cut": lambda a: a[:, 1:, :],
        "one pixel": lambda a: a[:, :1, :1],
        "narrow": lambda a: a[:, :, :2],
        "no integration": lambda a: a[:0],
        "complex": lambda a: a.astype(np.float32),
    }
    how = draw.one_of(sorted(rules))
    _rewrite(path, name, lambda h: fits.ImageHDU(rules[how](h.data), h.header, name=name))
    return False, f"{name} {how}"


def _no_file(draw: Draw, path: Path) -> tuple[bool, str]:
    how = draw.one_of(["empty", "text", "folder", "fifo", "loop", "missing", "random", "html"])
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "loop":
        path.symlink_to(path.name)
    elif how != "missing":
        text = {
            "empty": b"",
            "text": b"SIMPLE  =                    T",
            "html": b"<html>404</html>",
        }
        path.write_bytes(text.get(how, draw.rng.bytes(6000)))
    return False, how


def pixels(draw: Draw) -> Case:
    """Values of pixels: bad ones, absurd ones, constant frames; and scales that cannot matter."""
    draw.world.copy(draw.folder)
    kind = draw.one_of(["science", "psf"])
    path = draw.exposure(kind)
    name = draw.one_of(["SCI", "SCI", "ERR", "DQ"])
    share = float(draw.one_of([1e-3, 0.01, 0.1, 0.5, 0.9, 0.97, 1.0]))
    value = draw.one_of([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e38, 0.0, -1.0, 1e6, "scaled"])
    check = None
    if value == "scaled":
        for each in (draw.folder / "in").glob("*9002001*_calints.fits"):
            with fits.open(each, mode="update", memmap=False) as hdus:
                for extension in ("SCI", "ERR"):
                    hdus[extension].data *= 4.0
        check = partial(_same_subtraction, draw.world.expected)
        change = "references times 4"
    else:
        with fits.open(path, mode="update", memmap=False) as hdus:
            data = hdus[name].data
            at = draw.rng.random(data.shape) < share
            data[at] = value if name != "DQ" else draw.rng.integers(2**31)
        change = f"{share:g} of {name} of {path.name[:14]} = {value}"
        if name == "SCI" and share <= 1e-3 and not abs(value) <= 1e15:
            check = partial(_near, draw.world.expected)
    command = RUN if not draw.world.quick or draw.rng.random() < 0.3 else (*RUN, "--plan")
    judged = _judged(draw, command, same=False)
    return Case("pixels", command, change, check=check if check and command == RUN else judged)


def _same_subtraction(expected: Expected, folder: Path) -> str:
    wanted = {k: v for k, v in expected.items() if k[0].endswith("_psfsub.fits") and k[1] == "SCI"}
    return differing(folder / "out", wanted, rtol=2e-4)


def _near(expected: Expected, folder: Path) -> str:
    """A few bad pixels change little elsewhere: by less than the noise, at the median pixel."""
    if fault := insane(folder / "out", expected):
        return fault
    for (name, extension), before in expected.items():
        if name.endswith("_psfsub.fits") and extension == "SCI":
            now = fits.getdata(folder / "out" / name, extension)
            noise = np.nanmedian(np.abs(before - np.nanmedian(before)))
            apart = np.nanmedian(np.abs(now - before))
            if apart > 0.5 * noise:
                return f"{name} moved by {apart:.3g} with a noise of {noise:.3g}"
    return ""


ODD_TREES = [
    "x: " + "[" * 3000,
    "x: {a: 1, a: 2}",
    "x: !core/ndarray-1.1.0 {source: 'http://127.0.0.1:9/x', datatype: float64, shape: [3]}",
    f"x: !core/ndarray-1.1.0 {{source: '../{CANARY}', datatype: float64, shape: [3]}}",
    f"x: !core/ndarray-1.1.0 {{source: 'file://HERE/{CANARY}', datatype: float64, shape: [3]}}",
    "x: !core/ndarray-1.1.0 {source: 99, datatype: float64, shape: [3]}",
    "x: !core/ndarray-1.1.0 {source: 0, datatype: float64, shape: [100000, 100000]}",
    "x: !core/ndarray-1.1.0 {source: -1, datatype: float64, shape: ['*', 3]}",
    f"x: {{$ref: 'file://HERE/{CANARY}'}}",
    f"x: !core/external-1.0.0 {{target: '../{CANARY}', datatype: float64, shape: [3]}}",
    "x: !!python/object/apply:os.system ['touch pwned']",
    "x: !unknown/tag-1.0.0 {a: 1}",
    ".nan: 1",
    "? [1, 2]\n: 3",
    "x: !core/complex-1.0.0 1+1j",
    "x: '" + "y" * 100_000 + "'",
    "x: \x01",
    "\tx: 1",
    "lyot: 3",
    "lyot: {steps: 1}",
    "lyot: {steps: {stack_psfs: {dither_arcsec: abc, targets: 1}}}",
    "lyot: {star: {x: abc, y: 1}}",
    "lyot: {steps: {klip: {plane: 1}}}",
    "extra_fits: 1",
    "extra_fits: {PRIMARY: {header: [[a]]}}",
    "meta: []",
    "history: 5",
]


def trees(draw: Draw) -> Case:
    """The ASDF tree of an exposure or product."""
    draw.world.copy(draw.folder)
    path = draw.exposure()
    change, same = mutate_tree(draw, path)
    command = _commands(draw, path, (6, 1, 0.5, 0.5, 1, 0.5))
    check = _judged(draw, command, same=same)
    return Case("trees", command, f"{path.name[:14]}: {change}", check=check)


def mutate_tree(draw: Draw, path: Path) -> tuple[str, bool]:
    """Change the tree of a file; return the change and whether it must not matter."""
    tree = fitsbytes.tree_of(path)
    text, mark, blocks = tree.partition(b"\n...")
    how = draw.one_of(["bytes", "bytes", "line", "scalar", "insert", "insert", "bomb", "cut"])
    same, change = False, how
    if how == "bytes":
        changed = bytearray(text)
        for place in draw.rng.integers(len(changed), size=draw.one_of([1, 1, 5])):
            changed[place] = draw.rng.integers(256)
        text = bytes(changed)
    elif how == "line":
        lines = text.split(b"\n")
        k = int(draw.rng.integers(5, len(lines)))
        change = f"line {k} ({lines[k][:40]!r}) gone or twice"
        lines[k : k + 1] = [] if draw.rng.random() < 0.5 else [lines[k]] * 2
        text = b"\n".join(lines)
    elif how == "scalar":
        lines = text.split(b"\n")
        k = int(draw.rng.integers(5, len(lines)))
        head, colon, tail = lines[k].rpartition(b": ")
        odd = draw.one_of([b"abc", b".nan", b"[1, 2]", b"{}", b"null", b"-1", b"1e999", b"*no"])
        change = f"{head.strip()!r}: {tail[:20]!r} -> {odd!r}"
        lines[k] = head + colon + odd
        text = b"\n".join(lines)
    elif how == "insert":
        odd = draw.one_of(ODD_TREES)
        text += b"\n" + odd.replace("HERE", str(draw.folder.parent)).encode()
        change = odd[:60]
    elif how == "bomb":
        n, wide = draw.one_of([(9, 9), (30, 2), (3, 500)])
        rows = ["a0: &a0 [x]"]
        rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * wide)}]" for i in range(1, n + 1)]
        text += ("\n" + "\n".join(rows)).encode()
        change = f"{n} aliases of {wide}"
    else:
        text = text[: int(draw.rng.integers(len(text)))]
    fitsbytes.with_tree(path, text + mark + blocks)
    return change, same


def compressed(draw: Draw) -> Case:
    """Compressed members: whole ones must give the same products; others must not cost much."""
    draw.world.copy(draw.folder)
    path = draw.exposure()
    packed = path.with_name(path.name + ".gz")
    how = draw.one_of(["whole", "truncated", "bytes", "bomb", "bomb", "twice", "plain", "header"])
    stored = gzip.compress(path.read_bytes(), 1)
    if how == "truncated":
        stored = stored[: int(draw.rng.integers(len(stored)))]
    elif how == "bytes":
        changed = bytearray(stored)
        changed[int(draw.rng.integers(len(changed)))] ^= 1 << int(draw.rng.integers(8))
        stored = bytes(changed)
    elif how == "bomb":
        stored += gzip.compress(draw.one_of([b" ", b"\0"]) * 2**26, 9) * int(draw.one_of([16, 300]))
    elif how == "twice":
        stored = gzip.compress(stored)
    elif how == "plain":
        stored = path.read_bytes()
    elif how == "header":
        raw = path.read_bytes()
        unit = fitsbytes.units(raw)[1]
        raw = fitsbytes.with_card(raw, unit, "NAXIS3", b"99999999")
        stored = gzip.compress(raw, 1)
    packed.write_bytes(stored)
    path.unlink()
    table = draw.folder / "in/one_asn.json"
    table.write_text(table.read_text().replace(f'"{path.name}"', f'"{packed.name}"'))
    command = _commands(draw, packed, (3, 2, 1, 1, 1, 1))
    check = _judged(draw, command, same=how in ("whole", "plain"))
    return Case("compressed", command, f"{path.name[:14]}: {how}", check=check)


ODD_JSON = [
    *(None, True, 0, -1, 1e308, "", " ", "..", "/etc/passwd", "../../evil", "a/b", "\\", "\0"),
    *("é😀", "\u202e", "\ud800", "x" * 5000, [], {}, [[]], [None], {"a": 1}, "psf", "SCIENCE"),
    *("science", "nul", "-o", "--help", "%s", "$HOME", "~", "a\nb", "<b>", "one_calints.fits", "*"),
]


def _nodes(value, path=()):
    yield path
    if isinstance(value, dict):
        items = value.items()
    else:
        items = enumerate(value if isinstance(value, list) else ())
    for key, item in items:
        yield from _nodes(item, (*path, key))


def associations(draw: Draw) -> Case:
    """The association: its values, its text, and orders that must not matter."""
    draw.world.copy(draw.folder)
    table = draw.folder / "in/one_asn.json"
    content = json.loads(table.read_text())
    how = draw.one_of(["value", "value", "value", "gone", "bytes", "text", "order", "extra"])
    same, change = how in ("order", "extra"), how
    if how in ("value", "gone"):
        path = draw.one_of(list(_nodes(content))[1:])
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        odd = draw.one_of(ODD_JSON)
        change = f"{'.'.join(map(str, path))} {how} {ascii(odd)[:60]}"
        if how == "gone":
            del parent[path[-1]]
        else:
            parent[path[-1]] = odd
    elif how == "order":
        members = content["products"][0]["members"]
        content["products"][0]["members"] = members[::-1] if len(members) < 3 else members
        content = dict(reversed(content.items()))
    elif how == "extra":
        content["foreign"] = draw.one_of(ODD_JSON[:10])
        content["products"][0]["members"].append({"expname": "none.fits", "exptype": "background"})
    text = json.dumps(content)
    if how == "bytes":
        changed = bytearray(text.encode())
        changed[int(draw.rng.integers(len(changed)))] = draw.rng.integers(256)
        table.write_bytes(bytes(changed))
    else:
        if how == "text":
            text = draw.one_of(
                [
                    "",
                    "[]",
                    "null",
                    "[" * 100_000,
                    '{"a":' * 5000,
                    text[:-20],
                    text * 2,
                    "NaN",
                    '"x"',
                ]
            )
        table.write_text(text)
    command = RUN if draw.rng.random() < (0.05 if draw.world.quick else 0.5) else (*RUN, "--plan")
    check = _judged(draw, command, same=same)
    if command == RUN and not same:
        check = None  # names of products may be others
    return Case("associations", command, change, check=check)
