"""A Redis server of a test's own, on a free port of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time

import pytest


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    """Its address; skipped where Redis is not installed, and failed so in CI."""
    binary = shutil.which("redis-server")
    if binary is None:
        message = "redis-server is not here: sudo apt-get install redis-server"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()
