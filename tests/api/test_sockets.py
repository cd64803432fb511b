import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from api.sockets import inherited, listen
from indexer.errors import ConfigError


#: Puts the file that it is told of where a supervisor would, and says what becomes of it.
CHILD = """
import os, socket, sys
from api.sockets import inherited
from indexer.errors import ConfigError

os.dup2(int(sys.argv[1]), 3)
try:
    taken = inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": sys.argv[2]}, os.getpid())
except ConfigError as error:
    print(*error.problems)
else:
    nodelay = taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    print(taken.getsockname()[1], taken.get_inheritable(), nodelay != 0)
"""


def child(file: int, count: str = "1") -> str:
    """What a process says to which that file is handed over."""
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(file), count],
        pass_fds=[file],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.strip()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_a_taken_port_is_a_clear_error(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    with pytest.raises(ConfigError) as refused:
        listen("127.0.0.1", port)

    [problem] = refused.value.problems
    assert f"127.0.0.1, port {port}, is taken" in problem
    assert "AXIOM_PORT" in problem


def test_an_address_of_another_machine_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="no address of this machine"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_names_and_both_families_are_listened_on(host: str) -> None:
    with listen(host, 0) as made:
        assert made.getsockname()[1] > 0


def test_no_answer_waits_for_an_acknowledgement() -> None:
    with (
        listen("127.0.0.1", 0) as made,
        socket.create_connection(made.getsockname()),
        made.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_socket_that_was_handed_over_is_taken(listening: socket.socket) -> None:
    """And is not handed on to the processes that this one starts."""
    assert child(listening.fileno()) == f"{listening.getsockname()[1]} False True"


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}]
)
def test_what_is_meant_for_another_process_is_left(environ: dict[str, str]) -> None:
    assert inherited(environ, os.getpid()) is None


@pytest.mark.parametrize("count", ["0", "2", "", "x", "-1"])
def test_there_is_one_to_serve(listening: socket.socket, count: str) -> None:
    assert "one can be served" in child(listening.fileno(), count)


def test_what_is_no_socket_that_listens_is_a_clear_error(listening: socket.socket) -> None:
    with (
        socket.create_connection(listening.getsockname()) as connected,
        socket.socket(socket.AF_UNIX) as local,
    ):
        assert "does not listen" in child(connected.fileno())
        assert "no socket of TCP" in child(local.fileno())
    reading, writing = os.pipe()
    assert "is no socket" in child(reading)
    os.close(reading)
    os.close(writing)
