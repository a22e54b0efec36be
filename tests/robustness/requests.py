"""Families of mutated parameters, libraries, run folders, tables and steps (see `inputs`)."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from lyot.parameters import COMMANDS, STEPS, parameters_of
from robustness import fitsbytes
from robustness.harness import Case, differing
from robustness.inputs import ODD_JSON, ODD_VALUES, RUN, Draw, _nodes, mutate_tree

ODD_TEXTS = [
    *("abc", "", " ", "None", "nan", "inf", "-inf", "1e308", "-1", "0", "1", "0.5", "1e-300", "2"),
    *("99999999999", "99999999999999999999", "1,2,3", "1,,2", ",", "5,1,5", "true", "True", "'1'"),
    *("a=b", "../../x", "/", "in", "nul\0", "é", "%s", "{}", "[1]", "-1,-2", "1e5", "64"),
    *("in/one_asn.json", "in/missing.fits", "lib", "SCIENCE", "x" * 3000),
]
SHORT = ("--separations", "0.6", "--star-mag", "5")


def parameters(draw: Draw) -> Case:
    """Any parameter of any step or analysis, with a value of any kind."""
    rng = draw.rng
    steps = [(s, p) for s, kinds in STEPS.items() for k in kinds for p in parameters_of(k)]
    exposure = draw.world.expected and sorted((draw.world.home / "in").glob("*_calints.fits"))[0]
    if rng.random() < (0.75 if draw.world.quick else 0.6):
        draw.world.copy(draw.folder)
        command = [*RUN]
        for _ in range(rng.integers(1, 3)):
            step, each = draw.one_of(steps)
            value = draw.one_of([*ODD_TEXTS, *each.choices, f"in/{exposure.name}"])
            command += ["--set", f"{step}.{each.step}={value}"]
        if draw.world.quick and rng.random() < 0.85:
            command.append("--plan")
        return Case("parameters", tuple(t for t in command if "\0" not in t), " ".join(command[7:]))
    draw.world.copy(draw.folder, "run")
    name = draw.one_of(sorted(COMMANDS))
    own = [p for kind in COMMANDS[name] for p in parameters_of(kind)]
    command = [name, f"in/{exposure.name}" if name == "psf" else "run"]
    if name == "psf" or rng.random() < 0.9:
        command += {
            "contrast": [*SHORT],
            "companion": ["--at", "0.7", "40", "--likelihoods", "0"],
        }.get(name, ["--at", "0.5", "0.4", "-o", "out/psf.fits"] if name == "psf" else [])
    for _ in range(rng.integers(1, 3)):
        each = draw.one_of(own)
        n = {"at": 2, "known": 2, "disc": 2}.get(each.step, 1)
        odd = [draw.one_of([*ODD_TEXTS, *each.choices, f"in/{exposure.name}"]) for _ in range(n)]
        command += [f"--{each.step.replace('_', '-')}", *odd]
    if name != "psf":
        command += ["-o", "out"]
    return Case("parameters", tuple(t.replace("\0", "?") for t in command), " ".join(command[2:]))


CONDITIONS = [
    *("target = 'DEMO-REF'", "1", "0", "mjd > 0", "number in (0, 1)", "1) --", "1) LIMIT 1 --"),
    *("1) UNION SELECT * FROM settings --", "1; DROP TABLE frames", "1) ; DELETE FROM frames --"),
    "(WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c) > 0",
    "number IN (SELECT number FROM frames)",
    "EXISTS (SELECT 1 FROM sqlite_master)",
    "load_extension('x')",
    "writefile('pwned', 'x')",
    "randomblob(1000000000) > 0",
    "length(zeroblob(2000000000)) > 0",
    "target LIKE '" + "%a" * 5000 + "'",
    "(" * 2000 + "1" + ")" * 2000,
    "'" * 3,
    "target = ? ",
    "nothing = 1",
    "1 ORDER BY number",
    "1) UNION ALL SELECT 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18 --",
    "\x00",
    "/* */ 1",
    "ATTACH DATABASE 'pwned' AS x",
    "PRAGMA journal_mode = DELETE",
    "replace(hex(zeroblob(100000000)), '00', 'aaaaaaaaaaaaaaaaaaaa') = ''",
]


def libraries(draw: Draw) -> Case:
    """A library from elsewhere: its index, its arrays, and conditions on its columns."""
    draw.world.copy(draw.folder, "lib")
    how = draw.one_of(["where", "index bytes", "index row", "settings", "json", "chunk", "swap"])
    command = draw.one_of(
        [
            ("library", "list", "lib"),
            ("library", "check", "lib"),
            ("library", "add", "lib", f"in/{draw.exposure('psf').name}"),
            ("library", "select", "lib", f"in/{draw.exposure('science').name}"),
            (*RUN, "--library", "lib", *(["--plan"] if draw.world.quick else [])),
        ]
    )
    change, path = how, draw.folder / "lib"
    if how == "where":
        change = draw.one_of(CONDITIONS).replace("\0", "?")
        target = f"in/{draw.exposure('science').name}"
        command = draw.one_of(
            [
                ("library", "list", "lib", "--where", change),
                ("library", "select", "lib", target, "--library-where", change),
                (*RUN, "--library", "lib", "--library-where", change),
            ][: 2 if draw.world.quick else 3]
        )
    elif how == "index bytes":
        stored = bytearray((path / "index.sqlite").read_bytes())
        for place in draw.rng.integers(len(stored), size=draw.one_of([1, 20])):
            stored[place] = draw.rng.integers(256)
        (path / "index.sqlite").write_bytes(bytes(stored[: draw.one_of([len(stored), 3000, 0])]))
    elif how in ("index row", "settings"):
        change = _mutate_index(draw, path / "index.sqlite", how)
    else:
        change = _mutate_arrays(draw, path, how)
    return Case("libraries", command, change, written=("out", "lib"))


def _mutate_index(draw: Draw, path: Path, how: str) -> str:
    odd = draw.one_of([None, "abc", -1, 10**12, 1e308, "../../../in", b"\xff", "[]", "{", "null"])
    with closing(sqlite3.connect(path)) as index, index:
        if how == "settings":
            key = draw.one_of([row[0] for row in index.execute("SELECT key FROM settings")])
            if draw.rng.random() < 0.3:
                index.execute("DELETE FROM settings WHERE key = ?", (key,))
                return f"settings {key} gone"
            value = draw.one_of([str(odd), '"x"', "[1, 2, 3]", "[-1, 5]", "[1e9, 1e9]", "0"])
            index.execute("UPDATE settings SET value = ? WHERE key = ?", (value, key))
            return f"settings {key} = {value[:20]}"
        table = draw.one_of(["frames", "frames", "batches"])
        columns = [row[1] for row in index.execute(f"PRAGMA table_info({table})")]
        column = draw.one_of(columns)
        try:
            if draw.rng.random() < 0.2:
                index.execute(f"DELETE FROM {table} WHERE rowid = 1")
                return f"a row of {table} gone"
            index.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = 1", (odd,))
        except sqlite3.Error:
            index.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO foreign_name")
        return f"{table}.{column} = {odd!r}"


def _mutate_arrays(draw: Draw, path: Path, how: str) -> str:
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.parent != path)
    if how == "json":
        file = draw.one_of([p for p in files if p.name == "zarr.json"])
        content = json.loads(file.read_text())
        nodes = list(_nodes(content))[1:]
        where = draw.one_of(nodes)
        parent = content
        for key in where[:-1]:
            parent = parent[key]
        odds = [*ODD_JSON[:12], 2, 3, "float32", "int8", "complex128", "pickle", 10**9, [10**6] * 3]
        parent[where[-1]] = draw.one_of(odds)
        file.write_text(json.dumps(content))
        return f"{file.relative_to(path)} {where}: {parent[where[-1]]!r}"[:120]
    file = draw.one_of([p for p in files if p.name != "zarr.json"])
    if how == "chunk":
        stored = bytearray(file.read_bytes())
        stored[int(draw.rng.integers(len(stored)))] ^= 255
        keep = draw.one_of([len(stored), len(stored) // 2, 0])
        file.write_bytes(bytes(stored[:keep]))
        return f"{file.relative_to(path)} changed, {keep} bytes"
    other = draw.one_of(["gone", "folder", "v2"])
    if other == "v2":
        import zarr

        batch = next((path / "frames").iterdir())
        shutil.rmtree(batch)
        zarr.open_group(str(batch), mode="w", zarr_format=2)
        return "a batch of zarr format 2"
    file.unlink()
    if other == "folder":
        file.mkdir()
    return f"{file.relative_to(path)} {other}"


ANALYSES = [
    ("report", "run"),
    ("contrast", "run", *SHORT),
    ("detect", "run"),
    ("companion", "run", "--at", "0.7", "40", "--likelihoods", "0"),
    ("run", "in/one_asn.json", "-o", "run", "-q"),
]


def runs(draw: Draw) -> Case:
    """Products of a finished run, changed by someone, and commands that read them."""
    draw.world.copy(draw.folder, "run")
    kinds = ["psfsub", "psfsub", "psfalign", "crfints", "i2d", "snr", "contrast", "psfstack"]
    [path] = (draw.folder / "run").glob(f"*_{draw.one_of(kinds)}.fits")
    how = draw.one_of(["tree", "tree", "card", "card", "truncated", "bytes", "gone", "json"])
    change = how
    if how == "tree":
        change, _ = mutate_tree(draw, path)
    elif how == "card":
        stored = path.read_bytes()
        unit = draw.one_of(fitsbytes.units(stored))
        names = [n for n in fitsbytes.keywords(stored, unit) if n not in ("", "COMMENT")]
        key, value = draw.one_of(names), draw.one_of(ODD_VALUES)
        path.write_bytes(fitsbytes.with_card(stored, unit, key, value))
        change = f"{key} of {unit.name} = {value!r}"
    elif how == "truncated":
        stored = path.read_bytes()
        path.write_bytes(stored[: int(draw.rng.integers(len(stored)))])
    elif how == "bytes":
        stored = bytearray(path.read_bytes())
        for place in draw.rng.integers(len(stored), size=5):
            stored[place] = draw.rng.integers(256)
        path.write_bytes(bytes(stored))
    elif how == "gone":
        path.unlink()
    else:
        [path] = (draw.folder / "run").glob("*_run.json")
        content = json.loads(path.read_text())
        where = draw.one_of(list(_nodes(content))[1:])
        parent = content
        for key in where[:-1]:
            parent = parent[key]
        parent[where[-1]] = draw.one_of(ODD_JSON)
        path.write_text(json.dumps(content))
        change = f"{where} = {ascii(parent[where[-1]])[:40]}"
    p = np.array([3, 1, 1, 1, 2] if not draw.world.quick else [4, 0.15, 0.15, 0.15, 0.3])
    if draw.rng.random() < (0.5 if draw.world.quick else 0.2):
        command: tuple[str, ...] = ("info", f"run/{path.name}")
    else:
        command = ANALYSES[draw.rng.choice(len(ANALYSES), p=p / p.sum())]
    # What was changed, gone or cut is made again, as it was.
    again = command[0] == "run"
    check = partial(_reduced_again, draw.world) if again else None
    return Case("runs", command, f"{path.name}: {change}", ("run",), check)


def _reduced_again(world, folder: Path) -> str:
    return differing(folder / "run", world.expected)


def tables(draw: Draw) -> Case:
    """Tables that a user supplies, and those of an analysis that the report reads."""
    draw.world.copy(draw.folder, "run")
    text = "mjd,rms_nm\n60000.0,70.0\n60001.0,71.0\n"
    spectrum = "".join(f"{0.6 + 0.1 * k:.1f} {1.0 / (k + 1):.4f}\n" for k in range(60))
    name, text, command = draw.one_of(
        [
            (
                "waves.csv",
                text,
                (
                    *("library", "build", "out/lib", f"in/{draw.exposure('psf').name}"),
                    *("--wavefront", "in/waves.csv"),
                ),
            ),
            (
                "star.txt",
                spectrum,
                (
                    *("contrast", "run", *SHORT[:2], "--star-spectrum", "in/star.txt"),
                    *("-o", "out"),
                ),
            ),
            ("limits", "", ("report", "run")),
            ("limits", "", ("report", "run")),
        ]
    )
    if name == "limits":
        path = draw.one_of(sorted((draw.folder / "run").glob("*.ecsv")))
        text = path.read_text()
    else:
        path = draw.folder / "in" / name
    stored = bytearray(text.encode())
    how = draw.one_of(["bytes", "cut", "word", "word", "empty", "twice", "binary"])
    if how == "bytes":
        for place in draw.rng.integers(len(stored), size=5):
            stored[place] = draw.rng.integers(256)
    elif how == "cut":
        stored = stored[: int(draw.rng.integers(len(stored)))]
    elif how == "word":
        words = bytes(stored).split(b" " if b" " in stored else b",")
        words[int(draw.rng.integers(len(words)))] = draw.one_of(
            [b"abc", b"nan", b"-1", b"", b"1e999"]
        )
        stored = bytearray((b" " if b" " in stored else b",").join(words))
    else:
        stored = {"empty": b"", "twice": 2 * stored, "binary": draw.rng.bytes(300)}[how]
    path.write_bytes(bytes(stored))
    return Case("tables", command, f"{path.name}: {how}", ("run", "out"))


def steps(draw: Draw) -> Case:
    """A step by itself, by strun: on mutated products, and with odd parameters."""
    draw.world.copy(draw.folder, "run")
    found = {
        k: next((draw.folder / "run").glob(f"*_{k}.fits"))
        for k in ("crfints", "psfalign", "psfsub", "psfstack", "i2d")
    }
    step, *names = draw.one_of(
        [
            ("KlipStep", "crfints", "psfalign"),
            ("AlignRefsStep", "crfints", "psfstack"),
            ("OutlierDetectionStep", "crfints"),
            ("StackRefsStep", "crfints"),
            ("ResampleStep", "psfsub"),
            ("HlspStep", "i2d"),
        ]
    )
    alias = {"KlipStep": "klip", "AlignRefsStep": "align_refs", "ResampleStep": "resample"}.get(
        step
    )
    options: list[str] = []
    how = draw.one_of(["card", "tree", "parameter", "missing", "truncated", "other"])
    path, change = found[names[0]], how
    if how == "parameter" and alias:
        each = draw.one_of([p for kind in STEPS[alias] for p in parameters_of(kind)])
        value = draw.one_of(ODD_TEXTS).replace("\0", "?")
        options = [f"--{each.step}={value}"]
        change = options[0][:80]
    elif how == "card":
        stored = path.read_bytes()
        unit = draw.one_of(fitsbytes.units(stored)[:2])
        names_of_unit = [n for n in fitsbytes.keywords(stored, unit) if n not in ("", "COMMENT")]
        key, value = draw.one_of(names_of_unit), draw.one_of(ODD_VALUES)
        path.write_bytes(fitsbytes.with_card(stored, unit, key, value))
        change = f"{key} = {value!r}"
    elif how == "tree":
        change, _ = mutate_tree(draw, path)
    elif how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[: int(draw.rng.integers(10_000))])
    elif how == "other":
        names = [draw.one_of(sorted(found)) for _ in names]
    files = [f"run/{found[name].name}" for name in names]
    module = f"lyot.steps.{step}"
    command = ("strun", module, *files, "--output_dir=out", *options)
    return Case("steps", command, f"{path.name}: {change}")
