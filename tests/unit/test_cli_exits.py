from __future__ import annotations

import inspect
import signal

import pytest

from rootfsbuild import errors
from rootfsbuild.cli.exits import FAILED, exit_status
from rootfsbuild.errors import (
    BundleError,
    FetchError,
    FileConflictError,
    HostError,
    IntegrityError,
    InterruptedBuildError,
    PackageError,
    RecipeError,
    RootfsbuildError,
    ScriptError,
    StaleLockError,
    StorageError,
    TargetError,
    UnsatisfiableError,
    UntrustedError,
    UsageError,
)

STATUSES = [
    (UsageError("x"), 2),
    (RecipeError("x", "y"), 2),
    (TargetError("x", "y"), 2),
    (UnsatisfiableError("x"), 3),
    (StaleLockError("x"), 4),
    (FetchError("x"), 5),
    (UntrustedError("x", "key", "y"), 6),
    (IntegrityError("x", "1", "2"), 6),
    (BundleError("x", "y"), 6),
    (HostError("x", "y"), 7),
    (PackageError("x", "y"), 1),
    (FileConflictError("/x", "a", "b"), 1),
    (ScriptError("a", "postinst", 3), 1),
    (StorageError("/x", "full"), 1),
    (InterruptedBuildError(signal.SIGINT), 130),
    (InterruptedBuildError(signal.SIGTERM), 143),
    (RootfsbuildError(), 1),
]


@pytest.mark.parametrize(("error", "status"), STATUSES, ids=lambda value: type(value).__name__)
def test_each_kind_of_failure_has_its_status(error, status):
    assert exit_status(error) == status


def test_no_kind_of_failure_is_forgotten_here():
    ends = (RootfsbuildError, InterruptedBuildError)
    family = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ends)}
    assert family == {type(error) for error, _ in STATUSES}


def test_a_failure_that_is_a_kind_of_another_has_its_status():
    class OwnError(FetchError):
        pass

    assert exit_status(OwnError("x")) == 5
    assert FAILED == 1
