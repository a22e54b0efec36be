"""The package changes memory and garbage collection of a process only where it owns the process."""

import ast
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from lyot.compute.process import calm_libraries

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "lyot"


def run_python(code):
    env = os.environ | {"PYTHONPATH": str(SOURCE.parent)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_a_reduction_from_python_freezes_no_objects(small, tmp_path):
    run_python(f"""
import gc
from lyot.compute import process
from lyot.survey import Job, reduce
thresholds, n_frozen = gc.get_threshold(), gc.get_freeze_count()  # Python 3.12 begins with some
done = reduce(Job({str(small)!r}, {str(tmp_path)!r}, report=False))
assert done.products
assert gc.get_freeze_count() == n_frozen
assert gc.get_threshold() == thresholds and gc.isenabled()
assert not process.is_owned()
""")


def test_the_command_line_owns_its_process():
    run_python("""
import gc
from lyot.cli import main
from lyot.compute import process
assert not process.is_owned()
try:
    main(["info", "missing.fits"], standalone_mode=False)
except SystemExit:
    pass
assert process.is_owned()
process.freeze_imports()
assert gc.get_freeze_count() > 1000
""")


def uses_of_the_host(source):
    """Yield what a module does to its process: settings of gc and malloc, and owning it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            if node.attr == "mallopt":
                yield "mallopt"
            elif isinstance(node.value, ast.Name):
                if node.value.id == "gc":
                    yield "gc"
                elif (node.value.id, node.attr) == ("process", "own"):
                    yield "own"
        elif isinstance(node, ast.ImportFrom) and node.module == "gc":
            yield "gc"
        elif isinstance(node, ast.ImportFrom) and node.module == "lyot.compute.process":
            yield from ("own" for alias in node.names if alias.name == "own")


def test_only_the_command_line_owns_a_process():
    users = {"mallopt": set(), "gc": set(), "own": set()}
    for path in SOURCE.rglob("*.py"):
        for use in uses_of_the_host(path.read_text()):
            users[use].add(path.relative_to(SOURCE).as_posix())
    assert users["mallopt"] == users["gc"] == {"compute/process.py"}
    assert users["own"] - {"compute/cluster.py"} <= {"cli.py", "cli/__init__.py", "cli/main.py"}


@pytest.mark.parametrize(
    "source",
    [
        "import gc\ndef f():\n    gc.freeze()",
        "from gc import freeze",
        "ctypes.CDLL(None).mallopt(-1, 0)",
        "from lyot.compute.process import own",
        "from lyot.compute import process\nprocess.own()",
    ],
)
def test_a_use_of_the_host_is_seen(source):
    assert list(uses_of_the_host(source))


def warn_from(module):
    warnings.warn_explicit("any", UserWarning, f"{module}.py", 1, module=module)


def test_warnings_of_libraries_are_ignored_and_those_of_ours_are_not():
    with calm_libraries():
        warn_from("astropy.io.fits.card")
        warn_from("asdf")
        with pytest.raises(UserWarning):
            warn_from("lyot.sky")
        with pytest.raises(UserWarning):
            warn_from("asdfghj")


def test_the_filters_of_warnings_come_back_whatever_threads_do():
    before = list(warnings.filters)
    entered, leave = threading.Event(), threading.Event()

    def other():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            entered.set()
            leave.wait(10)

    with calm_libraries():
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait(10)
        with warnings.catch_warnings():  # it begins and ends after the other
            leave.set()
            thread.join()
        assert next(iter(warnings.filters))[0] == "ignore"  # what the other left behind
    assert list(warnings.filters) == before


@pytest.mark.parametrize("given", [None, "2"])
def test_openblas_has_one_thread_unless_the_user_wants_more(given):
    code = """
import os
from lyot.compute import process
process.own()
import scipy.linalg
from threadpoolctl import threadpool_info
blas = [each["num_threads"] for each in threadpool_info() if each["internal_api"] == "openblas"]
print(os.environ["OPENBLAS_NUM_THREADS"], max(blas, default=1))
"""
    env = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    env |= {"PYTHONPATH": str(SOURCE.parent)} | ({"OPENBLAS_NUM_THREADS": given} if given else {})
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    wanted, has = map(int, done.stdout.split())
    assert wanted == int(given or 1)
    assert has <= wanted


@pytest.mark.parametrize("given", [None, "2"])
def test_products_are_made_by_one_thread_whatever_the_user_wants(given):
    code = """
from lyot.compute import process
process.own()
from lyot.compute.threads import map_ordered
from threadpoolctl import threadpool_info

def threads(_):
    import scipy.linalg
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

print(process.has_single_blas(), max(map(max, map_ordered(threads, range(2)))))
"""
    env = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    env |= {"PYTHONPATH": str(SOURCE.parent)} | ({"OPENBLAS_NUM_THREADS": given} if given else {})
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, check=True, text=True
    )
    is_single, most = done.stdout.split()
    assert most == "1"
    if given:
        assert is_single == "False"
