"""A client of Redis in one page: commands in pipelines over a socket.

The protocol is RESP 2 (redis.io/docs/reference/protocol-spec): a request is an array of bulk strings; a reply is a
simple string (+), an error (-), an integer (:), a bulk string ($) or an array (*).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from sparkrec.errors import ConfigError, RetryableError

Argument = str | bytes | int


@dataclass(frozen=True)
class Address:
    """Where a server listens, and as whom to log in. The password does not show when it is printed."""

    url: str
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Address({self.url})"


class Redis:
    """A connection; use it in a ``with`` block.

    Raises
    ------
    ConfigError
        The server refuses the login.
    RetryableError
        It cannot be reached, the connection broke, or it refused a command (it is full, it is loading, …).
    """

    def __init__(self, address: Address, timeout: float = 30) -> None:
        self._url = address.url
        parts = urlsplit(address.url)
        try:
            self._socket: socket.socket = socket.create_connection(
                (parts.hostname or "localhost", parts.port or 6379), timeout
            )
            if parts.scheme == "rediss":
                context = ssl.create_default_context()
                self._socket = context.wrap_socket(self._socket, server_hostname=parts.hostname)
        except OSError as error:
            raise self._broken(error) from None
        self._reader = self._socket.makefile("rb")
        if address.password is not None:
            who = [address.username] if address.username else []
            self._login("AUTH", *who, address.password)
        if database := parts.path.strip("/"):
            self._login("SELECT", database)

    def __enter__(self) -> Redis:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._reader.close()
        self._socket.close()

    def do(self, *command: Argument) -> Any:
        """The reply to one command."""
        return self.pipeline([command])[0]

    def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """The replies to commands that are sent in one go. Of several refusals the first is raised."""
        replies = self._exchanged(commands)
        refused = next((reply for reply in replies if isinstance(reply, _Refusal)), None)
        if refused is not None:
            raise RetryableError(f"Redis at {self._url} refused a command: {refused.text}")
        return replies

    def _exchanged(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        try:
            self._socket.sendall(b"".join(map(_packed, commands)))
            return [self._reply() for _ in commands]
        except OSError as error:
            raise self._broken(error) from None

    def _login(self, name: str, *arguments: Argument) -> None:
        (reply,) = self._exchanged([(name, *arguments)])
        if isinstance(reply, _Refusal):
            raise ConfigError(
                f"Redis at {self._url} refuses {name}: {reply.text} Check publish.username, publish.password and "
                "the number of the database in publish.to."
            )

    def _reply(self) -> Any:
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return _Refusal(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._bulk(int(rest))
        if kind == b"*":
            return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]
        raise ConnectionError(f"the server does not speak RESP: {line[:40]!r}")

    def _bulk(self, size: int) -> bytes:
        found = self._reader.read(size + 2)
        if len(found) < size + 2:
            raise ConnectionError("the server closed the connection in the middle of a reply")
        return found[:-2]

    def _broken(self, error: OSError) -> RetryableError:
        return RetryableError(
            f"Redis at {self._url} cannot be talked to: {error.strerror or error}. Check publish.to, and that the "
            "server runs and can be reached from the executors."
        )


@dataclass(frozen=True)
class _Refusal:
    text: str


def _packed(command: Sequence[Argument]) -> bytes:
    parts = [x if isinstance(x, bytes) else str(x).encode() for x in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
