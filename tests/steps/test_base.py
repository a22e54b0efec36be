"""What the steps share: files that are opened; they run from the shell without CRDS."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.jwst import datamodels
from stpipe._cli.strun import main as strun

from lyot import steps
from lyot.errors import LyotError
from lyot.files.provenance import provenance_of
from lyot.steps import KlipStep
from lyot.steps.base import is_one, opened

BIN = Path(sys.executable).parent


def shell(*arguments, cwd):
    env = {k: v for k, v in os.environ.items() if not k.startswith("CRDS")}
    return subprocess.run(
        [str(a) for a in arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


def test_steps_run_from_the_shell_without_crds(files, small, tmp_path):
    done = shell(BIN / "strun", "lyot::stack_refs", small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [stack] = tmp_path.glob("*_psfstack.fits")
    done = shell(
        BIN / "strun",
        "lyot::align_refs",
        files[0][0],
        stack,
        f"--output_dir={tmp_path}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    [aligned] = tmp_path.glob("*_psfalign.fits")
    done = shell(
        BIN / "strun",
        "lyot::klip",
        files[0][0],
        aligned,
        "--truncate=2",
        f"--output_dir={tmp_path}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    [subtracted] = tmp_path.glob("*_psfsub.fits")
    with datamodels.open(subtracted) as model:
        assert provenance_of(model)["steps"]["klip"]["n_kept"] == 2


@pytest.mark.parametrize(
    ("files_of", "options", "sentence"),
    [
        (lambda e: 2 * [e.with_name("none.fits")], [], "none.fits does not exist; check the path."),
        (lambda e: [e, e.with_name("cut.fits")], [], "is truncated"),
        (lambda e: [e, e], ["--zones=x"], "zones is 'x'; it must be one of full, annuli, map."),
        (lambda e: [e, e], ["--truncate=abc"], "truncate is 'abc'; give whole numbers."),
        (lambda e: [e, e], ["--truncate=1,,2"], "truncate is '1,,2'; give one value, or"),
        (lambda e: [e, e], ["--truncate", "1,,2"], "truncate is '1,,2'; give one value, or"),
    ],
)
def test_strun_shows_one_sentence(files, files_of, options, sentence, tmp_path, capfd, monkeypatch):
    exposure, out = tmp_path / "a_calints.fits", tmp_path / "out"
    exposure.write_bytes(Path(files[0][0]).read_bytes())
    (tmp_path / "cut.fits").write_bytes(exposure.read_bytes()[:50_000])
    arguments = [*map(str, files_of(exposure)), *options, f"--output_dir={out}"]
    monkeypatch.setattr(sys, "argv", ["strun", "lyot.steps.KlipStep", *arguments])
    with pytest.raises(SystemExit) as ended:
        strun()
    said = " ".join("".join(capfd.readouterr()).split())  # strun wraps its lines
    assert ended.value.code == 1
    assert sentence in said
    assert "Traceback" not in said
    assert not list(out.glob("*"))


@pytest.mark.parametrize(
    ("raised", "status", "sentence"),
    [
        (TypeError("a bug"), 70, "This is an error of lyot itself: TypeError"),
        (OSError(28, "No space left on device", "out"), 1, "No space left on device out."),
        (KeyboardInterrupt(), 130, "Interrupted; the products that were finished are complete."),
    ],
)
def test_strun_shows_one_sentence_of_other_errors(
    raised, status, sentence, files, tmp_path, capfd, monkeypatch
):
    class BrokenStep(KlipStep):
        def process(self, *_):
            raise raised

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(steps, "BrokenStep", BrokenStep, raising=False)
    monkeypatch.setattr(sys, "argv", ["strun", "lyot.steps.BrokenStep", str(files[0][0])])
    with pytest.raises(SystemExit) as ended:
        strun()
    said = " ".join("".join(capfd.readouterr()).split())
    assert ended.value.code == status
    assert sentence in said
    assert "Traceback" not in said
    logs = [log.read_text() for log in tmp_path.glob("lyot-error-*.log")]
    assert ["TypeError: a bug" in log for log in logs] == [True] * (status == 70)


def test_python_sees_what_a_step_raises(tmp_path):
    class BrokenStep(KlipStep):
        def process(self, *_):
            raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        BrokenStep(output_dir=str(tmp_path)).run("a.fits", "b.fits")


def test_python_sees_the_error_of_the_package(tmp_path):
    with pytest.raises(LyotError, match="does not exist"):
        KlipStep(output_dir=str(tmp_path)).run(str(tmp_path / "none.fits"), "none.fits")


@pytest.mark.parametrize(
    ("n_axes", "kind"), [(2, "ImageModel"), (3, "CubeModel"), (4, "QuadModel")]
)
def test_a_file_is_opened_as_what_its_axes_are(tmp_path, n_axes, kind):
    path = tmp_path / "a.fits"
    getattr(datamodels, kind)(np.ones((2,) * n_axes, np.float32)).save(path)
    for given in (path, str(path)):
        with opened(given) as model:
            assert type(model).__name__ == kind
            with opened(model) as same:
                assert same is model
            assert model.data.shape == (2,) * n_axes


def test_a_file_with_other_axes_is_refused(tmp_path):
    path = tmp_path / "five.fits"
    hdu = fits.ImageHDU(np.ones((1, 1, 1, 2, 2), np.float32), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    with pytest.raises(LyotError, match="has 5 axes; a product has 2 to 4"), opened(path):
        pass


def test_one_exposure_is_told_from_several(target, files):
    assert is_one(target)
    assert is_one(files[0][0])
    assert not is_one(files[0])
    assert not is_one(iter(files[0]))
