"""Mutated inputs end in the right product or in one sentence; 10,000 of them by ``make fuzz``."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_mutated_inputs_end_in_the_right_product_or_in_one_sentence():
    # In a process of its own: children are forked from it, and it must have no threads.
    paths = [str(TESTS.parent / "src"), str(TESTS)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "robustness.fuzz", "--cases", "300", "--seed", "0", "--quick"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 300 |" in done.stdout
