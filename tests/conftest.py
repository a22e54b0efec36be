"""What the tests share: a simulated observation and its reduction, and the real data."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from scenes import gaussian

# Arrays that a test remembers are for this session alone.
os.environ["LYOT_CACHE_DIR"] = tempfile.mkdtemp(prefix="lyot-tests-")
atexit.register(shutil.rmtree, os.environ["LYOT_CACHE_DIR"], ignore_errors=True)

# CRDS must never be needed: the whole suite runs without it.
for _key in [k for k in os.environ if k.startswith("CRDS")]:
    del os.environ[_key]


@dataclass(frozen=True)
class Run:
    """A simulated observation and its products."""

    association: Path
    folder: Path
    truth: dict
    summary: list

    def product(self, ending: str) -> Path:
        """Return the first product whose name ends so."""
        return sorted(self.folder.glob(f"*{ending}"))[0]


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """Return the association of the default simulated observation."""
    from lyot.simulate import simulate_observation

    return simulate_observation(tmp_path_factory.mktemp("observation"))


@pytest.fixture(scope="session")
def demo(simulated, tmp_path_factory):
    """Return the default observation, reduced."""
    from lyot.pipeline import Coron3Pipeline

    folder = tmp_path_factory.mktemp("products")
    pipeline = Coron3Pipeline()
    pipeline.output_dir = str(folder)
    pipeline.run(str(simulated))
    truth = json.loads((simulated.parent / "truth.json").read_text())
    return Run(simulated, folder, truth, pipeline.summary)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Return the association of a very small observation: one roll, two integrations."""
    from lyot.simulate import Scene, simulate_observation

    scene = Scene(
        shape=(48, 52),
        rolls_deg=(10.0,),
        n_int=2,
        n_int_psf=2,
        n_dither=3,
        disc=None,
        companions=(),
    )
    return simulate_observation(tmp_path_factory.mktemp("small"), scene, seed=5)


@pytest.fixture(scope="session")
def reference_files(simulated):
    """Return the reference exposures of the simulated observation."""
    members = json.loads(simulated.read_text())["products"][0]["members"]
    return [simulated.parent / m["expname"] for m in members if m["exptype"] == "psf"]


@pytest.fixture(scope="session")
def science_files(simulated):
    """Return the science exposures of the simulated observation."""
    members = json.loads(simulated.read_text())["products"][0]["members"]
    return [simulated.parent / m["expname"] for m in members if m["exptype"] == "science"]


@pytest.fixture(scope="session")
def library(reference_files, tmp_path_factory):
    """Return a library of all reference exposures."""
    from lyot.references import library as libraries

    path = tmp_path_factory.mktemp("library") / "lib"
    made = libraries.build(path, reference_files)
    libraries.add(made, reference_files)
    return made


@pytest.fixture(scope="session")
def data_dir():
    """Return the folder of real JWST data; skip without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LYOT_TEST_DATA", beside))
    if not (folder / "aumic_f444w").is_dir():
        pytest.skip(f"real data are not at {folder}; set LYOT_TEST_DATA to their folder")
    return folder


class Forked:
    """A command in a process of its own, which has the libraries imported already."""

    def __init__(self, *arguments):
        from lyot.cli import main

        with warnings.catch_warnings():
            # The child runs the command and nothing else.
            warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 1)
                os.dup2(null, 2)
                main([str(a) for a in arguments], standalone_mode=False)
                status = 0
            except SystemExit as err:
                status = int(err.code or 0)
            finally:
                os._exit(status)

    def kill(self):
        """Kill it, as the system would that is out of memory."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def wait(self):
        """Wait for its end, and return its status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def forked():
    """Return what starts a command of the command line in another process."""
    import lyot.pipeline
    import lyot.survey  # noqa: F401 - imported here, once for all children

    return Forked


@pytest.fixture
def rng():
    """Return a seeded source of random numbers."""
    return np.random.default_rng(20261123)


@pytest.fixture
def star_image():
    """Return a function that draws a speckled star at any position."""

    def draw(shape=(64, 66), shift_yx=(0.0, 0.0), seed=0, fwhm=3.0, n=40):
        local = np.random.default_rng(seed)
        middle = np.array([shape[0] / 2, shape[1] / 2])
        image = np.zeros(shape)
        for _ in range(n):
            at = middle + local.normal(0, 8, 2) + shift_yx
            image += local.exponential() * gaussian(shape, at, fwhm)
        return image

    return draw
