"""What a run has no use for is executed when it is used, and is what it always was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_python(code):
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, check=True)


def test_a_process_of_its_own_imports_crds_when_it_is_used():
    run_python("""
import sys, threading
from lyot.compute import process
process.own()
import lyot.pipeline
assert "crds.core.rmap" not in sys.modules and "requests" not in sys.modules
import crds
found = []
threads = [threading.Thread(target=lambda: found.append(crds.getreferences)) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 8 and len(set(found)) == 1
from crds.core import heavy_client
assert found[0] is heavy_client.getreferences and "crds.core.rmap" in sys.modules
assert crds.__spec__.loader.is_package("crds") and crds.__file__.endswith("__init__.py")
""")


def test_a_run_executes_no_late_package(small, tmp_path):
    run_python(f"""
import sys
from lyot.cli import main
try:
    main(["run", {str(small)!r}, "-o", {str(tmp_path)!r}, "-q"], standalone_mode=False)
except SystemExit as end:
    assert not end.code
names = "crds.core.rmap", "numpy.f2py.rules", "scipy.interpolate._bsplines", "scipy.optimize._root"
assert not sys.modules.keys() & set(names)
""")


@pytest.mark.parametrize(
    "code",
    [
        "import scipy.integrate, scipy.signal; scipy.interpolate.CubicSpline, scipy.optimize.root",
        """
import scipy.stats, numpy.testing, numpy.f2py, numcodecs, zarr
from astropy.modeling import fitting
from astropy.nddata import NDData
assert scipy.stats.shapiro([1.0, 2.0, 4.0]).pvalue < 1.0
numpy.testing.assert_equal(1, 1)
numpy.f2py.main, fitting.LinearLSQFitter(), numcodecs.Zlib()
""",
    ],
)
def test_late_packages_can_be_imported_and_what_uses_parts_of_them(code):
    run_python(f"from lyot.compute import process; process.own(); import lyot.pipeline\n{code}")


def test_stpipe_asks_crds_as_ever():
    run_python("""
from lyot.compute import process
process.own()
from stpipe import crds_client
assert crds_client.get_svn_version() == __import__("crds").__version__
""")


def test_a_module_that_fails_says_so():
    run_python("""
import sys, tempfile, pathlib
from lyot.compute import late
folder = tempfile.mkdtemp()
sys.path.insert(0, folder)
pathlib.Path(folder, "broken_module.py").write_text("1 / 0")
late.LATE = ("broken_module",)
late.defer()
import broken_module
try:
    broken_module.anything
except ZeroDivisionError:
    pass
else:
    raise AssertionError
""")


def test_another_process_is_left_alone():
    run_python("""
import sys
import lyot.pipeline
assert "crds.core.rmap" in sys.modules
""")
