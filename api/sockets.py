"""The socket that the server listens on: made here, or handed over by whoever starts the process.

Who keeps the socket open across a restart (systemd, a `.socket` unit) loses no connection: they
wait in the kernel until the next process takes them.

Source: sd_listen_fds(3).
"""

import errno
import os
import socket
from collections.abc import Mapping
from typing import Final

from api.limits import BACKLOG, UNACKNOWLEDGED_MS_MAX
from indexer.errors import ConfigError


#: The first of the files that are handed over.
FIRST_FILE: Final = 3

_REASONS: Final = {
    errno.EADDRINUSE: "is taken: stop the other program, or set another port",
    errno.EACCES: "may not be used by this user: ports below 1024 belong to root",
    errno.EADDRNOTAVAIL: "is no address of this machine",
}


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address; port 0 takes a free one.

    Raises:
        ConfigError: it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        problem = f"AXIOM_HOST, AXIOM_PORT: {host}, port {port}, {reason}"
        raise ConfigError((problem,)) from error
    return _prepared(listening)


def inherited(environ: Mapping[str, str], pid: int) -> socket.socket | None:
    """The socket that was handed over to this process; None when there is none.

    Args:
        environ: the environment that it was started with.
        pid: of this process: what is meant for another one is not taken.

    Raises:
        ConfigError: it is not one socket that listens for TCP connections.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return None
    count = environ.get("LISTEN_FDS", "")
    if count != "1":
        raise ConfigError((f"LISTEN_FDS: {count!r} sockets were handed over; one can be served",))
    os.set_inheritable(FIRST_FILE, False)
    try:
        listening = socket.socket(fileno=FIRST_FILE)
    except OSError as error:
        raise _unfit(f"is no socket ({error.strerror})") from error
    if listening.family not in (socket.AF_INET, socket.AF_INET6):
        raise _unfit("is no socket of TCP: write ListenStream= with an address and a port")
    if not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise _unfit("does not listen: write Accept=no, or leave it out")
    return _prepared(listening)


def _unfit(problem: str) -> ConfigError:
    return ConfigError((f"LISTEN_FDS: the file that was handed over {problem}",))


def _prepared(listening: socket.socket) -> socket.socket:
    # Accepted connections inherit both. An answer is written in two pieces, and the second one is
    # not to wait until the client has acknowledged the first: that takes 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A client that has vanished, or never reads, is dropped by the kernel: the server could only
    # wait for it.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX)
    return listening
