"""The examples in docstrings run, in a folder with a small observation, and say what they print."""

import ast
import doctest
import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from lyot.analysis.observation import open_run

SOURCE = Path(__file__).resolve().parents[1] / "src"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples():
    """Find the docstrings with examples: from the text, so that decorators hide none."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        parts = path.relative_to(SOURCE).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for node in ast.walk(ast.parse(text)) if ">>> " in text else ():
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                docstring = ast.get_docstring(node) or ""
                if ">>> " in docstring:
                    name = getattr(node, "name", "")
                    yield pytest.param(module, name, docstring, id=f"{module}.{name}")


@pytest.fixture(scope="module")
def observation(small, tmp_path_factory):
    """Copy a small observation: ``science_calints.fits``, ``reference_calints.fits``, ``asn.json``.

    The association and its members are there under their own names too.
    """
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(small.parent, folder, dirs_exist_ok=True)
    shutil.copy(small, folder / "asn.json")
    exposures = sorted(folder.glob("*_calints.fits"))
    shutil.copy(exposures[0], folder / "science_calints.fits")
    shutil.copy(exposures[-1], folder / "reference_calints.fits")
    return folder


@pytest.fixture(scope="module")
def opened(demo):
    """What examples of the analysis may use: a finished run, ``folder``, and its observation."""
    with open_run(demo.folder, star_magnitude=5.0) as found:
        yield {"folder": demo.folder, "observation": found}


def failures(docstring, names, title):
    example = doctest.DocTestParser().get_doctest(docstring, names, title, None, 0)
    report = []
    doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(example, out=report.append)
    return "".join(report)


@pytest.mark.parametrize(("module", "name", "docstring"), list(examples()))
def test_examples_run(module, name, docstring, observation, monkeypatch, request):
    monkeypatch.chdir(observation)
    names = dict(vars(import_module(module)))
    if module.startswith("lyot.analysis.") and re.search(r"\((observation|folder)\b", docstring):
        names |= request.getfixturevalue("opened")
    assert not failures(docstring, names, name)


def test_a_wrong_example_fails():
    assert "Expected:" in failures(">>> 1 + 1\n3\n", {}, "wrong")
