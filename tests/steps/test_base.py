"""Every step runs from the shell, without CRDS."""

import os
import subprocess
import sys
from pathlib import Path

from stdatamodels.jwst import datamodels

from lyot.files.provenance import provenance_of

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
