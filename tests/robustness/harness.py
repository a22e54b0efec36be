"""A mutated input, the command that is given it, and what a careful program may answer.

Each case runs in a child that is forked from a process which has everything imported; it has a
limit of time and of memory, and an audit of what it opens, writes, starts and connects to. The
verdict is about what a user would see: the right product, or one sentence.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import shutil
import signal
import stat
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

CPU_S, WALL_S, MEMORY_BYTES = 30, 180, 4 * 2**30
RIGHT, SENTENCE = "right", "sentence"
TRACEBACK, HANG, SIGNAL, OUTSIDE, WRONG, MUTE, LEFT = FAULTS = (
    "TRACEBACK",
    "HANG",
    "SIGNAL",
    "OUTSIDE",
    "WRONG",
    "MUTE",
    "LEFTOVER",
)
"""What must not be: a traceback; no end; a signal; a write, a file or a connection elsewhere; a
product that is wrong at exit 0; no sentence, or one that a user cannot read; half a product."""
CANARY = "canary.txt"
"""A file beside the inputs that no command has a reason to open."""


@dataclass
class Case:
    """One command on one mutated input. Paths are relative to the folder where it runs."""

    family: str
    command: tuple[str, ...]
    change: str = ""  # what was mutated, in words
    written: tuple[str, ...] = ("out",)  # folders that the command may write to
    check: Callable[[Path], str] | None = None  # says what is wrong at exit 0


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    family: str
    seed: int
    verdict: str
    detail: str
    change: str
    command: str
    cpu_s: float
    memory_mb: int


def run_case(case: Case, seed: int, folder: Path) -> Outcome:
    """Run a case in `folder`, which holds its inputs, in a forked child, and judge it."""
    said, errors, events = (folder.parent / name for name in ("stdout", "stderr", "events"))
    before = listing(folder.parent)
    pid = os.fork()
    if pid == 0:
        _child(case, folder, said, errors, events)
    _, status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    texts = [p.read_text(errors="replace") if p.exists() else "" for p in (said, errors, events)]
    for path in (said, errors, events):
        path.unlink(missing_ok=True)
    verdict, detail = _judge(case, code, *texts, folder, before)
    cpu = usage.ru_utime + usage.ru_stime
    command = " ".join(case.command)
    memory = usage.ru_maxrss // 1024
    return Outcome(case.family, seed, verdict, detail, case.change, command, cpu, memory)


def _child(case: Case, folder: Path, said: Path, errors: Path, events: Path) -> None:
    status = 1
    try:
        for number, path in ((1, said), (2, errors)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.chdir(folder)
        os.environ["TMPDIR"] = str(folder.parent / "tmp")
        import tempfile

        tempfile.tempdir = None
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        sys.dont_write_bytecode = True
        signal.setitimer(signal.ITIMER_REAL, WALL_S)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        _watch(folder.parent, os.open(events, os.O_WRONLY | os.O_CREAT, 0o600))
        warnings.resetwarnings()
        warnings.simplefilter("default")
        status = _command(list(case.command))
    except SystemExit as err:
        status = err.code if isinstance(err.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _command(arguments: list[str]) -> int:
    if arguments[0] == "strun":
        from stpipe._cli.strun import main as strun

        sys.argv = arguments
        strun()
    else:
        from lyot.cli import main

        sys.argv = ["lyot", *arguments]
        main(arguments)
    return 0


_FOREIGN = ("subprocess.Popen", "os.system", "os.exec", "pickle.find_class", "socket.connect")


def _watch(home: Path, log: int) -> None:
    """Note what is written elsewhere than below `home`, started, unpickled or connected to."""
    allowed = (str(home), os.environ.get("LYOT_CACHE_DIR", str(home)), "/dev/", "/proc/self")
    names = {"os.mkdir": 0, "os.remove": 0, "os.rmdir": 0, "os.rename": 1, "os.symlink": 1}

    def _hook(event: str, args: tuple) -> None:
        path = ""
        if event == "open":
            path = args[0]
            if isinstance(path, str) and path.endswith(CANARY):
                os.write(log, f"opened {path}\n".encode())
            if not (args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
        elif event in _FOREIGN:
            os.write(log, f"{event} {args[:1]!r}\n"[:200].encode())
            return
        elif event in names:
            path = args[names[event]]
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            return
        full = os.path.abspath(os.fspath(path))
        if not full.startswith(allowed):
            os.write(log, f"wrote {full}\n".encode())

    sys.addaudithook(_hook)


def listing(home: Path) -> dict[str, str]:
    """Every file and folder below `home`, by its relative path, with a checksum."""
    found = {}
    for root, folders, files in os.walk(home):
        for name in folders + files:
            path = os.path.join(root, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, home)] = hashlib.md5(file.read()).hexdigest()
            else:
                found[os.path.relpath(path, home)] = f"{stat.S_IFMT(mode)}"
    return found


def _judge(
    case: Case, code: int, said: str, errors: str, events: str, folder: Path, before: dict[str, str]
) -> tuple[str, str]:
    if code in (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL):
        return HANG, f"ended by {signal.Signals(-code).name}"
    if code < 0:
        return SIGNAL, signal.Signals(-code).name
    if "Traceback (most recent call last)" in said + errors or code == 70:
        return TRACEBACK, _reason(errors, folder)
    if events:
        return OUTSIDE, events.splitlines()[0]
    changed = _changed(before, listing(folder.parent), case.written, folder.name)
    if changed:
        return OUTSIDE, changed
    if left := _leftovers(folder):
        return LEFT, left
    if code == 0:
        wrong = case.check(folder) if case.check else ""
        return (WRONG, wrong) if wrong else (RIGHT, "")
    fault = _sentence_fault(errors if case.command[0] != "strun" else said + errors)
    return (MUTE, fault) if fault else (SENTENCE, _sentence(errors))


def _changed(
    before: dict[str, str], after: dict[str, str], written: tuple[str, ...], name: str
) -> str:
    """Name a path that was made, changed or removed where the command has no business."""
    own = tuple(f"{name}/{each}" for each in written)
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path) and path not in ("stdout", "stderr", "events"):
            inside = any(path == each or path.startswith(f"{each}/") for each in own)
            # Exposures are nobody's to change, wherever products go.
            if not inside or (path in before and path.endswith("_calints.fits")):
                verb = "changed" if path in before and path in after else "made"
                return f"{verb if path in after else 'removed'} {path}"
    return ""


def _leftovers(folder: Path) -> str:
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".lyot-") or path.name.endswith(".partial"):
            return f"{path.relative_to(folder)} is left"
    return ""


def _sentence(errors: str) -> str:
    lines = [line for line in errors.splitlines() if re.match(r"(lyot: error|Error|.*ERROR)", line)]
    return lines[-1][:300] if lines else errors.strip()[-300:]


def _sentence_fault(errors: str) -> str:
    """Tell what is wrong with what was said of an error; nothing where it is one sentence."""
    lines = errors.splitlines()
    said = [line for line in lines if line.startswith(("lyot: error: ", "Error: "))]
    # strun frames what a step raises, logs what its parameters are refused for, and has a parser.
    framed = ("ERROR RUNNING STEP", " - ERROR - ", "strun: error: ")
    said = said or [line[:200] for line in lines if any(words in line for words in framed)][:1]
    if len(said) != 1:
        return f"{len(said)} sentences: {errors.strip()[-200:]!r}"
    for bad in ("[Errno", "object has no attribute", "NoneType", "Errno", " 0x"):
        if bad in said[0]:
            return f"{bad!r} in {said[0][:250]!r}"
    return f"{len(said[0])} characters" if len(said[0]) > 900 else ""


def _reason(errors: str, folder: Path) -> str:
    """Say where a traceback came from: the last line, and the innermost line of the package."""
    for path in (folder.parent / "tmp").glob("lyot-error-*.log"):
        errors += path.read_text(errors="replace")
    places = re.findall(r'File "[^"]*/lyot/([^"]+)", line (\d+)', errors)
    last = [line for line in errors.splitlines() if re.match(r"\w[\w.]*(Error|Exception)", line)]
    where = ":".join(places[-1]) if places else "?"
    return f"{where} {last[-1][:200] if last else errors.strip()[-200:]}"


# --- What is right at exit 0.


def arrays_of(folder: Path) -> dict[tuple[str, str], np.ndarray]:
    """SCI, ERR and DQ of every product in a folder, by file and extension."""
    arrays = {}
    for path in sorted(folder.glob("*.fits")):
        with fits.open(path, memmap=False) as hdus:
            for name in ("SCI", "ERR", "DQ", "CONTRAST"):
                if name in hdus and hdus[name].data is not None:
                    arrays[path.name, name] = np.array(hdus[name].data)
    return arrays


def differing(folder: Path, expected: dict[tuple[str, str], np.ndarray], rtol: float = 0.0) -> str:
    """Name a product whose arrays are not those expected, or that is missing; else nothing."""
    found = arrays_of(folder)
    for key, array in expected.items():
        if key not in found:
            return f"{key[0]} {key[1]} is missing"
        if found[key].shape != array.shape:
            return f"{key} has the shape {found[key].shape}"
        if array.dtype.names or not rtol:
            same = np.array_equal(found[key], array, equal_nan=not array.dtype.names)
        else:
            scale = np.nanmax(np.abs(array)) if array.size else 0.0
            same = np.allclose(found[key], array, rtol=rtol, atol=rtol * scale, equal_nan=True)
        if not same:
            return f"{key[0]} {key[1]} differs"
    return ""


def insane(folder: Path, expected: dict[tuple[str, str], np.ndarray]) -> str:
    """Name a product that no such input can have; nothing where all could be right.

    Residuals keep the shape of the exposure, most pixels have a value, and these are neither all
    zero nor beyond the light that was there.
    """
    for path in sorted(folder.glob("*.fits")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                with fits.open(path, memmap=False) as hdus:
                    hdus.verify("exception")
            except Exception as err:
                return f"{path.name} is no valid FITS file ({err})"
    found = arrays_of(folder)
    for (name, extension), array in found.items():
        if extension != "SCI" or not name.endswith(("_psfsub.fits", "_i2d.fits")):
            continue
        finite = np.isfinite(array)
        if finite.mean() < 0.02:
            return f"{name} has {finite.mean():.2f} finite values"
        if not np.any(array[finite]):
            return f"{name} is zero everywhere"
        before = max(np.nanmax(np.abs(a)) for k, a in expected.items() if k[1] == "SCI")
        if np.abs(array[finite]).max() > 1e3 * before:
            return f"{name} has {np.abs(array[finite]).max():.3g}"
    return "" if found else "no product was written"


def fresh(folder: Path) -> Path:
    """Empty a folder, and make it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
