"""What the processor's time of a command of lyot goes into, imports included, on one thread.

``python benchmarks/sampled.py run ASN -o DIR`` asks every 2 ms of processor time which Python
functions are running, and sorts what has passed since by them: a call into a library counts for
the line that made it. It prints one JSON object: seconds by kind. It needs no other file, so that
it tells the same of another version (``PYTHONPATH``).
"""

import contextlib
import io
import json
import linecache
import os
import re
import signal
import sys
import time
from collections import Counter

EVERY_S = 0.002
PRODUCTS = re.compile(r" @ |linalg|lapack|einsum|tensordot|eigh|matmul|solve")
FILES = re.compile(
    r"/(asdf\w*|astropy/io|stdatamodels|gwcs|yaml|jsonschema|stpipe|lyot/files|hashlib|copy)\b"
)


def kind_of(frame):
    """Sort what is running: by what imports it, else by what it belongs to."""
    paths, line = [], linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)
    while frame is not None:
        paths.append(frame.f_code.co_filename)
        frame = frame.f_back
    if any(path.startswith("<frozen importlib") for path in paths):
        return "imports"
    if "/fft/" in paths[0] or "pocketfft" in paths[0]:
        return "FFT"
    if any("/drizzle/" in path for path in paths):
        return "drizzle"
    if any("/viz/" in path or "/jinja2/" in path for path in paths):
        return "report"
    if FILES.search(paths[0]) or any(FILES.search(path) for path in paths[:12]):
        return "files"
    if PRODUCTS.search(line):
        return "GEMM"
    if any(part in paths[0] for part in ("/lyot/", "/numpy/", "/scipy/")):
        return "arithmetic"
    return "other"


def main():
    """Run the command, and print the seconds by kind."""
    spent, last = Counter(), 0.0  # a process begins at 0: its first sample holds the interpreter

    def sample(_, frame):
        nonlocal last
        now = time.process_time()
        spent[kind_of(frame) if last else "imports"] += now - last
        last = time.process_time()

    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    from lyot.cli import main as lyot

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            lyot(sys.argv[1:], standalone_mode=False)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    print(json.dumps(dict(spent)))


if __name__ == "__main__":
    os.environ["LYOT_THREADS"] = "1"
    main()
