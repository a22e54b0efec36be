"""Many mutated inputs, and a table of what became of them: ``make fuzz``.

    python -m robustness.fuzz --cases 10000 --seed 1 --jobs 2

Single cases are run again by their numbers: ``--only 1234 1300``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

# Before NumPy is imported: a child must not wait for threads that its parent had.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "LYOT_THREADS": "1", "MPLBACKEND": "Agg"}

import numpy as np

from robustness import inputs, requests
from robustness.harness import CANARY, FAULTS, RIGHT, SENTENCE, Outcome, arrays_of, fresh, run_case
from robustness.inputs import Draw, World

FAMILIES = {
    inputs.headers: 16,
    inputs.values: 10,
    inputs.structure: 16,
    inputs.pixels: 8,
    inputs.trees: 10,
    inputs.compressed: 4,
    inputs.associations: 12,
    requests.parameters: 10,
    requests.libraries: 10,
    requests.runs: 8,
    requests.tables: 4,
    requests.steps: 4,
}
"""The families, and how many of 112 cases each has."""


def make_world(home: Path, *, quick: bool) -> World:
    """Make an observation, its products and a library, in this process: all is imported then."""
    from lyot.cli import main
    from lyot.simulate import Scene, simulate_observation

    scene = Scene(
        shape=(40, 42),
        rolls_deg=(10.0,),
        n_int=2,
        n_int_psf=2,
        n_dither=2,
        disc=None,
        companions=(),
    )
    table = simulate_observation(fresh(home / "in"), scene, seed=3)
    table.rename(table.with_name("one_asn.json"))
    exposures = sorted(str(p) for p in (home / "in").glob("*_calints.fits"))
    psf = [p for p in exposures if "002001" in p]
    null = os.open(os.devnull, os.O_WRONLY)
    kept = [os.dup(1), os.dup(2)]
    (home / "out").mkdir()
    expected: inputs.Expected = {}
    try:
        for number in (1, 2):
            os.dup2(null, number)
        for command in (
            ("run", str(home / "in/one_asn.json"), "-o", str(home / "run"), "-q"),
            ("contrast", str(home / "run"), *requests.SHORT),
            ("detect", str(home / "run")),
            ("companion", str(home / "run"), "--at", "0.7", "40", "--likelihoods", "0"),
            ("library", "build", str(home / "lib"), *psf),
            ("library", "check", str(home / "lib")),
            ("library", "select", str(home / "lib"), exposures[0]),
            ("info", exposures[0]),
            ("psf", exposures[0], "--at", "0.5", "0.4", "-o", str(home / "out/psf.fits")),
        ):
            try:
                main(command, standalone_mode=False)
            except SystemExit as err:
                raise RuntimeError(f"{command} failed in the unchanged world") from err
            expected = expected or arrays_of(home / "run")
    finally:
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
    import stpipe._cli.strun  # noqa: F401 - imported here, once for all children

    return World(home, expected, quick)


def family_of(number: int, seed: int):
    """Return the family of a case: in turn, as often as they count."""
    rng = np.random.default_rng([seed, number])
    weights = np.array(list(FAMILIES.values()), float)
    return list(FAMILIES)[rng.choice(len(weights), p=weights / weights.sum())], rng


def run_cases(world: World, numbers: Sequence[int], seed: int, work: Path) -> Iterator[Outcome]:
    """Run cases by their numbers."""
    for number in numbers:
        family, rng = family_of(number, seed)
        home = fresh(work / "case")
        for name in ("here/out", "tmp"):
            (home / name).mkdir(parents=True)
        (home / CANARY).write_text("not to be opened\n")
        (home / "here/out").rmdir()
        case = family(Draw(rng, home / "here", world))
        yield run_case(case, number, home / "here")
    if len(numbers) > 1:
        shutil.rmtree(work / "case", ignore_errors=True)


def table_of(outcomes: Sequence[Outcome]) -> str:
    """Return the table: families by verdicts."""
    columns = [RIGHT, SENTENCE, *FAULTS]
    lines = ["| family | n | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    names = [
        family.__name__ for family in FAMILIES if any(o.family == family.__name__ for o in outcomes)
    ]
    for name in [*names, "all"]:
        chosen = [o for o in outcomes if name in ("all", o.family)]
        counts = Counter(o.verdict for o in chosen)
        cells = [str(counts[c]) for c in columns]
        lines.append(f"| {name} | {len(chosen)} | " + " | ".join(cells) + " |")
    cpu = sum(o.cpu_s for o in outcomes)
    largest = max((o.memory_mb for o in outcomes), default=0)
    return "\n".join([*lines, "", f"{cpu:.0f} s of CPU; largest memory {largest} MB"])


def _share(world: World, numbers: Sequence[int], seed: int, work: Path, log: Path) -> NoReturn:
    """Do the cases of one child, and end it."""
    status = 1
    try:
        with log.open("w") as file:
            for outcome in run_cases(world, numbers, seed, work):
                file.write(json.dumps(asdict(outcome)) + "\n")
                file.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> int:
    """Run the cases, print the table and the faults, and return whether there was any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="+", help="the numbers of some cases")
    parser.add_argument("--family", help="only cases of this family")
    parser.add_argument("--quick", action="store_true", help="few cases run the whole pipeline")
    parser.add_argument("--log", type=Path, help="a line of JSON for each case")
    parser.add_argument("--keep", action="store_true", help="with --only, leave its folder")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="lyot-fuzz-"))
    os.environ["LYOT_CACHE_DIR"] = str(home / "cache")
    started = time.monotonic()
    try:
        world = make_world(home / "world", quick=options.quick)
        numbers = options.only or range(options.cases)
        if options.family:
            seed = options.seed
            numbers = [n for n in numbers if family_of(n, seed)[0].__name__ == options.family]
        children, logs = [], []
        for job in range(options.jobs):
            logs.append(home / f"log{job}")
            pid = os.fork()
            if pid == 0:
                mine = numbers[job :: options.jobs]
                _share(world, mine, options.seed, home / f"work{job}", logs[-1])
            children.append(pid)
        ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        lines = [line for log in logs for line in log.read_text().splitlines()]
        outcomes = sorted((Outcome(**json.loads(x)) for x in lines), key=lambda o: o.seed)
        if options.log:
            options.log.write_text("\n".join(lines) + "\n")
    finally:
        if options.keep:
            print(home)
        else:
            shutil.rmtree(home, ignore_errors=True)
    print(table_of(outcomes))
    print(f"{time.monotonic() - started:.0f} s")
    faults = [o for o in outcomes if o.verdict in FAULTS]
    for o in faults:
        print(f"{o.seed} {o.verdict} {o.family} [{o.change}] {o.command[:120]}: {o.detail}")
    return int(bool(faults) or any(ended) or len(outcomes) != len(numbers))


if __name__ == "__main__":
    sys.exit(main())
