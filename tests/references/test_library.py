"""A reference library: what it keeps, who may add to it, and what a kill leaves."""

import json
import os
import shutil
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from astropy.io import fits

from lyot.errors import LyotError
from lyot.files.atomic import temporary_prefix
from lyot.files.exposure import read_cube
from lyot.files.library_store import FRAMES, Library
from lyot.parameters import LibraryRecipe
from lyot.pipeline import Coron3Pipeline
from lyot.references import library as libraries

N_KILLS = 8
"""A thousand by ``make kill``."""


@pytest.fixture
def files(reference_files):
    """The reference exposures of the simulated observation."""
    return reference_files


def products_of_frames(library):
    """Products of all frames over the zone, from their pixels."""
    frames = library.frames(range(len(library)))
    zone = libraries.zone_pixels(frames.sci, library.weight)
    return zone @ zone.T


def assert_whole(library, files):
    """Every frame is there once, and the Gram matrix is that of the frames."""
    rows = library.query()
    assert [r["number"] for r in rows] == list(range(len(rows)))
    assert len({(r["sha256"], r["integration"]) for r in rows}) == len(rows)
    assert len(rows) == sum(len(read_cube(f).sci) for f in files)
    expected = products_of_frames(library)
    np.testing.assert_allclose(library.gram(), expected, atol=1e-9 * expected.max())
    folders = {p.name for p in (library.path / FRAMES).iterdir()}
    assert len(folders) == len({r["sha256"] for r in rows})


def test_frames_are_aligned_repaired_and_scaled(library, files):
    frames = library.frames(range(len(library)))
    assert np.isfinite(frames.sci).all()
    good = (frames.dq & 1) == 0
    inside = library.weight > 0
    first = frames.sci[0]
    as_taken = np.concatenate([read_cube(f).sci for f in files])
    dithered = len(read_cube(files[0]).sci)
    for k in range(len(library)):
        at = inside & good[k] & good[0]
        slope = (frames.sci[k][at] @ first[at]) / (first[at] @ first[at])
        assert slope == pytest.approx(1.0, abs=0.05)  # scaled in another annulus
        if k >= dithered:  # what is left is the wavefront's drift
            at &= np.isfinite(as_taken[k]) & np.isfinite(as_taken[0])
            before = np.corrcoef(as_taken[k][at], as_taken[0][at])[0, 1]
            after = np.corrcoef(frames.sci[k][at], first[at])[0, 1]
            assert 1.0 - after < 0.35 * (1.0 - before)
    raw = read_cube(files[0])
    np.testing.assert_array_equal(good[: len(raw.sci)].sum(axis=(1, 2)) > 0, True)
    assert frames.targets == ("DEMO-REF",) * len(library)
    assert np.isfinite(frames.mjd).all()


def test_additions_update_the_gram_matrix(library, files):
    assert_whole(library, files)
    assert libraries.check(library) < 1e-12


def test_what_is_there_is_not_added_again(library, files):
    before = len(library)
    assert libraries.add(library, files) == 0
    assert len(library) == before


def test_selection_is_by_what_is_asked(library, science_files, files):
    target = read_cube(science_files[0])
    _, alike = libraries.select(library, target, LibraryRecipe(n=5))
    every, everything = libraries.select(library, target, LibraryRecipe(n=0))
    assert len(every) == len(library)
    assert set(alike) == set(np.sort(everything)[-5:])
    by_residual, _ = libraries.select(library, target, LibraryRecipe(by="residual", n=5))
    assert len(by_residual) == 5
    early = replace(target, info=replace(target.info, mjd=every[0]["mjd"]))
    nearest, _ = libraries.select(library, early, LibraryRecipe(by="time", n=3))
    others = sorted(abs(r["mjd"] - every[0]["mjd"]) for r in every)
    assert sorted(abs(r["mjd"] - every[0]["mjd"]) for r in nearest) == others[:3]
    with pytest.raises(LyotError, match="which no frame of the library records"):
        libraries.select(library, target, LibraryRecipe(by="spectral_type", spectral_type="M1V"))
    with pytest.raises(LyotError, match="state it, or choose by correlation"):
        libraries.select(library, target, LibraryRecipe(by="wavefront"))
    own = replace(target, info=replace(target.info, target="demo-ref"))
    with pytest.raises(LyotError, match="frames of its own star are excluded"):
        libraries.select(library, own, LibraryRecipe())


@pytest.mark.parametrize("text", ["", "M1V", "b0", "K7.5III"])
def test_a_spectral_type_is_a_number(text):
    expected = {"": None, "M1V": 61.0, "b0": 10.0, "K7.5III": 57.5}
    assert libraries.spectral_number(text) == expected[text]
    with pytest.raises(LyotError, match="give a class and a subclass"):
        libraries.spectral_number("Q")


@pytest.mark.parametrize("text", ["mjd,rms_nm\n", "mjd,rms_nm\n1,x\n", "mjd\n1\n"])
def test_a_table_of_wavefronts_without_numbers_is_refused(tmp_path, text):
    (tmp_path / "waves.csv").write_text(text)
    with pytest.raises(LyotError, match="not a table with numbers in columns mjd and rms_nm"):
        libraries.read_wavefronts(tmp_path / "waves.csv")


def test_another_mode_is_refused(library, small):
    other = sorted(small.parent.glob("*_calints.fits"))
    with pytest.raises(LyotError, match="must be equal"):
        libraries.add(library, other[:1])


def test_a_run_with_the_library_is_that_with_its_frames_as_members(
    demo, library, science_files, tmp_path, simulated
):
    content = json.loads(simulated.read_text())
    members = content["products"][0]["members"]
    content["products"][0]["members"] = [m for m in members if m["exptype"] == "science"]
    path = simulated.parent / "alone_asn.json"
    path.write_text(json.dumps(content))
    pipeline = Coron3Pipeline()
    pipeline.output_dir, pipeline.library = str(tmp_path), str(library.path)
    pipeline.run(str(path))
    path.unlink()
    for name in (p.name for p in demo.folder.glob("*_psfsub.fits")):
        ours, theirs = (fits.getdata(d / name) for d in (tmp_path, demo.folder))
        # Frames of the library were moved once more, by a fraction of a pixel.
        both = np.isfinite(ours) & np.isfinite(theirs)
        difference = np.std(ours[both] - theirs[both]) / np.std(theirs[both])
        assert difference < 0.15
    [stack] = tmp_path.glob("*1001*psfstack.fits")
    with fits.open(stack) as hdus:
        assert hdus["SCI"].data.shape[0] == len(library)


def test_an_addition_removes_its_own_leftovers_alone(files, tmp_path):
    library = libraries.build(tmp_path / "lib", files[:1])
    old_index = (library.path / "index.sqlite").read_bytes()
    home = library.path / FRAMES
    libraries.add(library, files[1:2])
    second = {p.name for p in home.iterdir()}
    # No process has this number.
    dead = f"{temporary_prefix()}adding".replace(f"-{os.getpid()}-", "-999999999-")
    (home / "notes").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (home / ("a" * 32)).symlink_to(tmp_path / "elsewhere")
    (home / ("b" * 32)).mkdir()
    (home / ("b" * 32) / dead).touch()
    (library.path / "index.sqlite").write_bytes(old_index)
    libraries.add(library, files[2:3])
    left = {p.name for p in home.iterdir()}
    assert second | {"notes", "a" * 32} <= left
    assert "b" * 32 not in left
    assert (tmp_path / "elsewhere").is_dir()


def test_batches_of_another_format_are_not_opened(files, tmp_path):
    library = libraries.build(tmp_path / "lib", files[:1])
    libraries.add(library, files[:1])
    [batch] = [p for p in (library.path / FRAMES).iterdir() if not p.name.startswith(".")]
    shutil.rmtree(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.open_group(str(batch), mode="w", zarr_format=2)
    with pytest.raises(LyotError, match="cannot be read"):
        libraries.check(library)


def test_two_processes_add_at_once(files, tmp_path, forked):
    libraries.build(tmp_path / "lib", files)
    # Both orders, so that both want some files, and some at the same time.
    both = [forked("library", "add", tmp_path / "lib", *order) for order in (files, files[::-1])]
    assert [process.wait() for process in both] == [0, 0]
    assert_whole(Library(tmp_path / "lib"), files)


def test_kills_at_random_moments_lose_nothing(files, tmp_path, rng, forked):
    path = tmp_path / "lib"
    libraries.build(path, files)
    begin = time.monotonic()
    assert forked("library", "add", path, files[0]).wait() == 0
    one = time.monotonic() - begin
    before = 0
    for _ in range(N_KILLS):
        process = forked("library", "add", path, *files)
        time.sleep(one * rng.uniform(0.0, 1.5))
        process.kill()
        library = Library(path)
        assert len(library) >= before
        before = len(library)
        expected = products_of_frames(library)
        np.testing.assert_allclose(library.gram(), expected, atol=1e-9 * expected.max())
        numbers = [(r["file"], r["integration"]) for r in library.query()]
        counts = {name: sum(n == name for n, _ in numbers) for name, _ in numbers}
        whole = {Path(f).name: len(read_cube(f).sci) for f in files}
        assert counts == {name: whole[name] for name in counts}
    assert forked("library", "add", path, *files).wait() == 0
    assert_whole(Library(path), files)
