"""Tasks in processes of this machine: their order, their errors, their deaths, and no open port."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from lyot.compute.cluster import MAX_DEATHS, tasks
from lyot.errors import LyotError


def square(x):
    if x == 3:
        raise LyotError("three is not taken.")
    return x * x


def dies_at_first(path):
    """Die when called for the first time."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def dies(path):
    with open(path, "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def test_order_and_errors_are_kept():
    with tasks("local:2") as local:
        assert local.n_workers == 2
        assert list(local.ordered(abs, [-5, 4, -3])) == [5, 4, 3]
        outcomes = {o.number: o for o in local.completed(square, [1, 3, 4])}
        assert [outcomes[k].value for k in (0, 1, 2)] == [1, None, 16]
        assert str(outcomes[1].error) == "three is not taken."


def test_a_task_whose_worker_died_is_done_again(tmp_path):
    with tasks("local:2") as local:
        pids = list(local.ordered(dies_at_first, [tmp_path / "a", tmp_path / "b"]))
    assert os.getpid() not in pids


def test_a_task_that_kills_its_workers_is_given_up(tmp_path):
    with tasks("local:1") as local:
        [outcome] = local.completed(dies, [tmp_path / "log"])
        assert "Its worker died each time" in str(outcome.error)
        assert (tmp_path / "log").read_text() == "x" * MAX_DEATHS
        assert list(local.ordered(abs, [-1])) == [1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_local_workers_listen_nowhere():
    with tasks("local:1") as local:
        [pid] = local.ordered(_own_pid, [None])
        for process in (pid, os.getpid()):
            assert not _listening(process)
        with socket.socket() as server:  # the check can fail
            server.bind(("127.0.0.1", 0))
            server.listen()
            assert _listening(os.getpid())


def _own_pid(_):
    return os.getpid()


def _listening(pid):
    """Sockets of a process that wait for connections of the network."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return [row for row in rows if row[3] == "0A" and row[9] in inodes]
