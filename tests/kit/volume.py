"""How is a disk full? A test mounts a small one of its own, which needs root."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kit.tools import miss, require_tool


@contextmanager
def small_volume(place: Path, *, megabytes: int, inodes: int = 100) -> Iterator[Path]:
    """Mount a file system of this size at a new directory; skip the test where that is not possible."""
    if os.geteuid() != 0:
        miss("only root may mount a small file system")
    place.mkdir()
    size = f"size={megabytes}m,nr_inodes={inodes},mode=700"
    mount = [require_tool("mount"), "-t", "tmpfs", "-o", size, "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        miss("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run([require_tool("umount"), "--lazy", str(place)], check=True)
