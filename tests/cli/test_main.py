"""The group of commands: help, and how errors are printed."""

import subprocess
import sys
import tempfile

import pytest

from lyot.cli import main
from lyot.files import view
from lyot.parameters import COMMANDS
from scenes import assert_refused, lyot


def test_help_needs_no_heavy_import():
    code = (
        "import sys, lyot.cli; print(sorted(m for m in sys.modules if m in "
        "{'numpy', 'astropy', 'stdatamodels', 'matplotlib', 'poppy', 'rich', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_lists_the_commands():
    done = lyot("--help")
    assert done.exit_code == 0
    for command in ("asn", "demo", "info", "run"):
        assert command in done.output


def test_an_interrupt_is_said(small, tmp_path, monkeypatch):
    from lyot.pipeline import Coron3Pipeline

    def interrupted(self, source):
        raise KeyboardInterrupt

    monkeypatch.setattr(Coron3Pipeline, "process", interrupted)
    done = lyot("run", small, "-o", tmp_path)
    assert done.exit_code == 130
    assert "Interrupted" in done.stderr


def test_an_error_of_the_package_is_one_sentence_and_a_log(small, tmp_path, monkeypatch):
    def broken(path):
        raise TypeError("a bug")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(view, "describe", broken)
    done = lyot("info", small)
    assert done.exit_code == 70
    assert_refused(done, "This is an error of lyot itself: TypeError")
    [log] = tmp_path.glob("lyot-error-*.log")
    assert str(log) in done.stderr
    assert "TypeError: a bug" in log.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of Unix")
def test_a_shell_that_grants_too_little_memory_is_told_at_once(small):
    """OpenBLAS asks for its buffers for ever where the system refuses them."""
    code = (
        "import resource, sys; from lyot.cli import main; "
        "resource.setrlimit(resource.RLIMIT_AS, (450 * 2**20,) * 2); main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "info", str(small)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("lyot: error: Commands of this shell may have 450 MB")


@pytest.mark.parametrize("odd", [("--distance", "x" * 3000), ("--" + "x" * 3000,), ("x" * 3000,)])
def test_what_was_given_is_not_repeated_at_length(odd):
    done = lyot("contrast", *(odd if len(odd[0]) == 3000 else ("run", *odd)))
    assert done.exit_code in (1, 2)
    [said] = [line for line in done.stderr.splitlines() if "rror: " in line]
    assert "xxx" in said
    assert len(said) < 700


def test_every_command_says_what_it_does_in_one_sentence():
    for command in [*main.commands.values(), *main.commands["library"].commands.values()]:
        first = command.help.partition("\n\n")[0].strip()
        assert first.endswith("."), command.name
        assert all(p.help for p in command.params if p.param_type_name == "option"), command.name


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "{small}", "--truncate", "x"), "truncate is 'x'; give whole numbers (option --tr"),
        (("run", "{small}", "--n-refs", "3"), "how references are chosen and how many (option --s"),
        (("run", "{small}", "--set", "klip.n_annuli=0"), "(option --set klip.n_annuli=VALUE)."),
        (("run", "{moved}"), "name its folder with input_dir (option --input-dir)."),
        (
            ("run", "{empty}"),
            "and no calibrated exposure (*_calints.fits",
        ),
        (("contrast", "{empty}"), "run the pipeline first (`lyot run ASN`)."),
        (("contrast", "{empty}", "--fpf", "2"), "must lie between 0 and 0.5 (option --fpf)."),
        (("library", "list", "{empty}"), "library.build (`lyot library build LIB FILES`)."),
    ],
)
def test_an_error_names_the_option_or_command_that_mends_it(small, tmp_path, arguments, text):
    moved = tmp_path / "moved" / "asn.json"
    moved.parent.mkdir()
    moved.write_text(small.read_text())
    empty = tmp_path / "empty"
    empty.mkdir()
    done = lyot(*(a.format(small=small, moved=moved, empty=empty) for a in arguments))
    assert_refused(done, text)


@pytest.mark.parametrize("command", COMMANDS)
def test_zero_is_a_value_and_what_is_not_given_is_none(command):
    at = ["--at", "1", "2"] if command in ("companion", "psf") else []
    context = main.commands[command].make_context(command, ["run", *at])
    given = {name for name, value in context.params.items() if value not in (None, (), False)}
    assert given <= {"run", "exposure", "at", "output"}
