"""Errors a person must mend: each says what is wrong and what to do next, and carries the exit code."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from onerec.secrets import masked


class ExitCode(IntEnum):
    """Exit codes of every command and service."""

    DONE = 0
    BAD_ARGUMENTS = 2
    DEPENDENCY_MISSING = 3
    CHECK_FAILED = 4


class OneRecError(Exception):
    """Stops a command or service with one clear sentence on stderr and its exit code."""

    exit_code = ExitCode.CHECK_FAILED

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = masked(problem)  # it may hold what a library says, and that a setting
        self.remedy = masked(remedy)
        super().__init__(f"{self.problem} {self.remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by problem and remedy, whatever a subclass is made of: a pool hangs on what it cannot unpickle."""
        return _made_again, (type(self), self.problem, self.remedy), self.__dict__


def _made_again(kind: type[OneRecError], problem: str, remedy: str) -> OneRecError:
    error = kind.__new__(kind)
    OneRecError.__init__(error, problem, remedy)
    return error


class SettingsError(OneRecError):
    """Settings or arguments contradict one another or name something unknown."""

    exit_code = ExitCode.BAD_ARGUMENTS


class DependencyMissingError(OneRecError):
    """No broker, no topic, no weights store, no file."""

    exit_code = ExitCode.DEPENDENCY_MISSING


class CheckFailedError(OneRecError):
    """A check found a difference: topics, checksums, offsets."""

    exit_code = ExitCode.CHECK_FAILED
