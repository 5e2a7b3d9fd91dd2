"""What may an operator do to the queue? Look, retry, hold, release, cancel."""

from plunk_relay.emails.queue_admin.queries import (
    Entry,
    QueueFilter,
    cancel,
    find_entry,
    hold,
    list_entries,
    read_stats,
    release,
    retry,
)
from plunk_relay.emails.queue_admin.show import show, show_attempt

__all__ = [
    "Entry",
    "QueueFilter",
    "cancel",
    "find_entry",
    "hold",
    "list_entries",
    "read_stats",
    "release",
    "retry",
    "show",
    "show_attempt",
]
