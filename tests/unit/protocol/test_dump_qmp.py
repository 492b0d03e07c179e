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
        with connection, connection.makefile("rw", encoding="utf-8", newline="\n") as stream:
            for message in self._conversation(stream):
                stream.write(json.dumps(message) + "\r\n")
                stream.flush()

    def _conversation(self, stream: Any) -> Iterator[dict[str, Any]]:
        yield GREETING
        for line in stream:
            command = json.loads(line)
            answer: dict[str, Any] = {"return": {}}
            if command["execute"] == "pmemsave" and self._refuse:
                answer = {"error": {"class": "GenericError", "desc": "no room"}}
            elif command["execute"] == "pmemsave":
                wanted = command["arguments"]
                Path(wanted["filename"]).write_bytes(self._memory.read(wanted["val"], wanted["size"]))
            yield answer | ({"id": command["id"]} if "id" in command else {})

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
