"""How long the command line takes to answer."""

import subprocess
import sys
import time
from pathlib import Path

from common import machine


def main() -> None:
    """Print the shortest of several starts."""
    print(machine())
    lyot = str(Path(sys.executable).parent / "lyot")
    for command in ([lyot, "--help"], [sys.executable, "-c", "import lyot"]):
        times = []
        for _ in range(7):
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        what = "lyot --help" if command[0] == lyot else "import lyot"
        verdict = "yes" if min(times) < 0.3 else "NO"
        print(f"{what:55s} ours {min(times):8.3f} s   must 0.3 s: {verdict}", flush=True)


if __name__ == "__main__":
    main()
