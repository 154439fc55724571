"""Every failure a user can cause, each with the exit code scripts rely on."""

from __future__ import annotations


class GemmaqError(Exception):
    """An error shown to the user: what is wrong and where, then what to do next.

    Args:
        message: what is wrong, naming the file, tensor or key.
        hint: what to do next, or None.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(GemmaqError):
    """The command line asks for something that does not make sense."""

    exit_code = 2


class InputError(GemmaqError):
    """The source cannot be used: corrupt, truncated, unsupported architecture or type."""

    exit_code = 3


class AuthError(GemmaqError):
    """A repository is gated or private, and the token is missing or refused."""

    exit_code = 4


class NotFoundError(GemmaqError):
    """A path, repository or file does not exist."""

    exit_code = 5


class NetworkError(GemmaqError):
    """The network failed, or is not to be used and nothing is cached."""

    exit_code = 6


class OutputError(GemmaqError):
    """The result cannot be written: it exists, there is no space, or no permission."""

    exit_code = 7


class VerificationError(GemmaqError):
    """Bytes are not those they were said to be."""

    exit_code = 8
