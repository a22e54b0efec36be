"""Surveys: many associations, each reduced once, whatever happens in between."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from distributed import Client, LocalCluster

from lyot.analysis import exposure
from lyot.analysis.contrast import contrast_curve
from lyot.analysis.observation import open_run
from lyot.analysis.psf import psf_from_image
from lyot.compute.cluster import DaskTasks, Tasks
from lyot.errors import LyotError
from lyot.files.atomic import is_stale, temporary_prefix
from lyot.parameters import SubtractRecipe, by_step
from lyot.survey import FAILED, REDUCED, UNCHANGED, Job, Source, plan, reduce, run
from scenes import lyot

N_KILLS = 8
"""A thousand by ``make kill``."""


@pytest.fixture
def targets(small, tmp_path):
    """Three associations of one observation, under three names, in a folder of their own."""
    folder = tmp_path / "in"
    folder.mkdir()
    for path in small.parent.glob("*_calints.fits"):
        shutil.copy(path, folder / path.name)
    content = json.loads(small.read_text())
    for name in ("one", "two", "three"):
        content["products"][0]["name"] = name
        (folder / f"{name}_asn.json").write_text(json.dumps(content))
    return folder


def arrays_of(folder):
    """All arrays of all FITS products below a folder, by name."""
    found = {}
    for path in sorted(p for p in folder.rglob("*.fits") if ".lyot-" not in str(p)):
        with fits.open(path) as hdus:
            for hdu in hdus:
                if hdu.data is not None and hdu.name != "ASDF":
                    found[str(path.relative_to(folder)), hdu.name] = np.array(hdu.data)
    return found


def assert_same(made, expected):
    assert made.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(made[key], array, err_msg=str(key))


def test_a_folder_is_reduced_and_then_left_alone(targets, tmp_path):
    out = tmp_path / "out"
    done = lyot("run", targets, "-o", out, "--no-report", "--no-search", "--truncate", "3")
    assert done.exit_code == 0, done.output
    assert done.stdout.count(" reduced ") == 3
    rows = json.loads((out / "survey.json").read_text())
    assert [r["state"] for r in rows] == [REDUCED] * 3
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.fits")}
    done = lyot(
        "run", targets, "-o", out, "--no-report", "--no-search", "--truncate", "3", "--json"
    )
    assert [r["state"] for r in json.loads(done.stdout)] == [UNCHANGED] * 3
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.fits")} == before


def test_what_has_changed_is_reduced_again_by_content(targets, tmp_path):
    out = tmp_path / "out"
    job = Job(str(targets / "one_asn.json"), str(out), report=False, search=False)
    assert reduce(job).state == REDUCED
    # A new date changes nothing.
    for path in targets.iterdir():
        os.utime(path)
    assert reduce(job).state == UNCHANGED
    # A product that was spoilt, or is gone; another parameter; other data; told so.
    [image] = out.glob("*_i2d.fits")
    image.write_bytes(image.read_bytes()[:-2880])
    assert reduce(job).state == REDUCED
    image.unlink()
    assert reduce(job).state == REDUCED
    other = replace(job, parameters=by_step(SubtractRecipe(n_modes=(2,))))
    assert reduce(other).state == REDUCED
    assert reduce(other).state == UNCHANGED
    [path] = targets.glob("jw09999001*")
    with fits.open(path, mode="update") as hdus:
        hdus["SCI"].data[0, 5, 5] += 1.0
    assert reduce(other).state == REDUCED
    again = replace(other, rerun=True)
    assert reduce(again).state == REDUCED


def test_a_report_shows_its_own_run_alone(targets, tmp_path):
    out = tmp_path / "out"
    modes = by_step(SubtractRecipe(n_modes=(1, 3)))
    job = Job(str(targets / "one_asn.json"), str(out), parameters=modes)
    reduce(job)
    [report] = out.glob("*_report.html")
    assert "after, 1 mode" in report.read_text()
    reduce(replace(job, parameters=by_step(SubtractRecipe(n_modes=(4,)))))
    assert list(out.glob("*_k001_psfsub.fits"))  # what was made before is not lost
    with open_run(out) as observation:
        assert observation.n_modes == (4,)
    for _ in range(2):
        text = report.read_text()
        assert "after, 4 modes" in text
        assert "after, 1 mode" not in text
        assert lyot("report", out).exit_code == 0


def test_results_of_an_earlier_run_are_kept_and_not_shown(targets, tmp_path):
    out = tmp_path / "out"
    job = Job(str(targets / "one_asn.json"), str(out))
    assert reduce(job).candidates is not None
    [report], [table] = out.glob("*_report.html"), out.glob("*_candidates.ecsv")
    assert "The search was switched off" not in report.read_text()
    limits = table.with_name(table.name.replace("candidates", "limits"))
    limits.write_text("no table")
    reduce(replace(job, search=False))
    for _ in range(2):
        assert "The search was switched off" in report.read_text()
        assert lyot("report", out).exit_code == 0
    assert table.exists()
    assert limits.exists()
    # What is made of these products is shown.
    assert lyot("detect", out).exit_code == 0
    assert lyot("report", out).exit_code == 0
    assert "The search was switched off" not in report.read_text()


def test_one_failure_does_not_stop_the_others(targets, tmp_path):
    bad = targets / "bad_asn.json"
    bad.write_text(json.dumps({"products": [{"name": "bad", "members": []}]}))
    out = tmp_path / "out"
    done = lyot("run", targets, "-o", out, "--no-report", "--no-search")
    assert done.exit_code == 1
    assert "1 of 4 associations failed" in done.stderr
    assert "nothing to subtract from" in done.stdout
    states = {r["association"]: r["state"] for r in json.loads((out / "survey.json").read_text())}
    assert states.pop(str(bad)) == FAILED
    assert set(states.values()) == {REDUCED}


def test_plans_that_cannot_be_are_refused(targets, tmp_path):
    shutil.copy(targets / "one_asn.json", targets / "copy_asn.json")
    done = lyot("run", targets, "-o", tmp_path / "out")
    assert "both make a product named one; rename one" in done.stderr
    (tmp_path / "empty").mkdir()
    done = lyot("run", tmp_path / "empty", "-o", tmp_path / "out")
    assert "(*_asn.json) and no calibrated exposure (*_calints.fits" in done.stderr
    done = lyot("run", targets / "one_asn.json", "--scheduler", "tcp://127.0.0.1:1")
    assert "No Dask scheduler answers at tcp://127.0.0.1:1" in done.stderr
    done = lyot("run", targets / "one_asn.json", "--scheduler", "local:0")
    assert "give local, local:N with N workers, or an address" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_error_is_said_once_and_stands_in_the_log(targets, tmp_path):
    done = lyot("run", targets / "one_asn.json", "-o", tmp_path / "out", "--set", "klip.bad_bits=X")
    assert done.stderr.count("bad_bits is 'X'") == 1
    assert "ERROR lyot.survey: bad_bits is 'X'" in (tmp_path / "out" / "one_run.log").read_text()


def test_a_log_lies_beside_the_products(targets, tmp_path):
    reduce(Job(str(targets / "one_asn.json"), str(tmp_path / "out"), report=False, search=False))
    text = (tmp_path / "out" / "one_run.log").read_text()
    assert "Saved" in text
    assert "The star of" in text


def test_what_a_killed_process_left_is_told_apart():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mine = f"{temporary_prefix()}x"
    assert not is_stale(mine)
    assert is_stale(mine.replace(f"-{os.getpid()}-", f"-{gone.pid}-"))
    assert not is_stale(mine.replace(".lyot-", ".lyot-elsewhere."))
    assert not is_stale("jw01_psfsub.fits")


def test_kills_at_random_moments_leave_nothing_wrong(targets, tmp_path, rng, forked):
    def start(folder):
        return forked("run", targets, "-o", folder, "--no-report", "--no-search", "-q")

    begin = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    whole = time.monotonic() - begin
    expected = arrays_of(tmp_path / "whole")
    out = tmp_path / "out"
    for _ in range(N_KILLS):
        process = start(out)
        time.sleep(rng.uniform(0.0, 1.0) * whole)
        process.kill()
        for key, array in arrays_of(out).items():
            np.testing.assert_array_equal(array, expected[key], err_msg=str(key))
        if rng.random() < 0.3:
            shutil.rmtree(out, ignore_errors=True)
    assert start(out).wait() == 0
    assert_same(arrays_of(out), expected)
    assert not list(out.rglob(".lyot-*"))


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and two workers, each a process."""
    environment = {"LYOT_THREADS": "1"}
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", env=environment
        ) as made,
        Client(made) as client,
    ):
        yield made, client


def test_a_cluster_gives_the_same_bits_though_a_worker_dies(targets, tmp_path, cluster):
    _, client = cluster
    jobs = plan(
        Job("", str(tmp_path / "here"), report=False, search=False),
        [Source(str(p)) for p in sorted(targets.glob("*_asn.json"))],
    )
    assert {f.state for f in run(jobs, Tasks())} == {REDUCED}
    there = plan(
        Job("", str(tmp_path / "there"), report=False, search=False),
        [Source(j.association) for j in jobs],
    )
    states = []
    for each in run(there, DaskTasks(client)):
        states.append(each.state)
        if len(states) == 1:
            # A worker in the middle of its task.
            busy = next(iter(client.processing()), None)
            pids = client.run(os.getpid)
            victim = next((w for w, t in client.processing().items() if t), busy)
            os.kill(pids[victim], signal.SIGKILL)
    assert sorted(states)[-1] in (REDUCED, UNCHANGED)
    assert len(states) == 3
    assert FAILED not in states
    assert_same(arrays_of(tmp_path / "there"), arrays_of(tmp_path / "here"))


def square(x):
    if x == 3:
        raise LyotError("three is not taken.")
    return x * x


def test_tasks_keep_their_order_and_their_errors(cluster):
    for where in (Tasks(), DaskTasks(cluster[1])):
        assert list(where.ordered(abs, [-5, 4, -3])) == [5, 4, 3]
        outcomes = {o.number: o for o in where.completed(square, [1, 3, 4])}
        assert [outcomes[k].value for k in (0, 1, 2)] == [1, None, 16]
        assert str(outcomes[1].error) == "three is not taken."
        with pytest.raises(LyotError, match="three is not taken"):
            list(where.ordered(square, [1, 3]))


def test_injections_on_a_cluster_are_the_same(demo, cluster):
    with open_run(demo.folder, star_magnitude=5.0) as observation:
        separations = np.array([0.5, 1.0, 1.6])
        here = contrast_curve(observation, separations_arcsec=separations)
        there = contrast_curve(
            observation, separations_arcsec=separations, tasks=DaskTasks(cluster[1])
        )
        # Another process may have other kernels of the linear algebra.
        for name in ("throughput", "calibrated", "throughput_scatter"):
            np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-12)


def test_workers_take_the_psf_that_they_are_sent(demo, cluster):
    y, x = np.mgrid[-15:16, -15:16]
    with open_run(demo.folder, star_magnitude=5.0) as observation:
        # No file holds this PSF, and no worker could derive it.
        psf = psf_from_image(np.exp(-0.5 * (x**2 + y**2) / 1.7**2), origin="a broad Gaussian")
        observation = replace(observation, psf=psf)
        separations = np.array([0.7, 1.2])
        here = contrast_curve(observation, separations_arcsec=separations)
        there = contrast_curve(
            observation, separations_arcsec=separations, tasks=DaskTasks(cluster[1])
        )
    np.testing.assert_allclose(there.calibrated, here.calibrated, rtol=1e-12)


def test_products_over_a_library_on_a_cluster_are_the_same(simulated, tmp_path, cluster):
    from lyot.references import library as libraries

    members = json.loads(simulated.read_text())["products"][0]["members"]
    files = [simulated.parent / m["expname"] for m in members if m["exptype"] == "psf"][:3]
    made = libraries.build(tmp_path / "lib", files)
    libraries.add(made, files)
    everywhere = np.ones(made.shape)
    here = libraries.gram_over(made, everywhere)
    there = libraries.gram_over(made, everywhere, tasks=DaskTasks(cluster[1]))
    np.testing.assert_array_equal(there, here)
    frames = made.frames(range(len(made))).sci.reshape(len(made), -1).astype(float)
    frames -= frames.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(here, frames @ frames.T, rtol=1e-9, atol=1e-9 * here.max())


def test_a_run_with_limits_subtracts_each_exposure_once(targets, tmp_path, monkeypatch):
    def _refuse(*_, **__):
        raise AssertionError("an exposure is subtracted again")

    out, again = tmp_path / "out", tmp_path / "again"
    with monkeypatch.context() as patch:
        # Other numbers of modes are subtracted by this; those of the run must not be.
        patch.setattr(exposure, "subtract", _refuse)
        run_options = ("--no-report", "--no-search", "--truncate", "1,3", "--star-mag", "4.0")
        done = lyot("run", targets / "one_asn.json", "-o", out, *run_options)
        assert done.exit_code == 0, done.output
        with open_run(out):
            pass
        with (
            pytest.raises(AssertionError, match="is subtracted again"),
            open_run(out, n_modes=(2,)),
        ):
            pass
    again.mkdir()
    done = lyot("contrast", out, "--star-mag", "4.0", "-o", again)
    assert done.exit_code == 0, done.output
    [in_run], [from_files] = out.glob("*_limits.ecsv"), again.glob("*_limits.ecsv")
    in_run, from_files = QTable.read(in_run), QTable.read(from_files)
    for name in ("throughput", "noise", "contrast", "contrast_raw"):
        # ERR of the references is rounded in their product.
        np.testing.assert_allclose(in_run[name], from_files[name], rtol=1e-5)
