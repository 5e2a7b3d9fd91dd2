"""What runs? The composition root: builds the Relay, lists doors and workers, starts and stops them.

A service that dies ends the process with its traceback, and systemd starts it again. On SIGTERM the doors stop accepting
first; workers finish what is in hand for up to `grace_seconds`; then the database is closed.
"""

import asyncio
import ctypes
import gc
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from plunk_relay import __version__, janitor
from plunk_relay.acme import worker as certificate_keeper
from plunk_relay.acme.actions import check_library
from plunk_relay.admin import AdminSocket
from plunk_relay.app import create_app
from plunk_relay.clock import Clock, SystemClock
from plunk_relay.datadir import DirectoryLock, load_secret_key, prepare_directory
from plunk_relay.db.engine import Database
from plunk_relay.db.migrate import migrate
from plunk_relay.delivery import worker as deliverer
from plunk_relay.delivery.routes import RouteTable
from plunk_relay.delivery.tls import worker as tls_reporter
from plunk_relay.delivery.tls.results import TlsResults
from plunk_relay.delivery.tls.sts import StsPolicies
from plunk_relay.delivery.tls.worker import https_reach
from plunk_relay.domains import worker as domain_verifier
from plunk_relay.errors import SetupError, UsageError
from plunk_relay.jobs import worker as job_worker
from plunk_relay.log import get_logger
from plunk_relay.mail.dns import Resolver
from plunk_relay.mail.tls import tls_context
from plunk_relay.memory import Memory
from plunk_relay.projects.actions import open_keys
from plunk_relay.projects.queries import ensure_relay_project, list_projects
from plunk_relay.relay import Relay, Wakes
from plunk_relay.secretbox import SecretBox
from plunk_relay.segments import worker as segment_counter
from plunk_relay.settings import Settings, notify_socket
from plunk_relay.smtp.inbound import inbound_doors
from plunk_relay.smtp.submission import submission_doors
from plunk_relay.spool import prepare_spool
from plunk_relay.uploads.actions import check_library as check_upload_library
from plunk_relay.uploads.actions import open_store
from plunk_relay.verify import worker as list_reader
from plunk_relay.verify.lists import DomainLists
from plunk_relay.web.endpoint import Endpoint
from plunk_relay.web.idempotency import release_unsettled
from plunk_relay.web.requestlog import RequestLog
from plunk_relay.web.server import HttpDoor

log = get_logger("serve")
_M_MMAP_THRESHOLD = -3  # malloc.h
_MAPPED_BYTES = 1 << 20
Service = Callable[[Relay, asyncio.Event], Coroutine[Any, Any, None]]
WORKERS: Sequence[Service] = (
    deliverer.run,
    tls_reporter.run,
    domain_verifier.run,
    certificate_keeper.run,
    list_reader.run,
    segment_counter.run,
    job_worker.run,
    janitor.run,
)


def database_path(settings: Settings) -> Path:
    """Return the SQLite file of the settings; raises UsageError for another database."""
    url = settings.database_url
    if not url.startswith("sqlite:///"):
        raise UsageError("setting `database.url`: this version keeps its data in SQLite: sqlite:///<path>")
    return Path(url.removeprefix("sqlite:///"))


def check_settings(settings: Settings) -> None:
    """Raise UsageError for settings that cannot be used, although each by itself is well-formed; else SetupError."""
    RouteTable(settings.delivery)
    database_path(settings)
    _check_authorities("delivery.ca_file", settings.delivery.ca_file)
    _check_authorities("acme.ca_file", settings.acme.ca_file)
    if settings.acme.email is not None and settings.smtp.tls_certificate is not None:
        raise UsageError("settings `acme.email` and `smtp.tls_certificate`: there is one certificate: keep one of them")
    check_library(settings)
    check_upload_library(settings)


def _check_authorities(name: str, ca_file: Path | None) -> None:
    try:
        tls_context(verify=True, authorities=str(ca_file) if ca_file else None)
    except OSError as error:  # what OpenSSL cannot read is an OSError too
        raise UsageError(f"setting `{name}`: {ca_file} is no PEM file of certificates: {error}") from error


@asynccontextmanager
async def open_relay(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Relay]:
    """Open the data and build a Relay; raises SetupError. The caller holds the directory's lock."""
    chosen = clock or SystemClock()
    secrets = SecretBox(load_secret_key(settings.server.data_dir, settings.server.secret_key))
    prepare_spool(settings.server.data_dir)
    path = database_path(settings)
    db = await Database.open(path, readers=settings.database.readers)
    stores = ExitStack()
    try:
        await migrate(db, path)
        resolver = _resolver(settings)
        tls_results = TlsResults(chosen, wanted=settings.delivery.tls_report_from is not None)
        reach = https_reach(settings.delivery, resolver)
        relay = Relay(
            settings=settings,
            db=db,
            clock=chosen,
            resolver=resolver,
            sts_policies=StsPolicies(db, chosen, reach, tls_results, port=settings.delivery.mta_sts_port),
            tls_results=tls_results,
            domain_lists=DomainLists(settings.verify, chosen, reach),
            uploads=stores.enter_context(open_store(settings)),
            secrets=secrets,
            memory=Memory(chosen.monotonic),
            wakes=Wakes(),
            hostname=settings.smtp.hostname or socket.getfqdn(),
            stopping=asyncio.Event(),
            started=chosen.monotonic(),
        )
        await _check_secret_key(relay)
        await db.write(ensure_relay_project, now=chosen.now())
        yield relay
    finally:
        stores.close()
        await db.close()


async def _check_secret_key(relay: Relay) -> None:
    """Raise SetupError when the key is not the one that stored secrets were sealed with."""
    for project in await relay.db.read(list_projects, limit=1):
        open_keys(relay, project)


def lock_directory(settings: Settings) -> DirectoryLock:
    """Take the data directory for this process; raises SetupError when another server has it."""
    directory = settings.server.data_dir
    prepare_directory(directory)
    lock = DirectoryLock(directory)
    if not lock.acquire():
        raise SetupError(f"another plunk-relay server is using the data directory {directory}")
    return lock


async def serve(
    settings: Settings, *, prepare: Callable[[Relay], Awaitable[object]] | None = None, pages: Sequence[Endpoint] = ()
) -> None:
    """Run everything until SIGTERM or SIGINT; `prepare` is awaited before the doors open."""
    check_settings(settings)
    lock = lock_directory(settings)
    try:
        async with open_relay(settings) as relay:
            _stop_on_signals(relay.stopping)
            await release_unsettled(relay)
            if prepare is not None:
                await prepare(relay)
            await _run(relay, pages)
    finally:
        lock.release()


async def _run(relay: Relay, pages: Sequence[Endpoint]) -> None:
    request_log = RequestLog()
    http = HttpDoor(
        create_app(relay, request_log, more=pages),
        host=relay.settings.http.host,
        port=relay.settings.http.port,
        trusted_proxies=[str(network) for network in relay.settings.http.trusted_proxies],
    )
    http.open()
    admin = AdminSocket(relay)
    await admin.open()
    doors = [*await submission_doors(relay), *inbound_doors(relay)]
    for door in doors:
        await door.start()
    stop_workers = asyncio.Event()
    grace = relay.settings.server.grace_seconds
    async with asyncio.TaskGroup() as services:
        for work in (*WORKERS, request_log.run):
            services.create_task(work(relay, stop_workers), name=work.__qualname__)
        services.create_task(http.run(relay.stopping, grace_seconds=grace), name="http door")
        services.create_task(admin.run(relay.stopping), name="admin socket")
        _settle_memory()
        _announce(relay, http.port, {door.name: door.port for door in doors})
        await relay.stopping.wait()
        log.info("stopping", grace_seconds=grace)
        _notify("STOPPING=1")
        await asyncio.gather(*(door.stop(grace) for door in doors))
        stop_workers.set()
    await request_log.flush(relay)  # requests that ended during the grace
    await tls_reporter.store_results(relay)  # and sessions
    log.info("stopped")


def _resolver(settings: Settings) -> Resolver:
    return Resolver(settings.delivery.resolvers, trust_ad=settings.delivery.trust_ad)


def _settle_memory() -> None:
    """Keep what start-up made out of the garbage collector's rounds, and let these be rarer: they cost 5 % otherwise.

    Large messages are mapped one by one and given back when they are gone; glibc's own threshold grows with the largest
    block that was ever freed, and what is below it is kept (mallopt(3)).
    """
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _announce(relay: Relay, http_port: int, smtp_ports: dict[str, int]) -> None:
    settings = relay.settings
    if settings.delivery.route != "capture" and "." not in relay.hostname:
        log.warning(
            "smtp.hostname is no full name: set it to the name that this machine's reverse DNS gives",
            hostname=relay.hostname,
        )
    log.info("ready", version=__version__, http=f"{settings.http.host}:{http_port}", **smtp_ports)
    _notify("READY=1")


def _stop_on_signals(stopping: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)


def _notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing happens elsewhere."""
    address = notify_socket()
    if address is None:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, suppress(OSError):
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.sendall(state.encode())
