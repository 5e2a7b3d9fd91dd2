"""How do times and JSON travel between Python and a column?"""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Time(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime, stored as integer milliseconds since 1970: compact, ordered, portable."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        """Turn a datetime into milliseconds."""
        return None if value is None else (value - _EPOCH) // _MILLISECOND  # exact; a float is not

    def process_result_value(self, value: Any | None, dialect: sa.Dialect) -> datetime | None:
        """Turn milliseconds into an aware datetime."""
        return None if value is None else datetime.fromtimestamp(value / 1000, UTC)


JSON = sa.JSON(none_as_null=True)
"""A JSON value; Python None is SQL NULL."""
