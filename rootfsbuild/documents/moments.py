"""Dates and times as documents write them."""

from __future__ import annotations

import datetime as dt


def as_time(value: object) -> dt.datetime:
    """Return a TOML date or time, or ISO 8601 text, as a time in UTC; what names no zone is UTC.

    Raises ValueError.
    """
    if isinstance(value, dt.datetime):
        time = value
    elif isinstance(value, dt.date):
        time = dt.datetime(value.year, value.month, value.day)  # noqa: DTZ001 - gets its zone below
    else:
        time = dt.datetime.fromisoformat(str(value))
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
