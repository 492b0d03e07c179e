"""`sidecar dump live --qmp` against a server that speaks QMP and answers pmemsave from a synthetic machine."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.__main__ import main
from tests.support import synthetic

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}


class Server(threading.Thread):
    """Serves one client: greets, answers each command, writes the file that pmemsave names."""

    def __init__(self, path: Path, *, refuse: bool) -> None:
        super().__init__(daemon=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._memory = synthetic.machine()
        self._refuse = refuse

    def run(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            self._send(connection, GREETING)
            # The client ends a message with nothing, sends one at a time, and none that leaves the socket in pieces.
            while data := connection.recv(1 << 16):
                self._send(connection, self._answer(json.loads(data)))

    def _send(self, connection: socket.socket, message: dict[str, Any]) -> None:
        connection.sendall(json.dumps(message).encode() + b"\r\n")

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"return": {}}
        if command["execute"] == "pmemsave" and self._refuse:
            answer = {"error": {"class": "GenericError", "desc": "no room"}}
        elif command["execute"] == "pmemsave":
            wanted = command["arguments"]
            Path(wanted["filename"]).write_bytes(self._memory.read(wanted["val"], wanted["size"]))
        return answer | ({"id": command["id"]} if "id" in command else {})

    def close(self) -> None:
        self._listener.close()
        self.join(10)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    servers: list[Server] = []

    def start(*, refuse: bool = False) -> str:
        path = tmp_path / f"qmp{len(servers)}"
        servers.append(Server(path, refuse=refuse))
        servers[-1].start()
        return str(path)

    yield start
    for server in servers:
        server.close()


def test_overview_through_qmp(serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "live", "--qmp", serve(), "--format", "json"]) == 0
    cpus = json.loads(capsys.readouterr().out)["cpus"]
    assert [cpu["state"] for cpu in cpus] == ["linux", "idle", "run", "linux", "idle", "linux"]


def test_section_through_qmp(serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "live", "--qmp", serve(), "page-tables", "--cpu", "1"]) == 0
    assert capsys.readouterr().out.endswith("as the address map says\n")


def test_qemu_refuses(serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = serve(refuse=True)
    assert main(["dump", "live", "--qmp", path]) == 2
    assert capsys.readouterr().err == f"sidecar: {path}: QEMU refuses 'pmemsave': no room\n"
