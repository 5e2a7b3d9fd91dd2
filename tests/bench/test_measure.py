"""Is every process of a peer counted, those that ended already included?"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.measure import CgroupTree, Meter, ProcTree, Tree

_MEGABYTE = 1_000_000
_WAIT = """
import sys
sys.stdin.readline()
print("done", flush=True)
sys.stdin.read()
"""
_BURN = """
import os, sys, time
sys.stdin.readline()
def burn(seconds):
    while time.process_time() < seconds: pass
if os.fork() == 0:
    burn(0.3)
    os._exit(0)
os.wait()
burn(0.3)
print("done", flush=True)
sys.stdin.read()
"""
_GROW = """
import sys
sys.stdin.readline()
block = bytearray(100_000_000)
del block
print("done", flush=True)
sys.stdin.read()
"""


def _cgroup(pid: int) -> Tree:
    try:
        return CgroupTree(f"plunk-relay-test-{os.getpid()}", pid)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")


@pytest.mark.parametrize("watch", [_cgroup, ProcTree])
def test_cpu_time_of_a_child_that_ended_is_counted(watch: Callable[[int], Tree]) -> None:
    with _running(_BURN) as program, Meter(watch(program.pid)) as meter:
        meter.start()
        _let_go(program)
        used = meter.stop().cpu_seconds
        program.kill()
        program.wait()
    assert used > 0.45  # each of the two burns 0.3
    assert used < 2


def test_the_peak_is_remembered_after_the_memory_was_given_back() -> None:
    with _running(_GROW) as program, Meter(ProcTree(program.pid)) as meter:
        meter.start()
        _let_go(program)
        peak = meter.stop().peak_bytes
        program.kill()
    assert peak > 100 * _MEGABYTE


def test_the_memory_of_several_processes_is_added_up() -> None:
    with _running(_WAIT) as first, _running(_WAIT) as second:
        _let_go(first)
        _let_go(second)
        with Meter(ProcTree(first.pid)) as one, Meter(ProcTree(first.pid, second.pid)) as both:
            both.sample()
            assert both.stop().peak_bytes > one.stop().peak_bytes
        first.kill()
        second.kill()


def test_a_process_that_is_gone_costs_nothing_more() -> None:
    with _running("") as program:
        program.communicate()
    tree = ProcTree(program.pid)
    assert not Path(f"/proc/{program.pid}").exists()
    assert tree.cpu_seconds() == 0


def _running(text: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _let_go(program: "subprocess.Popen[bytes]") -> None:
    """Let the program do its work, and return when it has done it."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(b"\n")
    program.stdin.flush()
    assert program.stdout.readline() == b"done\n"
