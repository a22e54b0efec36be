"""Commands killed at random moments, and what the next command makes of it: ``make kill``.

    python -m robustness.kills --kills 1000 --seed 1

After each kill, every product that is there must be one of an undisturbed run; and the same command
given again must end with all products, as an undisturbed one makes them, and nothing left over.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import robustness.fuzz as fuzz
from robustness.harness import arrays_of, fresh
from robustness.requests import SHORT

SEED = 1


@dataclass
class Series:
    """A command, what it works on, and what it must leave."""

    name: str
    command: tuple[str, ...]  # relative to the folder where it runs
    parts: tuple[str, ...]  # of the world, copied for it
    state: Callable[[Path], dict]  # what is there, by name: whole or not at all
    expected: dict = field(default_factory=dict)
    duration_s: float = 0.0
    complete: bool = True  # whether what is there was made to its end


def start(command: tuple[str, ...], folder: Path) -> int:
    """Start a command in a forked child, and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.chdir(folder)
        from lyot.cli import main

        main(list(command), standalone_mode=False)
        status = 0
    except SystemExit as err:
        status = err.code if isinstance(err.code, int) else 1
    finally:
        os._exit(status)


def products(folder: Path) -> dict:
    """The arrays of all products below ``out``, and of the run that a contrast was measured in."""
    found = {}
    for home in sorted(
        {path.parent for path in folder.rglob("*.fits") if ".lyot-" not in str(path)}
    ):
        if home.name != "in":
            name = str(home.relative_to(folder))
            found |= {(name, *key): array.tobytes() for key, array in arrays_of(home).items()}
    for path in folder.rglob("*_limits.ecsv"):
        if ".lyot-" not in str(path):
            found["limits", path.name] = path.read_bytes()
    return found


def frames(folder: Path) -> dict:
    """The frames of a library, and whether its Gram matrix is that of its frames."""
    from lyot.files.library_store import INDEX, Library
    from lyot.references.library import check

    if not (folder / "lib" / INDEX).is_file():
        return {}
    library = Library(folder / "lib")
    rows = library.query()
    cube = library.frames(range(len(rows)))
    found = {
        (row["file"], row["integration"]): (cube.sci[k].tobytes(), cube.dq[k].tobytes())
        for k, row in enumerate(rows)
    }
    if rows:
        found["gram"] = check(library) < 1e-9
    return found


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders, and batches that no index lists."""
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.name.startswith(".lyot-")]
    if (folder / "lib").is_dir():
        from lyot.files.library_store import FRAMES, Library

        n_batches = len({row["sha256"] for row in Library(folder / "lib").query()})
        if len(list((folder / "lib" / FRAMES).iterdir())) != n_batches:
            names.append("folders of frames that no index lists")
    return names


def prepare(world: fuzz.World, series: Series, folder: Path) -> None:
    """Make the folder where a series runs."""
    world.copy(fresh(folder), *series.parts)
    if series.name == "contrast":  # what it makes is not there yet
        for kind in ("limits", "sensitivity", "completeness"):
            for path in (folder / "run").glob(f"*_{kind}.*"):
                path.unlink()
    if series.name == "library add":
        shutil.copytree(world.home / "empty", folder / "lib")
    if series.name == "survey":
        content = json.loads((folder / "in/one_asn.json").read_text())
        content["products"][0]["name"] = "two"
        (folder / "in/two_asn.json").write_text(json.dumps(content))


def kill_once(world: fuzz.World, series: Series, folder: Path, rng) -> str:
    """Kill a command once and give it again; say what is wrong then, if anything is."""
    if not folder.exists() or series.complete:
        prepare(world, series, folder)
    pid = start(series.command, folder)
    time.sleep(rng.uniform(0.0, 1.1) * series.duration_s)
    os.kill(pid, signal.SIGKILL)
    landed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    # However busy the computer is now: one in eleven comes too late.
    series.duration_s *= 1.01 if landed else 0.9
    for key, value in series.state(folder).items():
        if key not in series.expected:
            return f"{key} is there, which no undisturbed run makes"
        # The Gram matrix is right at any time; arrays are those of an undisturbed run.
        if value != series.expected[key]:
            return f"{key} differs after the kill"
    series.complete = not landed or rng.random() < 0.7  # else it is killed once more before
    if not series.complete:
        return ""
    status = os.waitstatus_to_exitcode(os.waitpid(start(series.command, folder), 0)[1])
    if status:
        return f"the next command ended with {status}"
    if (found := series.state(folder)) != series.expected:
        wrong = [k for k in series.expected if found.get(k) != series.expected[k]]
        return f"{(wrong or sorted(found.keys() - series.expected.keys()))[0]} is wrong at the end"
    if left := leftovers(folder):
        return f"{left[0]} is left"
    return "" if landed else "not landed"


def all_series(world: fuzz.World) -> list[Series]:
    """Return the commands that are killed."""
    from lyot.references.library import build

    psf = sorted((world.home / "in").glob("*002001*_calints.fits"))
    names = tuple(f"in/{path.name}" for path in psf)
    build(world.home / "empty", psf)
    run = ("-o", "out", "--no-report", "--no-search", "-q")
    return [
        Series("run", ("run", "in/one_asn.json", *run), (), products),
        Series("survey", ("run", "in/one_asn.json", "in/two_asn.json", *run), (), products),
        Series("contrast", ("contrast", "run", *SHORT), ("run",), products),
        Series("library add", ("library", "add", "lib", *names), (), frames),
    ]


def main() -> int:
    """Kill, print the table, and return whether anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="lyot-kills-"))
    os.environ["LYOT_CACHE_DIR"] = str(home / "cache")
    began = time.monotonic()
    try:
        world = fuzz.make_world(home / "world", quick=False)
        return _kill(world, options.kills, options.seed, home, began)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _kill(world: fuzz.World, n_kills: int, seed: int, home: Path, began: float) -> int:
    import numpy as np

    rng = np.random.default_rng(seed)
    faults = 0
    print("| command | kills | of these too late | wrong afterwards |\n|---|---|---|---|")
    for series in all_series(world):
        folder = home / "case" / series.name.replace(" ", "-")
        for _ in range(2):  # the first is slower
            prepare(world, series, folder)
            at = time.monotonic()
            status = os.waitstatus_to_exitcode(os.waitpid(start(series.command, folder), 0)[1])
            series.duration_s = time.monotonic() - at
            assert status == 0, series.command
        series.expected = series.state(folder)
        count: Counter[str] = Counter()
        for number in range(n_kills // 4):
            wrong = kill_once(world, series, folder, rng)
            count[wrong if wrong in ("", "not landed") else "wrong"] += 1
            if wrong and wrong != "not landed":
                print(f"{series.name} {number}: {wrong}", file=sys.stderr, flush=True)
                shutil.rmtree(folder)
        shutil.rmtree(folder, ignore_errors=True)
        cells = (count.total(), count["not landed"], count["wrong"])
        print(f"| {series.name} | {' | '.join(map(str, cells))} |", flush=True)
        faults += count["wrong"]
    print(f"\n{time.monotonic() - began:.0f} s")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
