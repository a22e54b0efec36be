"""How long the command line takes to answer."""

import sys
from pathlib import Path

from common import machine, process_of


def main() -> None:
    """Print the shortest of several starts."""
    print(machine())
    lyot = str(Path(sys.executable).parent / "lyot")
    for command in ([lyot, "--help"], [sys.executable, "-c", "import lyot"]):
        seconds = min(process_of(command).seconds for _ in range(7))
        what = "lyot --help" if command[0] == lyot else "import lyot"
        verdict = "yes" if seconds < 0.3 else "NO"
        print(f"{what:55s} ours {seconds:8.3f} s   must 0.3 s: {verdict}", flush=True)


if __name__ == "__main__":
    main()
