"""The protocol against a server of scripted bytes, and against Redis itself."""

from __future__ import annotations

import socket
import threading

import pytest
from redis_server import free_port, redis_server  # noqa: F401  the fixture

from sparkrec.errors import ConfigError, RetryableError
from sparkrec.serving.resp import Address, Redis

pytestmark = pytest.mark.unit


@pytest.fixture
def scripted():
    """``scripted(b"+OK\\r\\n")``: a server that answers the first request so, then hangs up; and what it was asked."""
    servers, asked = [], []

    def start(*answers):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve():
            connection, _ = server.accept()
            with connection:
                for answer in answers:
                    asked.append(connection.recv(1 << 16))
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return f"redis://127.0.0.1:{server.getsockname()[1]}", asked

    yield start
    for server in servers:
        server.close()


def test_commands_and_replies_are_those_of_the_protocol(scripted):
    reply = b"+OK\r\n:7\r\n$-1\r\n$7\r\na\r\nb\xc3\xa9!\r\n*3\r\n$0\r\n\r\n*-1\r\n*0\r\n"
    url, asked = scripted(reply)
    with Redis(Address(url)) as redis:
        found = redis.pipeline([("SET", b"k", "é"), ("A", 1), ("B",), ("C",), ("D",)])
    assert asked[0].startswith(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\xc3\xa9\r\n*2\r\n$1\r\nA\r\n$1\r\n1\r\n")
    assert found == ["OK", 7, None, b"a\r\nb\xc3\xa9!", [b"", None, []]]


def test_a_refusal_among_replies_is_raised(scripted):
    url, _ = scripted(b"+OK\r\n-OOM command not allowed\r\n+OK\r\n")
    with Redis(Address(url)) as redis, pytest.raises(RetryableError, match="OOM command not allowed"):
        redis.pipeline([("SET", "a", 1)] * 3)


@pytest.mark.parametrize("answer", [b"", b"$100\r\nshort", b"HTTP/1.1 400 Bad Request\r\n"])
def test_a_broken_or_foreign_server_is_worth_a_retry(scripted, answer):
    url, _ = scripted(answer)
    with Redis(Address(url), timeout=5) as redis, pytest.raises(RetryableError, match="cannot be talked to"):
        redis.do("PING")


@pytest.mark.parametrize(("database", "password"), [("", "secret"), ("/3", None)])
def test_a_server_that_hangs_up_at_the_login_is_worth_a_retry(scripted, database, password):
    url, asked = scripted(b"")
    with pytest.raises(RetryableError, match="cannot be talked to: the server closed the connection") as caught:
        Redis(Address(url + database, password=password), timeout=5)
    assert asked[0].split(b"\r\n")[2] == (b"AUTH" if password else b"SELECT")
    assert "secret" not in str(caught.value)


def test_nobody_there():
    with pytest.raises(RetryableError, match=r"127\.0\.0\.1.*cannot be talked to"):
        Redis(Address(f"redis://127.0.0.1:{free_port()}"))


def test_a_wrong_password_is_a_matter_of_configuration(scripted):
    url, asked = scripted(b"-WRONGPASS invalid username-password pair\r\n")
    with pytest.raises(ConfigError, match="refuses AUTH: WRONGPASS") as caught:
        Redis(Address(url, "ann", "secret"))
    assert b"ann" in asked[0]
    assert "secret" not in f"{caught.value}{Address(url, 'ann', 'secret')}"


def test_redis_itself_answers(redis_server):  # noqa: F811
    with Redis(Address(f"{redis_server}/3")) as redis:
        assert redis.do("PING") == "PONG"
        redis.pipeline([("SET", f"k{n}", b"\x00\r\n" * n) for n in range(300)])
        assert redis.do("GET", "k200") == b"\x00\r\n" * 200
        assert redis.do("DBSIZE") == 300
    with Redis(Address(redis_server)) as redis:
        assert redis.do("DBSIZE") == 0, "another database"
    with pytest.raises(ConfigError, match="refuses SELECT"):
        Redis(Address(f"{redis_server}/99"))
