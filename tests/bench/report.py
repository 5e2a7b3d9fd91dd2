"""What came out? A table of medians for people, and every run as JSON in .bench/."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from click import echo

from plunk_relay import __version__
from tests.bench.audience import Figure
from tests.bench.load import HttpLoad, Result, SmtpLoad
from tests.bench.peers import BenchError, find_program
from tests.kit.tools import repository

_BUSY_LOAD = 0.5
_FSYNC_TRIES = 50
_HEAD = f"{'':<26}{'accepted/s':>11}{'delivered/s':>12}{'lowest-highest':>16}{'CPU µs/mail':>13}{'peak MB':>9}"
_COLUMNS = ("accepted_per_second", "delivered_per_second", "cpu_us_per_mail", "peak_megabytes")


def describe_machine(directory: Path) -> dict[str, Any]:
    """Return what the figures depend on: machine, disk, versions, and how busy the machine was before."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "filesystem": _filesystem(directory),
        "fsync_milliseconds": round(_fsync_milliseconds(directory), 3),
        "python": platform.python_version(),
        "plunk_relay": __version__,
        "postfix": _first_line("postconf", "-d", "-h", "mail_version"),
        "opendkim": _first_line("opendkim", "-V"),
    }


def print_machine(machine: dict[str, Any]) -> None:
    """Say where this is measured, and what makes the figures worth less."""
    echo(
        f"{machine['cores']} cores, {machine['processor']}; "
        f"{machine['filesystem']}, fsync {machine['fsync_milliseconds']} ms\n"
        f"plunk-relay {machine['plunk_relay']}, Python {machine['python']}, Postfix {machine['postfix']}"
    )
    if machine["load_before"] > _BUSY_LOAD:
        echo(f"Something else is running here (load {machine['load_before']:.1f}): compare within this run only.")
    if machine["filesystem"] == "tmpfs":
        echo("The data is on tmpfs, where fsync costs nothing: choose a disk with --directory.")


def print_table(load: SmtpLoad | HttpLoad, results: Sequence[Result]) -> None:
    """Print the medians of one load, a line a peer, and how the relay compares with each other one."""
    peers = list(dict.fromkeys(result.peer for result in results))
    echo(f"\n{load.title} ({len(results) // len(peers)} runs)\n{_HEAD}")
    medians = {peer: _medians([r for r in results if r.peer == peer]) for peer in peers}
    for peer in peers:
        echo(_line(peer, medians[peer], _spread([r.delivered_per_second for r in results if r.peer == peer])))
    for peer in peers:
        if peer != "relay" and "relay" in peers:
            echo(_ratios(f"relay / {peer}", medians["relay"], medians[peer]))


def write_json(machine: dict[str, Any], options: dict[str, Any], results: Sequence[Result | Figure]) -> Path:
    """Keep every run in .bench/<time>.json; return the path."""
    directory = repository() / ".bench"
    directory.mkdir(exist_ok=True)
    path = directory / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    everything = {"machine": machine, "options": options, "runs": [asdict(result) for result in results]}
    path.write_text(json.dumps(everything, indent=1) + "\n")
    return path


def _medians(results: Sequence[Result]) -> dict[str, float | None]:
    columns = {name: [value for r in results if (value := getattr(r, name)) is not None] for name in _COLUMNS}
    return {name: statistics.median(values) if values else None for name, values in columns.items()}


def _line(peer: str, medians: dict[str, float | None], spread: str) -> str:
    accepted, delivered, cpu, peak = (_number(medians[name]) for name in _COLUMNS)
    return f"  {peer:<24}{accepted:>11}{delivered:>12}{spread:>16}{cpu:>13}{peak:>9}"


def _ratios(title: str, first: dict[str, float | None], second: dict[str, float | None]) -> str:
    pairs = ((first[name], second[name]) for name in _COLUMNS)
    accepted, delivered, cpu, peak = (f"{a / b:.2f}" if a and b else "" for a, b in pairs)
    return f"  {title:<24}{accepted:>11}{delivered:>12}{'':>16}{cpu:>13}{peak:>9}"


def _spread(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{min(known):.0f}-{max(known):.0f}" if known else ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _filesystem(directory: Path) -> str:
    """Return the type of the file system that holds a directory: the longest mount point that fits."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    fitting = [fields for fields in mounts if directory.is_relative_to(fields[1])]
    return max(fitting, key=lambda fields: len(fields[1]))[2]


def _fsync_milliseconds(directory: Path) -> float:
    """Return the median of appending 4 KB and waiting for the disk."""
    path = directory / "fsync"
    durations = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_FSYNC_TRIES):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            durations.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(durations) * 1000


def _first_line(program: str, *arguments: str) -> str | None:
    """Return what a program says of its version; None when it is not there and was not asked for."""
    try:
        said = subprocess.run([find_program(program), *arguments], capture_output=True, text=True, check=False).stdout
    except BenchError:
        return None
    return said.partition("\n")[0].strip()
