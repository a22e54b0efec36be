"""Run the command line as ``python -m lyot.cli``."""

from lyot.cli import main

main()
