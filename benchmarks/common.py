"""What the benchmarks share: input, timing, peers in their own environment, and a way to print."""

from __future__ import annotations

import compileall
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

import lyot as package
from lyot.algorithms import fourier
from lyot.compute import process
from lyot.files.aligned import AlignedArrays
from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.files.products import save_atomically
from lyot.instruments import NIRCAM
from lyot.instruments.wavefront import WavefrontBudget, draw_wavefront
from lyot.parameters import AlignRecipe
from lyot.references.aligner import Aligner
from lyot.references.prepare import prepare_refs
from lyot.simulate.exposure_model import Pointing, exposure_model

process.own()  # as the command line does in its process

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".venv-peers"
SCRATCH = Path(os.environ.get("LYOT_BENCH_DIR", ROOT / ".bench"))


def machine() -> str:
    """Say what the figures are measured on."""
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    name = names[0].partition(":")[2].strip() if names else platform.processor()
    return f"{len(os.sched_getaffinity(0))} cores, {name}, Python {platform.python_version()}"


def best_of(function: Callable[[], object], n: int = 3) -> float:
    """Return the shortest time of several calls [s], after one call that warms up."""
    function()
    times = []
    for _ in range(n):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def line(what: str, ours: float, theirs: float, peer: str, must: float | None = None) -> None:
    """Print one comparison."""
    ratio = theirs / ours
    goal = "" if must is None else f"   must {must:g}x: {'yes' if ratio >= must else 'NO'}"
    print(
        f"{what:55s} ours {ours:8.4f} s   {peer} {theirs:8.2f} s   {ratio:6.1f}x{goal}", flush=True
    )


def peer_python(*packages: str) -> str:
    """Return the interpreter of the peers' environment, made where it is missing."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
    done = PEERS / "-".join(sorted(p.replace("=", "") for p in packages))
    if not done.exists():
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        done.touch()
    return str(python)


@cache
def user_environment() -> dict[str, str]:
    """Return the environment of a user's shell, in which all that is measured runs.

    Modules are compiled once, ours here, those of the peers when they were installed: where
    PYTHONDONTWRITEBYTECODE is set, as in many containers, each start would compile the package
    anew. OpenBLAS uses its code for this processor, also where a container's settings choose
    that for another. No reference files are looked up in CRDS.
    """
    compileall.compile_dir(Path(package.__file__).parent, quiet=1)
    unset = ("CRDS", "PYTHONDONTWRITEBYTECODE", "OPENBLAS_CORETYPE")
    env = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    return env | {"STPIPE_DISABLE_CRDS_STEPPARS": "true"}


def run_peer(python: str, code: str, *arguments: str) -> dict:
    """Run code of a peer and return the JSON object that its last line holds."""
    done = subprocess.run(
        [python, "-W", "ignore", "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=user_environment(),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


class Process(NamedTuple):
    """What a whole process took, imports included."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def process_of(command: Sequence[str | Path], n_threads: int | None = None) -> Process:
    """Run a command from start to end, as from a shell."""
    env = user_environment() | ({"LYOT_THREADS": str(n_threads)} if n_threads else {})
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        child = subprocess.Popen([str(c) for c in command], stdout=said, stderr=said, env=env)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise RuntimeError(said.read().decode()[-2000:])
    return Process(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def in_turn(n: int, *commands: Callable[[], Process]) -> list[Process]:
    """Run commands in turn n times; return the median of each."""
    rounds = [[command() for command in commands] for _ in range(n)]
    return [Process(*np.median(each, axis=0).tolist()) for each in zip(*rounds, strict=True)]


def lyot(*arguments: str | Path, n_threads: int | None = None) -> Process:
    """Run our command as a process of its own."""
    return process_of([sys.executable, "-m", "lyot.cli", *arguments], n_threads)


def reduce(
    association: Path, align_to: str, *options: str | Path, n_threads: int | None = None
) -> Process:
    """Reduce an observation into an empty folder."""
    folder = association.parent / "ours"
    shutil.rmtree(folder, ignore_errors=True)
    output = ("-o", folder, "--align-to", align_to, "-q")
    return lyot("run", association, *output, *options, n_threads=n_threads)


def frames(n_target: int, n_ref: int, shape: tuple[int, int], seed: int = 0):
    """Draw float32 targets and references that share a dozen patterns, and noise."""
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(12, *shape)).astype(np.float32) * 10

    def draw(n: int):
        mix = rng.normal(size=(n, 12)).astype(np.float32)
        noise = rng.normal(size=(n, *shape)).astype(np.float32)
        return np.tensordot(mix, patterns, 1) + noise

    return draw(n_target), draw(n_ref)


def cube_of(sci: np.ndarray, **info: object) -> Cube:
    """Give frames errors, flags and what a header of NIRCam says."""
    known = {"filter": "F444W", "detector": "NRCALONG", "instrument": "NIRCAM"} | info
    header = ExposureInfo("bench", sci.shape, **known)
    return Cube(sci, np.full_like(sci, 0.6), np.zeros(sci.shape, np.uint32), header)


def aligned_of(refs: np.ndarray) -> AlignedArrays:
    """Give frames that need no alignment errors and flags."""
    return AlignedArrays(refs, np.full_like(refs, 0.6), np.zeros(refs.shape, np.uint32))


def align_all(target: Cube, refs: Cube, star_xy: tuple[float, float]) -> None:
    """Align every reference to every integration."""
    recipe = AlignRecipe()
    aligner = Aligner(target, prepare_refs(refs, recipe), recipe, star_xy=star_xy)
    for i in range(len(target.sci)):
        aligner.align(i)


def speckled(shifts_yx: np.ndarray, shape: tuple[int, int], seed: int = 0):
    """Draw float32 images of a star behind a coronagraph, shifted as told [pixel]."""
    rng = np.random.default_rng(seed)
    center = (shape[1] / 2 - 10.0, shape[0] / 2 + 14.0)
    optics = NIRCAM.optics("MASK335R", "F444W", n_wavelengths=1, seed=seed)
    optics = optics.sampled_for(2 * max(shape))
    change = WavefrontBudget(telescope_m=5e-9)
    drifts = [draw_wavefront(change, optics.n_pupil, seed=100 + i)[0] for i in range(8)]
    views = [replace(optics, drift_m=d).frame((0.0, 0.0), center, shape) for d in drifts]
    spectra = fourier.spectrum(2e6 * np.array(views))
    out = np.empty((len(shifts_yx), *shape), np.float32)
    for image, shift in zip(out, shifts_yx, strict=True):
        mix = np.tensordot(rng.dirichlet(np.ones(8)), spectra, 1)
        clean = fourier.shift(mix, shift, shape=shape)
        noise = np.sqrt(np.maximum(clean, 0) * 0.05 + 0.36)
        image[:] = clean + rng.normal(size=shape) * noise
    return out, center


def pointings(counts: tuple[int, ...], drift: float, seed: int = 1) -> np.ndarray:
    """Draw a pointing for each exposure (0.3 pixel rms), and a drift for each integration."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0, 0.3, 2) + rng.normal(0, drift, (n, 2)) for n in counts])


def write_exposure(path: Path, images: np.ndarray, pointing: Pointing) -> None:
    """Write an exposure with the noise of `speckled`, and 0.3 % of bad pixels at fixed places."""
    data = images.astype(np.float32)
    bad = np.random.default_rng(1).random(data.shape[1:]) < 0.003
    variance = np.maximum(data, 0) * 0.05
    dq = np.zeros(data.shape, np.uint32)
    data[:, bad], dq[:, bad], variance[:, bad] = np.nan, 1, 0.0
    arrays = {
        "data": data,
        "err": np.sqrt(variance + 0.36),
        "dq": dq,
        "var_poisson": variance,
        "var_rnoise": np.full(data.shape, 0.36, np.float32),
    }
    model = exposure_model(arrays, pointing)
    save_atomically(model, path)
    model.close()


def observation(
    name: str, n_science: tuple[int, ...], n_refs: tuple[int, ...], side: int = 320
) -> Path:
    """Write an observation of square frames, and return its association."""
    folder, shape = SCRATCH / name, (side, side)
    path = folder / "bench_asn.json"
    if path.exists():
        return path
    images, center = speckled(pointings((*n_science, *n_refs), 0.03), shape)
    members, start = [], 0
    plan = [(n, False) for n in n_science] + [(n, True) for n in n_refs]
    for number, (n, is_psf) in enumerate(plan):
        file = f"jw08888{number + 1:03d}001_03102_00001_nrcalong_calints.fits"
        pointing = Pointing(
            target="R" if is_psf else "T",
            radec_deg=(150.0, -25.0),
            crpix_xy=center,
            roll_ref_deg=60.0 + 10.0 * number,
            v3i_yangle_deg=0.05,
            is_psf=is_psf,
            number=number,
        )
        write_exposure(folder / file, images[start : start + n], pointing)
        start += n
        members.append({"expname": file, "exptype": "psf" if is_psf else "science"})
    content = {
        "asn_type": "coron3",
        "asn_rule": "bench",
        "asn_id": "a3001",
        "program": "08888",
        "target": "T",
        "asn_pool": "none",
        "products": [{"name": "jw08888_bench", "members": members}],
    }
    path.write_text(json.dumps(content))
    return path
