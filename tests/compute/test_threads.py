"""The linear algebra is held at one thread within every calculation, and restored after it."""

import ast
import contextlib
import inspect
import os
import re
import subprocess
import sys
import threading
import weakref
from importlib import import_module
from pathlib import Path

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from lyot.compute import threads
from lyot.compute.threads import SecondThread, calculation, map_ordered, single_threaded_blas
from lyot.steps.base import LyotStep

ROOT = Path(__file__).resolve().parents[2]
CALCULATING = ("analysis", "references", "simulate", "subtraction")
"""Packages whose functions are called from outside a step."""
NO_PRODUCTS = {
    "exposure_model",
    "builtin_weight",
    "chance_text",
    "citations",
    "companions_for_paper",
    "exposure_mode",
    "limits_for_paper",
    "low_pass_cutoff",
    "make_zones",
    "mass_limits",
    "method_of",
    "named_mode",
    "open_run",
    "read_wavefronts",
    "spectral_number",
    "star_brightness",
    "table_of_modes",
}
"""Functions without a matrix product: they read, or lay out positions."""


def blas_threads():
    return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}


@pytest.fixture
def two_threads():
    import scipy.linalg  # noqa: F401 - has a library of its own

    with threadpool_limits(2, user_api="blas"):
        assert blas_threads() == {2}
        yield
        assert blas_threads() == {2}


def test_blas_is_held_and_restored(two_threads):
    with single_threaded_blas():
        assert blas_threads() == {1}
        with single_threaded_blas():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {2}


def test_blas_is_restored_after_an_error(two_threads):
    with pytest.raises(KeyError), single_threaded_blas():
        raise KeyError
    assert blas_threads() == {2}


def test_blas_stays_held_until_the_last_thread_leaves(two_threads):
    entered, leave = threading.Event(), threading.Event()

    def other():
        with single_threaded_blas():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with single_threaded_blas():
        thread.start()
        assert entered.wait(30)
    assert blas_threads() == {1}
    leave.set()
    thread.join()
    assert blas_threads() == {2}


def test_any_thread_can_hold_blas(two_threads):
    seen = []

    def other():
        with single_threaded_blas():
            seen.append(blas_threads())

    for _ in range(2):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert blas_threads() == {2}
    assert seen == [{1}, {1}]


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="OpenBLAS takes no more threads than cores"
)
def test_a_library_that_is_loaded_later_is_held_too():
    code = """
import sys
from lyot.compute.threads import single_threaded_blas
from threadpoolctl import threadpool_info
import numpy
assert "scipy" not in sys.modules
count = lambda: [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]
with single_threaded_blas():
    import scipy.linalg
    assert set(count()) == {1}, count()
n_libraries = len(count())
assert set(count()) == {2}, count()
with single_threaded_blas():
    assert set(count()) == {1} and len(count()) == n_libraries
"""
    env = {"OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_a_thread_that_imports_extensions_does_not_stop_the_others():
    """The search for libraries and the import of an extension can wait for each other for ever."""
    code = """
import importlib, threading
from lyot.compute.threads import SecondThread, single_threaded_blas
NAMES = ("scipy.spatial", "scipy.stats", "scipy.signal", "matplotlib.pyplot", "PIL.Image", "zarr")
with SecondThread() as second:
    loaded = [second.submit(importlib.import_module, name) for name in NAMES]
    while not all(each.done() for each in loaded):
        with single_threaded_blas():
            pass
"""
    env = {"LYOT_THREADS": "2", "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, check=True, timeout=120)


def test_blocks_of_many_frames_are_small_and_cover_all_pixels():
    for n_rows in (1, 512, 2000, 10**6):
        blocks = threads.pixel_blocks(20_000, n_rows)
        assert [i for b in blocks for i in range(b.start, b.stop)] == list(range(20_000))
        largest = max(b.stop - b.start for b in blocks)
        assert largest == 8192 if n_rows <= 512 else largest < 8192
        assert threads.block_bytes(n_rows) >= 24 * n_rows * largest


def test_maps_hold_blas(two_threads):
    assert map_ordered(lambda _: blas_threads(), range(3)) == [{1}] * 3


def test_a_map_shares_its_work_and_keeps_the_order(monkeypatch):
    monkeypatch.setenv("LYOT_THREADS", "3")
    together, used = threading.Barrier(3), set()

    def square(i):
        used.add(threading.get_ident())
        if i < 3:
            together.wait(30)  # three are worked on at once
        return map_ordered(lambda j: i * j, range(i + 1))[-1]  # a map within a map

    assert map_ordered(square, range(50)) == [i * i for i in range(50)]
    assert threading.get_ident() in used
    assert len(used) == 3


def test_nothing_holds_what_a_map_worked_on(monkeypatch):
    monkeypatch.setenv("LYOT_THREADS", "3")

    class Frames:
        pass

    for _ in range(300):  # a thread drops its task a little after its result is there
        frames = [Frames() for _ in range(4)]
        alive = [weakref.ref(each) for each in frames]
        map_ordered(lambda item, held=frames: (item, len(held))[1], frames[1:])
        del frames
        assert [ref() for ref in alive] == [None] * 4


def test_a_map_raises_the_first_error_and_begins_nothing_more(monkeypatch):
    monkeypatch.setenv("LYOT_THREADS", "2")
    begun, both = [], threading.Barrier(2)

    def fail(i):
        begun.append(i)
        both.wait(30)
        raise ValueError(f"item {i}")

    with pytest.raises(ValueError, match="item 0"):
        map_ordered(fail, range(50))
    assert sorted(begun) == [0, 1]
    assert map_ordered(str, range(3)) == ["0", "1", "2"]


def test_a_generator_is_no_calculation():
    with pytest.raises(TypeError, match="computes after it has returned"):

        @calculation
        def numbers():
            yield 1


class Probed(BaseException):
    """Raised by a probe, with the numbers of threads that its user had."""


class Probe:
    """An argument that ends the call as soon as it is touched."""

    def __getattribute__(self, name):
        if name in ("__class__", "__dict__"):
            return object.__getattribute__(self, name)
        raise Probed(blas_threads())

    def _touched(self, *_):
        raise Probed(blas_threads())

    __iter__ = __len__ = __getitem__ = __bool__ = __float__ = __index__ = __str__ = _touched
    __fspath__ = __array__ = __mul__ = __rmul__ = __truediv__ = __hash__ = __eq__ = _touched
    __add__ = __sub__ = __rsub__ = __neg__ = __lt__ = __gt__ = __repr__ = _touched


def imported_names(tree):
    """Yield module and name of all that a file takes from the calculating packages."""
    modules = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            with contextlib.suppress(ImportError):
                if inspect.ismodule(import_module(full)):
                    modules[alias.asname or alias.name] = full
                    continue
            yield node.module, alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            module = modules.get(getattr(node.value, "id", ""))
            if module:
                yield module, node.attr


def entry_points():
    """Find the functions that the command line, the documentation and benchmarks call."""
    source = ROOT / "src" / "lyot"
    files = [*source.glob("cli*"), *(source / "cli").glob("*.py"), source / "outputs.py"]
    texts = [p.read_text() for p in [*files, source / "survey.py"] if p.is_file()]
    texts += [p.read_text() for p in (ROOT / "benchmarks").glob("*.py")]
    for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        texts += re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    found = {}
    for text in texts:
        for module, name in imported_names(ast.parse(text)):
            parts = module.split(".")
            if parts[0] != "lyot" or len(parts) < 2 or parts[1] not in CALCULATING:
                continue
            function = getattr(import_module(module), name, None)
            if inspect.isfunction(function) and name not in NO_PRODUCTS:
                found[f"{function.__module__}.{name}"] = function
    return [pytest.param(f, id=name) for name, f in sorted(found.items())]


def blas_threads_in(function):
    """Call a function with probes, and return the numbers of threads that it had."""
    required = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    by_name = {p.name: Probe() for p in required if p.kind is p.KEYWORD_ONLY}
    with pytest.raises(Probed) as caught:
        function(*(Probe() for p in required if p.kind is not p.KEYWORD_ONLY), **by_name)
    return caught.value.args[0]


@pytest.mark.parametrize("function", entry_points())
def test_public_functions_compute_with_one_blas_thread(two_threads, function):
    assert blas_threads_in(function) == {1}


def test_the_probe_sees_a_function_that_does_not_hold_blas(two_threads):
    assert blas_threads_in(lambda a: a + 1) == {2}


def test_steps_compute_with_one_blas_thread(two_threads):
    seen = []

    class ProbedStep(LyotStep):
        class_alias = "probed"

        def process(self, value):
            seen.append(blas_threads())
            return value

    ProbedStep().run(1)
    assert seen == [{1}]


def test_a_pipeline_computes_with_one_blas_thread(two_threads, small, tmp_path):
    from lyot.pipeline import Coron3Pipeline

    seen = []
    pipeline = Coron3Pipeline()
    pipeline.output_dir = str(tmp_path)
    pipeline.progress = lambda *_: seen.append(blas_threads())
    pipeline.run(str(small))
    assert len(seen) > 3
    assert all(n == {1} for n in seen)


@pytest.mark.parametrize("n_threads", ["1", "2"])
def test_work_in_the_background_is_done_in_order_at_the_end_of_the_block(monkeypatch, n_threads):
    monkeypatch.setenv("LYOT_THREADS", n_threads)
    done, where = [], set()

    def note(number):
        done.append(number)
        where.add(threading.current_thread())
        return number

    with SecondThread() as second:
        results = [second.submit(note, k) for k in range(20)]
    assert done == list(range(20)) == [each.result() for each in results]
    assert (threading.current_thread() in where) == (n_threads == "1")


def test_an_error_in_the_background_is_raised_and_one_outside_stops_what_has_not_begun(monkeypatch):
    monkeypatch.setenv("LYOT_THREADS", "2")
    with pytest.raises(ZeroDivisionError), SecondThread() as second:
        second.submit(lambda: 1 / 0)
    begun, go, done = threading.Event(), threading.Event(), []

    def first():
        begun.set()
        go.wait(10)
        done.append("first")

    def fail(second):
        second.submit(first)
        second.submit(done.append, "second")
        begun.wait(10)
        threading.Timer(0.05, go.set).start()
        raise RuntimeError

    with pytest.raises(RuntimeError), SecondThread() as second:
        fail(second)
    assert done == ["first"]
