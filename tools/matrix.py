"""Run the tests in environments of several kinds, and print a table of what became of them.

    python tools/matrix.py [ROW ...] [--quick] [--folder FOLDER]

Rows: ``oldest``, the lowest versions that pyproject.toml admits, on the lowest Python; ``newest``,
what the index has today, on the highest Python; ``wheel``, a wheel in an empty environment; and
``3.11`` to ``3.14``, the versions of constraints.txt. All by default; a Python that is not on PATH
is left out and said so. With ``--quick`` the tests are those of the parts that lean on other
packages most. The exit status is the number of rows that failed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MINORS = (11, 12, 13, 14)
QUICK = ("files", "steps", "pipeline", "compute", "algorithms", "subtraction", "cli", "simulate")
NOT_RUN_BY_TESTS = ("ruff", "mypy", "scipy-stubs", "numpydoc")
SHOWN = ("numpy", "scipy", "astropy", "stdatamodels", "stpipe", "gwcs")


def pythons() -> dict[str, str]:
    """Return the interpreters on PATH that start, by version."""
    found = {}
    for minor in MINORS:
        for name in (shutil.which(f"python3.{minor}"), shutil.which("python3"), sys.executable):
            asked = "import sys; print('%d.%d' % sys.version_info[:2])"
            if name is None:
                continue
            said = subprocess.run([name, "-c", asked], capture_output=True, text=True)
            if said.stdout.strip() == f"3.{minor}":
                found[f"3.{minor}"] = name
                break
    return found


def lower_bounds() -> list[str]:
    """Return the requirements of the package and its tests, each at its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = []
    for line in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        name, _, bound = line.partition(">=")
        if name not in NOT_RUN_BY_TESTS:
            pins.append(f"{name}=={bound}" if bound else name)
    return pins


def environment(folder: Path, python: str, requirements: list[str]) -> Path:
    """Make a virtual environment with some requirements, or take the one that is there."""
    mark = folder / "made-of.txt"
    bounds = (ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes()
    made_of = f"{python} {requirements} {hashlib.sha256(bounds).hexdigest()}"
    binary = folder / "bin" / "python"
    if not mark.is_file() or mark.read_text() != made_of:
        mark.unlink(missing_ok=True)  # first, so that no half environment is ever taken for one
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        pip = [str(binary), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True, cwd=ROOT)
        mark.write_text(made_of)
    return binary


def wheel(folder: Path, python: str) -> str:
    """Build a wheel, run the demo where nothing but the wheel is installed; return its path."""
    shutil.rmtree(folder / "wheel-only", ignore_errors=True)
    shutil.rmtree(folder / "dist", ignore_errors=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps"]
    subprocess.run([*pip, "-w", str(folder / "dist"), str(ROOT)], check=True)
    [built] = (folder / "dist").glob("*.whl")
    alone = environment(folder / "wheel-only", python, [str(built)])
    demo = [str(alone.parent / "lyot"), "demo", "--output-dir", str(folder / "demo")]
    shutil.rmtree(folder / "demo", ignore_errors=True)
    subprocess.run(demo, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return str(built)


def row(name: str, folder: Path, found: dict[str, str], quick: bool) -> tuple[str, bool]:
    """Make the environment of a row, run the tests in it; return a line of the table."""
    lowest, highest = (f(found, key=lambda v: int(v.split(".")[1])) for f in (min, max))
    version = {"oldest": lowest, "newest": highest, "wheel": lowest}.get(name, name)
    if version not in found:
        return f"| {name} | not on PATH | | | |", True
    python, start = found[version], time.monotonic()
    pinned = ["-c", "constraints.txt"]
    requirements = {
        "oldest": [*lower_bounds(), "-e", "."],
        "newest": ["--upgrade", "-e", ".[test]"],
        "wheel": [*pinned],
    }.get(name, [*pinned, "-e", ".[test]"])
    options: list[str] = []
    try:
        if name == "wheel":
            requirements.append(f"lyot[test] @ file://{wheel(folder, python)}")
        binary = environment(folder / name, python, requirements)
    except subprocess.CalledProcessError as error:
        return f"| {name} | {version} | cannot be made: {error.cmd[-1]} | | |", False
    if name == "oldest":
        # What old packages say of each other is not this package's.
        options += ["-W", "default::DeprecationWarning"]
    tests = [f"tests/{each}" for each in QUICK] if quick else ["tests"]
    command = [str(binary), "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", *options]
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
    )
    (folder / f"{name}.log").write_text(done.stdout + done.stderr)
    lines = done.stdout.splitlines() or [""]
    summary = re.sub(r" in [\d.]+s.*", "", lines[-1]).strip("= ")
    shown = f"import importlib.metadata as m; print(*(p + ' ' + m.version(p) for p in {SHOWN}))"
    versions = subprocess.run([str(binary), "-c", shown], capture_output=True, text=True).stdout
    text = (
        f"| {name} | {version} | {versions.strip()} | {summary} | {time.monotonic() - start:.0f} |"
    )
    return text, done.returncode == 0


def main() -> int:
    """Run the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    rows = ["oldest", "newest", "wheel", *(f"3.{minor}" for minor in MINORS)]
    parser.add_argument("rows", nargs="*", default=rows, metavar="ROW")
    parser.add_argument("--quick", action="store_true", help="fewer tests")
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-matrix")
    asked = parser.parse_args()
    if unknown := set(asked.rows) - set(rows):
        parser.error(f"there is no row {sorted(unknown)[0]}; the rows are {', '.join(rows)}")
    asked.folder.mkdir(parents=True, exist_ok=True)
    found, failed = pythons(), 0
    print("| row | Python | versions | tests | seconds |\n|---|---|---|---|---|")
    for name in asked.rows:
        line, passed = row(name, asked.folder.resolve(), found, asked.quick)
        print(line, flush=True)
        failed += not passed
    if failed:
        print(f"{failed} failed; the logs are in {asked.folder}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
