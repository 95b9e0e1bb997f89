"""Exit statuses: one for each kind of failure, so that a script can tell them apart."""

from __future__ import annotations

from rootfsbuild.errors import (
    BundleError,
    FetchError,
    HostError,
    IntegrityError,
    InterruptedBuildError,
    RecipeError,
    RootfsbuildError,
    StaleLockError,
    TargetError,
    UnsatisfiableError,
    UntrustedError,
    UsageError,
)

FAILED = 1

_STATUSES: tuple[tuple[type[RootfsbuildError], int], ...] = (
    (UsageError, 2),
    (RecipeError, 2),
    (TargetError, 2),
    (UnsatisfiableError, 3),
    (StaleLockError, 4),
    (FetchError, 5),
    (UntrustedError, 6),
    (IntegrityError, 6),
    (BundleError, 6),
    (HostError, 7),
)


def exit_status(error: RootfsbuildError | InterruptedBuildError) -> int:
    """Return the exit status for an error: 128 + n for signal n, 1 for what has none of its own."""
    if isinstance(error, InterruptedBuildError):
        return 128 + error.signal
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), FAILED)
