"""QEMU's monitor: QMP commands and events, and the human monitor through QMP.

The client is the QEMU project's `qemu.qmp`, which is asyncio; it runs on a thread of its own, and this class is its
synchronous face. Any number of threads may use one monitor.

Ref: QEMU QMP Reference Manual.
"""

import asyncio
import contextlib
import json
import logging
import socket
import tempfile
import threading
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError

from sidecar.qemu.registers import CpuRegisters, parse_registers
from sidecar.qemu.waiting import WaitedInVain

T = TypeVar("T")

REPLY_SECONDS = 30.0


class QmpRefused(Exception):
    """QEMU answered a command with an error."""


class MonitorLost(ConnectionError):
    """The connection to QEMU's monitor cannot be made, or is gone."""


@dataclass(frozen=True, slots=True)
class Event:
    """A QMP event: its name, its data, and QEMU's time of it in seconds."""

    name: str
    data: Mapping[str, Any]
    time: float


class Monitor:
    """A connection to one QEMU, over a connected socket or to the path of a Unix socket.

    Making it raises MonitorLost and WaitedInVain.
    """

    def __init__(
        self, address: socket.socket | Path, *, transcript: Path | None = None, seconds: float = REPLY_SECONDS
    ) -> None:
        self._transcript = transcript.open("w", encoding="utf-8") if transcript else None
        self._events: list[Event] = []
        self._news = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        self._client = QMPClient()
        # Its messages are for developers of the protocol; whatever matters reaches us as an exception.
        self._client.logger = logging.Logger("qmp", level=logging.CRITICAL + 1)
        self._watch: asyncio.Task[None] | None = None
        try:
            where = address if isinstance(address, socket.socket) else str(address)
            self._await(self._connect(where), seconds=seconds, what="QEMU's monitor to answer")
        except BaseException:
            self.close()
            raise

    def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, seconds: float = REPLY_SECONDS
    ) -> Any:
        """QEMU's reply to a QMP command. Raises QmpRefused, MonitorLost, WaitedInVain."""
        self._note("->", {"execute": command, "arguments": dict(arguments or {})})
        try:
            reply = self._await(
                self._client.execute(command, arguments), seconds=seconds, what=f"QEMU's reply to '{command}'"
            )
        except ExecuteError as error:
            self._note("<-", {"error": str(error)})
            raise QmpRefused(f"QEMU refuses '{command}': {error}") from error
        self._note("<-", reply)
        return reply

    def hmp(self, line: str, *, cpu: int | None = None, seconds: float = REPLY_SECONDS) -> str:
        """The text that the human monitor prints for `line`, on CPU `cpu` if given."""
        arguments: dict[str, Any] = {"command-line": line}
        if cpu is not None:
            arguments["cpu-index"] = cpu
        return str(self.execute("human-monitor-command", arguments, seconds=seconds))

    def registers(self, cpu: int) -> CpuRegisters:
        """The registers of CPU `cpu` as QEMU sees them; exact only while the CPU is stopped or halted."""
        return parse_registers(self.hmp("info registers", cpu=cpu))[0]

    def all_registers(self) -> tuple[CpuRegisters, ...]:
        """The registers of every CPU, in order."""
        return parse_registers(self.hmp("info registers -a"))

    def read(self, pa: int, size: int) -> bytes:
        """Guest-physical memory as QEMU sees it, devices included; slow (milliseconds), through a temporary file."""
        with tempfile.TemporaryDirectory(prefix="sidecar-read-") as directory:
            file = Path(directory, "memory")
            self.execute("pmemsave", {"val": pa, "size": size, "filename": str(file)})
            return file.read_bytes()

    @property
    def events(self) -> tuple[Event, ...]:
        """Every event so far."""
        with self._news:
            return tuple(self._events)

    def wait_event(self, name: str, *, seconds: float, after: int = 0) -> Event:
        """The first event of that name, not counting the first `after` events of any name. Raises WaitedInVain."""
        deadline = time.monotonic() + seconds
        with self._news:
            while (event := next((event for event in self._events[after:] if event.name == name), None)) is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    seen = ", ".join(event.name for event in self._events[after:]) or "none"
                    raise WaitedInVain(seconds, f"QEMU's event {name}; events seen: {seen}")
                self._news.wait(left)
            return event

    def close(self) -> None:
        """Ends the connection and its thread. Harmless when they have ended, or QEMU has."""
        if not self._loop.is_closed():
            with contextlib.suppress(WaitedInVain, MonitorLost):
                self._await(self._disconnect(), seconds=5, what="the monitor to disconnect")
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        if self._transcript is not None:
            self._transcript.close()

    def _await(self, work: Coroutine[Any, Any, T], *, seconds: float, what: str) -> T:
        """Runs `work` on the monitor's thread. Raises WaitedInVain; MonitorLost for whatever breaks the connection."""
        if self._loop.is_closed():
            work.close()
            raise MonitorLost("the connection to QEMU's monitor is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except ExecuteError:
            raise
        except TimeoutError as error:
            raise WaitedInVain(seconds, what) from error
        except (QMPError, OSError, EOFError, CancelledError) as error:
            raise MonitorLost(f"no connection to QEMU's monitor ({error or type(error).__name__})") from error
        finally:
            future.cancel()

    async def _connect(self, address: socket.socket | str) -> None:
        await self._client.connect(address)
        self._watch = asyncio.create_task(self._collect_events())

    async def _disconnect(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        # What broke the connection has been reported to whoever used it.
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()

    async def _collect_events(self) -> None:
        while True:
            message = await self._client.events.get()
            stamp: Any = message["timestamp"]
            data: Any = message.get("data", {})
            self._note("**", {"event": message["event"], "data": data})
            with self._news:
                self._events.append(
                    Event(str(message["event"]), data, stamp["seconds"] + stamp["microseconds"] / 1_000_000)
                )
                self._news.notify_all()

    def _note(self, direction: str, message: object) -> None:
        if self._transcript is not None and not self._transcript.closed:
            self._transcript.write(f"{direction} {json.dumps(message)}\n")
            self._transcript.flush()
