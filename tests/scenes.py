"""What several tests share: the command line as a user sees it, and fits of shifts."""

import numpy as np
from click.testing import CliRunner

from lyot.algorithms import fourier, registration
from lyot.cli import main


def lyot(*arguments, **options):
    """Run a command of the command line in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments], **options)


def assert_refused(done, text):
    """One sentence on standard error, a non-zero status, no traceback."""
    assert done.exit_code not in (0, None), done.output
    assert text in done.stderr
    assert "Traceback" not in done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("lyot: error: ")]
    assert len(lines) == 1


def products_in(folder):
    """What a run left there, but for the log and the record that it writes of itself."""
    found = sorted(folder.iterdir()) if folder.exists() else []
    return [p for p in found if not p.name.endswith(("_run.log", "_run.json"))]


def refined(target, refs, start=None, weight=None, var_t=None, var_r=None, **options):
    """Fit references to a target; weights and variances are one unless they are given."""
    refs = np.atleast_3d(refs) if np.ndim(refs) == 3 else np.asarray(refs)[None]
    spectra = fourier.spectrum(refs)
    weight = np.ones(target.shape) if weight is None else weight
    var_t = np.ones(target.shape) if var_t is None else var_t
    var_r = np.ones(refs.shape) if var_r is None else var_r
    start = np.zeros((len(refs), 2)) if start is None else start
    return registration.refine(target, weight, var_t, spectra, var_r, start, **options)
