"""What happens to an uploaded image? Checked, put into the store, then written down: nothing points at a file that is not there."""

import importlib.util
import re
import secrets
import sys
from typing import Protocol

from plunk_relay.errors import BadRequest, NotFound, SetupError, Unavailable
from plunk_relay.ids import new_id
from plunk_relay.relay import Relay
from plunk_relay.settings import Settings
from plunk_relay.uploads import queries
from plunk_relay.uploads.disk import DiskStore
from plunk_relay.uploads.images import KINDS
from plunk_relay.uploads.queries import Upload
from plunk_relay.uploads.s3 import S3Store
from plunk_relay.web.meta import list_reasons

FILES_PATH = "/uploads/files"
_LONGEST_FILENAME = 255
_BEFORE_NAME = re.compile(r".*[/\\]", re.DOTALL)


class UploadStore(Protocol):
    """Where the bytes are."""
