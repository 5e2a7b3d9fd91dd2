"""What does a program cost? CPU time and memory of its whole process tree, children that ended already included.

CPU time comes from a control group of the tree's own (cgroup v2, exact to the microsecond) where one can be made, else from
/proc: what each living process and the children it has waited for used, in ticks of 10 ms. Memory is the high-water mark of
a single process; of several it is the largest sum of resident sizes seen, in which a page that they share counts once each.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

_SAMPLE_SECONDS = 0.2
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_RESET_HIGH_WATER_MARK = "5"  # proc(5), clear_refs


class Tree(Protocol):
    """Some processes and everything that they start."""

    source: str
    """Where the CPU time comes from."""

    def pids(self) -> list[int]:
        """Return who is alive."""

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far, by the dead too."""

    def close(self) -> None:
        """Stop to watch."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a tree used between two moments."""

    cpu_seconds: float
    peak_bytes: int


class Meter:
    """Measures a tree; use as a context manager around the life of its processes."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._cpu_before = 0.0
        self._peak = 0
        self._next_sample = 0.0

    def start(self) -> None:
        """Begin a measurement."""
        for pid in self.tree.pids():
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text(_RESET_HIGH_WATER_MARK)
        self._peak = 0
        self._cpu_before = self.tree.cpu_seconds()

    def sample(self) -> None:
        """Note the memory now; may be called as often as one likes."""
        now = time.monotonic()
        if now >= self._next_sample:
            self._next_sample = now + _SAMPLE_SECONDS
            self._peak = max(self._peak, sum(map(resident_bytes, self.tree.pids())))

    def stop(self) -> Cost:
        """End the measurement."""
        used = self.tree.cpu_seconds() - self._cpu_before
        pids = self.tree.pids()
        return Cost(used, _high_water_mark(pids[0]) if len(pids) == 1 else self._peak)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.tree.close()


def watch_tree(name: str, *roots: int) -> Tree:
    """Watch processes in the most exact way that is allowed here; `name` tells control groups apart."""
    try:
        return CgroupTree(f"plunk-relay-bench-{os.getpid()}-{name}", *roots)
    except OSError:
        return ProcTree(*roots)


class CgroupTree:
    """Processes in a control group of their own, which their children do not leave; raises OSError where it is forbidden."""

    source = "cgroup"

    def __init__(self, name: str, *roots: int) -> None:
        self._directory = _own_cgroup() / name
        self._directory.mkdir()
        try:
            self.cpu_seconds()
            for pid in ProcTree(*roots).pids():
                (self._directory / "cgroup.procs").write_text(str(pid))
        except OSError:
            self.close()
            raise

    def pids(self) -> list[int]:
        """Return who is alive."""
        return [int(line) for line in (self._directory / "cgroup.procs").read_text().split()]

    def cpu_seconds(self) -> float:
        """Return the CPU time used since the group was made."""
        key, value, *_ = (self._directory / "cpu.stat").read_text().split()
        if key != "usage_usec":
            raise OSError(f"{self._directory}/cpu.stat begins with {key}")
        return int(value) / 1_000_000

    def close(self) -> None:
        """Remove the group, after putting back who is still in it."""
        with suppress(OSError):
            for pid in self.pids():
                (self._directory.parent / "cgroup.procs").write_text(str(pid))
            self._directory.rmdir()


class ProcTree:
    """Processes followed through /proc."""

    source = "/proc"

    def __init__(self, *roots: int) -> None:
        self._roots = roots

    def pids(self) -> list[int]:
        """Return the roots and everything below them."""
        children: dict[int, list[int]] = {}
        for pid, fields in _all_processes():
            children.setdefault(int(fields[1]), []).append(pid)
        found, waiting = [], list(self._roots)
        while waiting:
            found.append(waiting.pop())
            waiting += children.get(found[-1], [])
        return found

    def cpu_seconds(self) -> float:
        """Return user and system time of all, and of the children they waited for."""
        fields = filter(None, map(_stat_fields, self.pids()))
        return sum(int(ticks) for one in fields for ticks in one[11:15]) / _TICKS_PER_SECOND

    def close(self) -> None:
        """Nothing was changed."""


def _own_cgroup() -> Path:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    groups = (line.split("::") for line in Path("/proc/self/cgroup").read_text().splitlines())
    root = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    path = next((fields[1] for fields in groups if fields[0] == "0"), None)
    if root is None or path is None:
        raise OSError("no cgroup v2 is mounted")
    return Path(root + path)


def _all_processes() -> Iterator[tuple[int, list[str]]]:
    for entry in os.listdir("/proc"):
        fields = _stat_fields(int(entry)) if entry.isdigit() else None
        if fields:
            yield int(entry), fields


def _stat_fields(pid: int) -> list[str] | None:
    """Return the fields of proc(5) stat from `state` on; None for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def _high_water_mark(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
