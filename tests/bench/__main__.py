"""How does this relay compare with Postfix, and with Postfix and opendkim, on this machine?

`make bench` runs everything below in turns (relay, postfix, postfix+opendkim, relay, ...), so that what else happens on the
machine hits all of them, and prints medians. `make bench ARGS="--help"` lists the options. The peers are:

    relay             plunk-relay serve, signing with RSA-2048 and Ed25519
    postfix           a private Postfix instance, not signing
    postfix+opendkim  another one, signing with RSA-2048 through its milter

smtp-source submits to a peer, the peer delivers to an smtp-sink of its own: bodies of 4 KB and 50 KB, over sessions that are
kept and over a connection for each message. wrk sends POST /v1/send to the relay alone: once with everything delivered, once
to a relay whose smarthost never answers, so that only acceptance is measured. Then a queue of 100,000 mails is claimed from,
and a server started on it; with --loads flat, 100,000 mails go through and memory is watched.

--loads audience measures lists, searches, segments, upserts and imports on a million contacts with 5 million events, and
compares them with their targets. --loads seed makes that data and nothing else: 4 GB in a minute or two, which are kept in
--directory and used as long as they fit --contacts, --events and the schema. A copy of them is what is measured.

Everything is on 127.0.0.1; all other data is in a temporary directory on one disk, which is removed. Needs Debian's postfix,
opendkim and wrk for mail; Postfix starts as root only.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from click import echo

from tests.bench.audience import Figure, measure_audience, print_figures, seed_audience
from tests.bench.audience_data import Size
from tests.bench.endurance import measure_backlog, measure_flat, print_backlog, print_flat
from tests.bench.load import HTTP_LOADS, SMTP_LOADS, HttpLoad, Result, SmtpLoad, request, submit
from tests.bench.peers import BenchError, Peer, Sink, find_program, running_opendkim, running_postfix, running_sink
from tests.bench.relay import running_relay
from tests.bench.report import describe_machine, print_machine, print_table, write_json
from tests.kit.process import free_port

PEERS = {"relay": 2, "postfix": 0, "postfix+opendkim": 1}
"""Signatures that each peer puts on a mail."""
_MAIL_LOADS = (*(load.name for load in (*SMTP_LOADS, *HTTP_LOADS)), "backlog", "flat")
_AUDIENCE_LOADS = ("seed", "audience")
_LOAD_NAMES = (*_MAIL_LOADS, *_AUDIENCE_LOADS)
_USUAL_LOADS = [name for name in _MAIL_LOADS if name != "flat"]
_WARM_UP_MAILS = 300
_WARM_UP_SECONDS = 2
_QUICK = {"runs": 2, "messages": 400, "seconds": 2}


def main() -> int:
    """Run the bench as the command line says; return the exit status."""
    options = _read_options(sys.argv[1:])
    signal.signal(signal.SIGTERM, _stop)
    try:
        _bench(options)
    except BenchError as error:
        echo(f"bench: {error}", err=True)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _read_options(arguments: list[str]) -> argparse.Namespace:
    about, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=...", description=about, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=_count, default=5, metavar="N", help="runs of each load at each peer (5)")
    parser.add_argument("--messages", type=_count, default=3000, metavar="N", help="mails a run over SMTP (3000)")
    parser.add_argument("--seconds", type=_count, default=8, metavar="N", help="seconds a run over HTTP (8)")
    parser.add_argument("--sessions", type=_count, default=10, metavar="N", help="connections at once of the clients (10)")
    parser.add_argument("--quick", action="store_true", help=_quick_help())
    parser.add_argument("--only", type=_names(PEERS), default=list(PEERS), metavar="PEER,...", help=", ".join(PEERS))
    parser.add_argument(
        "--loads",
        type=_names(_LOAD_NAMES),
        default=_USUAL_LOADS,
        metavar="LOAD,...",
        help=f"{', '.join(_LOAD_NAMES)} (all but the last three)",
    )
    parser.add_argument("--contacts", type=_count, default=1_000_000, metavar="N", help="size of the audience (1,000,000)")
    parser.add_argument("--events", type=_count, default=5_000_000, metavar="N", help="what happened to it (5,000,000)")
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp"), help="where the data goes while it runs: a real disk (/var/tmp)"
    )
    options = parser.parse_args(arguments)
    if options.quick:
        vars(options).update(
            {name: value for name, value in _QUICK.items() if getattr(options, name) == parser.get_default(name)}
        )
    return options


def _bench(options: argparse.Namespace) -> None:
    _check_programs(options)
    smtp_loads = [load for load in SMTP_LOADS if load.name in options.loads]
    http_loads = [load for load in HTTP_LOADS if load.name in options.loads and "relay" in options.only]
    results: list[Result] = []
    with _temporary_directory(options.directory) as base:
        machine = describe_machine(base)
        print_machine(machine)
        with ExitStack() as stack:
            peers = [_start_peer(stack, base, name) for name in options.only] if smtp_loads else []
            for peer in peers:
                submit(peer, SMTP_LOADS[0], mails=_WARM_UP_MAILS, sessions=options.sessions, tag="warm")
            for load in smtp_loads:
                results += _measure_smtp(load, peers, options)
        for http_load in http_loads:
            results += _measure_http(http_load, base, options)
        figures: list[Figure] = []
        if "relay" in options.only:
            _measure_endurance(base, options)
            figures = _measure_audience(base, options)
    chosen = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    if results:
        echo(
            "\nCPU: all processes of the peer, until its queue is empty. Memory that processes share counts in each of them."
        )
    echo(f"\nEvery run: {write_json(machine, chosen, [*results, *figures])}")


def _measure_smtp(load: SmtpLoad, peers: list[Peer], options: argparse.Namespace) -> list[Result]:
    results = [
        submit(peer, load, mails=options.messages, sessions=options.sessions, tag=f"{load.name}-{run}")
        for run in range(options.runs)
        for peer in peers
    ]
    print_table(load, results)
    return results


def _measure_http(load: HttpLoad, base: Path, options: argparse.Namespace) -> list[Result]:
    results = [_measure_http_once(load, base / f"{load.name}-{run}", options) for run in range(options.runs)]
    print_table(load, results)
    return results


def _measure_endurance(base: Path, options: argparse.Namespace) -> None:
    if "backlog" in options.loads:
        (base / "backlog").mkdir()
        print_backlog(measure_backlog(base / "backlog"))
    if "flat" in options.loads:
        print_flat(measure_flat(base / "flat", sessions=options.sessions))


def _measure_audience(base: Path, options: argparse.Namespace) -> list[Figure]:
    if not set(_AUDIENCE_LOADS) & set(options.loads):
        return []
    seeded = seed_audience(options.directory, Size(options.contacts, options.events))
    if "audience" not in options.loads:
        return []
    figures = measure_audience(seeded, base / "audience")
    print_figures(figures)
    return figures


def _measure_http_once(load: HttpLoad, home: Path, options: argparse.Namespace) -> Result:
    """Measure a relay of its own: mails that an earlier run left in the queue must not be in the way."""
    with running_sink(free_port(), silent=not load.delivered) as sink, running_relay(home, sink) as relay:
        request(relay, load, seconds=_WARM_UP_SECONDS, sessions=options.sessions, tag="warm")
        return request(relay, load, seconds=options.seconds, sessions=options.sessions, tag="run")


def _start_peer(stack: ExitStack, base: Path, name: str) -> Peer:
    """Start a peer and its sink, after one mail that proves that it signs as it should."""
    port, kept = free_port(), base / f"{name}-kept"
    with running_sink(port, keep_in=kept) as keeper:
        peer = stack.enter_context(_running_peer(name, base, keeper))
        submit(peer, SMTP_LOADS[0], mails=1, sessions=1, tag="first")
        [mail] = kept.iterdir()
        signatures = sum(line.lower().startswith(b"dkim-signature:") for line in mail.read_bytes().splitlines())
        if signatures != PEERS[name]:
            raise BenchError(f"{name} put {signatures} signatures on a mail instead of {PEERS[name]}")
    return replace(peer, sink=stack.enter_context(running_sink(port)))


@contextmanager
def _running_peer(name: str, base: Path, sink: Sink) -> Iterator[Peer]:
    with ExitStack() as stack:
        if name == "relay":
            yield stack.enter_context(running_relay(base / name, sink))
        elif name == "postfix":
            yield stack.enter_context(running_postfix(name, base / name, sink))
        else:
            milter, signer = stack.enter_context(running_opendkim(base / "opendkim"))
            yield stack.enter_context(running_postfix(name, base / name, sink, milter=milter, signer=signer))


@contextmanager
def _temporary_directory(parent: Path) -> Iterator[Path]:
    """Make a directory that Postfix, opendkim and the sinks may pass through; remove it at the end."""
    if not parent.is_dir():
        raise BenchError(f"--directory {parent}: there is no such directory")
    with tempfile.TemporaryDirectory(prefix="plunk-relay-bench-", dir=parent.resolve()) as made:
        Path(made).chmod(0o755)
        yield Path(made)


def _check_programs(options: argparse.Namespace) -> None:
    """Find out what is missing before anything is measured."""
    needed = ["smtp-sink", "smtp-source"] if set(_MAIL_LOADS) & set(options.loads) else []
    needed += ["wrk"] if any(load.name in options.loads for load in HTTP_LOADS) else []
    needed += ["postfix"] if any(name.startswith("postfix") for name in options.only) else []
    needed += ["opendkim"] if "postfix+opendkim" in options.only else []
    for name in needed:
        find_program(name)


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a reader of comma-separated names."""

    def read(text: str) -> list[str]:
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return [name for name in known if name in chosen]

    return read


def _quick_help() -> str:
    return f"a look: {_QUICK['runs']} runs of {_QUICK['messages']} mails or {_QUICK['seconds']} seconds"


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _stop(_number: int, _frame: object) -> NoReturn:
    """End like on Ctrl-C, so that everything started is ended too."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
