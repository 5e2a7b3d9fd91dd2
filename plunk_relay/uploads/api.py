"""What may be asked about uploads? An image is taken from a project, and shown to everybody (contract section 19)."""

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Annotated

from pydantic import Field

from plunk_relay.errors import BadRequest, NotFound, StoreFailed
from plunk_relay.relay import Relay
from plunk_relay.uploads import actions
from plunk_relay.uploads.queries import Upload
from plunk_relay.web.access import Auth, Caller
from plunk_relay.web.endpoint import Answer, ApiModel, Endpoint, RequestInfo, endpoint
from plunk_relay.web.multipart import UploadedFile, UploadField

_TAG = "Uploads"
MOST_BYTES = 10 * 1024 * 1024
_FOR_EVER = ("cache-control", "public, max-age=31536000, immutable")
_HARMLESS = (
    ("content-security-policy", "default-src 'none'; sandbox"),
    ("cross-origin-resource-policy", "cross-origin"),  # mail is read on other people's pages
)


class UploadBody(ApiModel):
    """An image that everybody may read."""

    url: str = Field(description="Where it is; for `<img src>`")
    key: str = Field(description="Its path in the store")
    filename: str = Field(description="As it was sent, without folders")
    content_type: str
    size: int = Field(description="Bytes")


@endpoint("POST", "/uploads/image", tag=_TAG, errors=(BadRequest, StoreFailed), upload=UploadField("image", MOST_BYTES))
async def upload_image(relay: Relay, caller: Caller, upload: UploadedFile) -> UploadBody:
    """Upload an image for use in mails: JPEG, PNG, GIF or WebP, up to 10 MB.

    The type that is declared must be that of the file. The answer's `url` is open to everybody, for as long as the
    project is there.
    """
    stored = await actions.store_image(relay, caller.project_id, upload)
    return UploadBody(
        url=relay.uploads.url(stored.key),
        key=stored.key,
        filename=stored.filename,
        content_type=stored.content_type,
        size=stored.size,
    )


@endpoint(
    "GET",
    f"{actions.FILES_PATH}/{{key:path}}",
    tag=_TAG,
    auth=Auth.NONE,
    also=(302, 304),
    errors=(NotFound, StoreFailed),
    produces=("image/jpeg", "image/png", "image/gif", "image/webp"),
)
async def show_file(relay: Relay, key: Annotated[str, "`key` of the uploaded file"], request: RequestInfo) -> Answer:
    """Show an uploaded image; one that is kept elsewhere is led to with 302."""
    upload = await actions.get_file(relay, key)
    changed = format_datetime(_changed(upload), usegmt=True)
    headers = [_FOR_EVER, *_HARMLESS, ("etag", _etag(upload)), ("last-modified", changed)]
    if _is_known(request, upload):
        return Answer(status=304, headers=headers)
    data = await relay.uploads.read(key)
    if data is not None:
        return Answer(data, content_type=upload.content_type, headers=headers)
    if relay.settings.uploads.s3_endpoint is None:
        raise NotFound.of("File", key)
    return Answer(status=302, headers=[("location", relay.uploads.url(key)), *_HARMLESS])


def _is_known(request: RequestInfo, upload: Upload) -> bool:
    """Tell whether the client has the file already (RFC 9110 13.1.2, 13.1.3): a key's file never changes."""
    tags = request.headers.get("if-none-match")
    if tags is not None:
        return any(tag.strip().removeprefix("W/") in ("*", _etag(upload)) for tag in tags.split(","))
    try:
        since = parsedate_to_datetime(request.headers.get("if-modified-since", ""))
    except ValueError:
        return False
    return _changed(upload) <= (since if since.tzinfo else since.replace(tzinfo=UTC))


def _etag(upload: Upload) -> str:
    return f'"{upload.id}"'


def _changed(upload: Upload) -> datetime:
    """Return when the file was stored, to the second, as headers tell it."""
    return upload.created_at.replace(microsecond=0)


ENDPOINTS: list[Endpoint] = [upload_image, show_file]
