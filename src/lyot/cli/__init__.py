"""The command line: parses, calls, prints. One file for each group of commands."""

from lyot.cli import analysis, fetch, library, run
from lyot.cli.main import main
