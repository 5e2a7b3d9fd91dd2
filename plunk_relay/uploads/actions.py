"""What happens to an uploaded image? Checked, put into the store, then written down: no row is without its file."""

import importlib.util
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

from plunk_relay.errors import BadRequest, NotFound, SetupError, Unavailable
from plunk_relay.ids import new_id
from plunk_relay.relay import Relay
from plunk_relay.settings import Settings
from plunk_relay.uploads import queries
from plunk_relay.uploads.disk import DiskStore
from plunk_relay.uploads.images import KINDS, ImageKind
from plunk_relay.uploads.queries import Upload
from plunk_relay.uploads.s3 import S3Store
from plunk_relay.web.meta import list_reasons
from plunk_relay.web.multipart import UploadedFile

FILES_PATH = "/uploads/files"
_LONGEST_FILENAME = 255
_FOLDERS = re.compile(r".*[/\\]", re.DOTALL)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class UploadStore(Protocol):
    """Where the bytes are."""

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store a file; raises Unavailable when the disk is full, StoreFailed when the store fails."""

    async def remove(self, key: str) -> None:
        """Take a file away again, as far as that is possible."""

    async def read(self, key: str) -> bytes | None:
        """Return a file that this relay serves; None: it is not here. Raises StoreFailed."""

    def url(self, key: str) -> str:
        """Return where everybody finds a file."""


@contextmanager
def open_store(settings: Settings) -> Iterator[UploadStore]:
    """Open the store of the settings; raises SetupError for a directory that cannot be used."""
    chosen = settings.uploads
    usual = settings.server.public_url.rstrip("/") + FILES_PATH
    disk = DiskStore(chosen.directory or settings.server.data_dir / "uploads", chosen.public_url or usual)
    if chosen.s3_endpoint is None:
        disk.prepare()
        yield disk
        return
    store = S3Store(chosen, disk)
    try:
        yield store
    finally:
        store.close()


def check_library(settings: Settings) -> None:
    """Raise SetupError when uploads go to an S3 store and the library for it is not installed."""
    if settings.uploads.s3_endpoint is not None and importlib.util.find_spec("minio") is None:
        command = f"{sys.executable} -m pip install minio"
        raise SetupError(f"setting `uploads.s3_endpoint`: S3 needs a library that is not installed: {command}")


async def store_image(relay: Relay, project_id: str, file: UploadedFile) -> Upload:
    """Store an image; raises BadRequest for what is none, Unavailable, StoreFailed."""
    kind = _check_kind(file)
    if await list_reasons(relay):
        raise Unavailable("The relay cannot store files at the moment.")
    upload = _describe(relay, project_id, file, kind)
    await relay.uploads.put(upload.key, file.data, upload.content_type)
    try:
        await relay.db.write(queries.insert_upload, upload)
    except Exception:  # not when cancelled: the row may be written all the same
        await relay.uploads.remove(upload.key)
        raise
    return upload


async def get_file(relay: Relay, key: str) -> Upload:
    """Return what is known of a file that everybody may read; raises NotFound."""
    upload = await relay.db.read(queries.find_any_upload, key)
    if upload is None:
        raise NotFound.of("File", key)
    return upload


def _check_kind(file: UploadedFile) -> ImageKind:
    kind = KINDS.get(file.content_type)
    if kind is None:
        raise BadRequest(f"The file is declared as {file.content_type or 'nothing'}: it must be one of {', '.join(KINDS)}.")
    if not kind.fits(file.data):
        raise BadRequest(f"The file is declared as {file.content_type}, but does not begin as such an image does.")
    return kind


def _describe(relay: Relay, project_id: str, file: UploadedFile, kind: ImageKind) -> Upload:
    now = relay.clock.now()
    prefix = relay.settings.uploads.prefix
    folder = f"{prefix.rstrip('/')}/{project_id}" if prefix else project_id
    return Upload(
        id=new_id(),
        project_id=project_id,
        key=f"{folder}/{_milliseconds(now)}-{secrets.token_hex(8)}.{kind.ending}",
        filename=_clean_name(file.filename) or f"image.{kind.ending}",
        content_type=kind.content_type,
        size=len(file.data),
        created_at=now,
    )


def _clean_name(filename: str) -> str:
    """Return a file's name without the folders that some browsers tell."""
    return _CONTROLS.sub("", _FOLDERS.sub("", filename))[:_LONGEST_FILENAME]


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
