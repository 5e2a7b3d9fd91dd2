"""How does a file come into an S3-compatible store? By one PUT that is signed (SigV4), in threads of its own.

The store serves the files itself. Those that were on the disk before stay there and are served as before.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, TypeVar

from plunk_relay.errors import StoreFailed
from plunk_relay.log import get_logger
from plunk_relay.sections import UploadSettings
from plunk_relay.uploads.disk import DiskStore

if TYPE_CHECKING:
    from minio import Minio
    from urllib3 import PoolManager

T = TypeVar("T")
_THREADS = 4  # a store that hangs must not hold the threads that render mails
_TRIES = 2
_ONE_PART = 16 * 1024 * 1024
_IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}
log = get_logger("uploads")


class S3Store:
    """Objects of a bucket; `disk` holds what was uploaded before the bucket was set."""

    def __init__(self, settings: UploadSettings, disk: DiskStore) -> None:
        self._settings = settings
        self._bucket = settings.s3_bucket or ""
        self._endpoint = (settings.s3_endpoint or "").rstrip("/")
        self._base_url = (settings.public_url or f"{self._endpoint}/{self._bucket}").rstrip("/")
        self._disk = disk
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="s3")

    def url(self, key: str) -> str:
        """Return where everybody finds a file."""
        return f"{self._base_url}/{key}"

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store a file; raises StoreFailed."""
        await self._ask(lambda: self._put(key, data, content_type))

    async def remove(self, key: str) -> None:
        """Take a file away again, as far as that is possible."""
        with suppress(StoreFailed):
            await self._ask(lambda: self._client.remove_object(self._bucket, key))

    async def read(self, key: str) -> bytes | None:
        """Return a file that is on the disk; None: it is in the bucket, if anywhere."""
        return await self._disk.read(key)

    def close(self) -> None:
        """Let no thread begin anything new; those that are busy end by their time limits."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if "_pool" in self.__dict__:
            self._pool.clear()

    def _put(self, key: str, data: bytes, content_type: str) -> None:
        self._client.put_object(
            self._bucket,
            key,
            BytesIO(data),
            len(data),
            content_type=content_type,
            metadata=dict(_IMMUTABLE),
            part_size=_ONE_PART,
        )

    async def _ask(self, call: Callable[[], T]) -> T:
        from minio.error import MinioException  # noqa: PLC0415  an extra
        from urllib3.exceptions import HTTPError  # noqa: PLC0415  comes with it

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except (MinioException, HTTPError, OSError, ValueError) as error:
            code = getattr(error, "code", None) or type(error).__name__
            log.warning("the S3 store failed", bucket=self._bucket, error=" ".join(str(error).split())[:500])
            raise StoreFailed(f"The S3 store did not take the file: {code}.") from error

    @cached_property
    def _pool(self) -> "PoolManager":
        from urllib3 import PoolManager, Retry, Timeout  # noqa: PLC0415  comes with the extra

        wait = Timeout(connect=self._settings.s3_seconds, read=self._settings.s3_seconds)
        tries = Retry(total=_TRIES - 1, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504])
        return PoolManager(timeout=wait, maxsize=_THREADS, retries=tries)

    @cached_property
    def _client(self) -> "Minio":
        from minio import Minio  # noqa: PLC0415  an extra, 15 MB

        chosen = self._settings
        scheme, _, host = self._endpoint.partition("://")
        return Minio(
            host,
            access_key=chosen.s3_access_key,
            secret_key=chosen.s3_secret_key,
            secure=scheme == "https",
            region=chosen.s3_region,
            http_client=self._pool,
        )
