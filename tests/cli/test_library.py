"""Libraries are built, added to, listed and checked by commands."""

import json

from lyot.files.exposure import read_cube
from lyot.files.library_store import Library
from lyot.parameters import LibraryRecipe
from lyot.references import library as libraries
from scenes import assert_refused, lyot


def test_spectral_types_and_wavefronts_are_kept(reference_files, science_files, tmp_path):
    (tmp_path / "w.csv").write_text("mjd,rms_nm\n50000,70\n61041,62.5\n")
    done = lyot("library", "build", tmp_path / "lib", reference_files[0], "--spectral-type", "K2V")
    assert done.exit_code == 0, done.output
    options = ("--spectral-type", "M4.5", "--wavefront", tmp_path / "w.csv")
    done = lyot("library", "add", tmp_path / "lib", reference_files[1], *options)
    assert done.exit_code == 0, done.output
    rows = Library(tmp_path / "lib").query()
    assert {r["spectral_number"] for r in rows} == {52.0, 64.5}
    assert {r["wavefront_nm"] for r in rows} == {None, 62.5}
    recipe = LibraryRecipe(by="spectral_type", spectral_type="M3V", n=1)
    [row], _ = libraries.select(Library(tmp_path / "lib"), read_cube(science_files[0]), recipe)
    assert row["spectral_type"] == "M4.5"


def test_what_is_given_besides_is_read_before_a_library_is_made(reference_files, tmp_path):
    for option, text in (
        (("--wavefront", tmp_path / "none.csv"), "none.csv does not exist; check the path."),
        (("--spectral-type", "Z9"), "is not like M1V"),
    ):
        done = lyot("library", "build", tmp_path / "lib", reference_files[0], *option)
        assert_refused(done, text)
        assert not (tmp_path / "lib").exists()


def test_the_command_line(library, science_files):
    done = lyot("library", "list", library.path, "--where", "integration = 2", "--json")
    assert {r["integration"] for r in json.loads(done.stdout)} == {2}
    done = lyot("library", "list", library.path)
    assert f"{len(library)} of {len(library)} frames; NIRCAM F444W" in done.stdout
    done = lyot("library", "select", library.path, science_files[0], "-n", "3", "--json")
    assert len(json.loads(done.stdout)) == 3
    done = lyot("library", "check", library.path)
    assert "their products agree to" in done.stdout
    done = lyot("library", "list", library.path.parent)
    assert done.exit_code == 1
    assert "is no reference library; make one with" in done.stderr
    done = lyot("library", "build", library.path, science_files[0])
    assert "exists already; add to a library with" in done.stderr
