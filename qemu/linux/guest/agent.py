"""The agent: runs commands in the guest for the host, which is at the other end of the second serial port.

Started by /init with the port's device as its argument, under the guest's own Python, without any other package. Both
directions carry lines of JSON; bytes are in base64. `id` is the host's number for a command or a file.

    host     {"op": "run", "id": 7, "argv": ["/bin/sh", "-c", "uname -r"]}
    agent    {"id": 7, "stdout": "Ni4xLjAtNTYK"}         as it comes, also "stderr"
    agent    {"id": 7, "exit": 0}                        last; negative for the signal that ended it
    host     {"op": "kill", "id": 7}                     the command and every process of its session that stayed
    host     {"op": "put", "id": 8, "path": "/root/x", "data": "...", "append": false, "mode": 420}
    agent    {"id": 8, "exit": 0}                        or {"id": 8, "error": "No space left on device"}
    host     {"op": "look", "id": 9}                     is anybody there?
    agent    {"id": 9, "exit": 0}
    agent    {"hello": 1}                                at its start: whatever ran before is gone

Any number of commands runs at once, each in a session of its own, with nothing on its standard input. A command is over
when its process is, whoever else still holds its output.
"""

import binascii
import contextlib
import json
import os
import select
import signal
import sys
import termios
import tty
from typing import Any

CHUNK_BYTES = 4096
VERSION = 1

Message = dict[str, Any]


class Port:
    """The serial port: whole lines in, whole lines out. Raises EOFError when it is hung up."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.file)
        mode = termios.tcgetattr(self.file)
        mode[4] = mode[5] = termios.B115200  # the UART holds back a short message by the time of four characters
        termios.tcsetattr(self.file, termios.TCSANOW, mode)
        self._rest = b""

    def send(self, message: Message) -> None:
        data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        while data:
            data = data[os.write(self.file, data) :]

    def receive(self) -> list[Message]:
        """The messages that are complete by now."""
        data = os.read(self.file, 65536)
        if not data:
            raise EOFError("the port is hung up")
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines if line]


class Command:
    """A running command: its process, and the pipes that its output comes through."""

    def __init__(self, number: int, argv: list[str]) -> None:
        self.number = number
        out, out_inside = os.pipe()
        err, err_inside = os.pipe()
        try:
            self.pid = os.posix_spawnp(
                argv[0],
                argv,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, out_inside, 1),
                    (os.POSIX_SPAWN_DUP2, err_inside, 2),
                ],
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except BaseException:
            os.close(out)
            os.close(err)
            raise
        finally:
            os.close(out_inside)
            os.close(err_inside)
        self.process = os.pidfd_open(self.pid)
        self.pipes = {out: "stdout", err: "stderr"}
        for pipe in self.pipes:
            os.set_blocking(pipe, False)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may just have ended
            os.killpg(self.pid, signal.SIGKILL)

    def read(self, pipe: int) -> bytes | None:
        """What the pipe holds, at most a chunk; None if there is nothing now, empty at its end."""
        try:
            return os.read(pipe, CHUNK_BYTES)
        except BlockingIOError:
            return None

    def close(self, pipe: int) -> None:
        del self.pipes[pipe]
        os.close(pipe)


class Agent:
    """All commands, and the one loop that serves them and the host."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.commands: dict[int, Command] = {}
        self.poll = select.poll()
        self.poll.register(port.file, select.POLLIN)
        self.owners: dict[int, Command] = {}  # by file: pipes and processes

    def serve(self) -> None:
        self.port.send({"hello": VERSION})
        while True:
            ready = [file for file, _ in self.poll.poll()]
            if self.port.file in ready:
                for message in self.port.receive():
                    self.obey(message)
            for file in ready:
                command = self.owners.get(file)
                if command is not None and file in command.pipes:
                    self.pass_on(command, file)
            for file in ready:  # last, so that one round of output is on its way
                command = self.owners.get(file)
                if command is not None and file == command.process:
                    self.end(command)

    def obey(self, message: Message) -> None:
        number = message["id"]
        try:
            if message["op"] == "run":
                self.start(Command(number, message["argv"]))
            elif message["op"] == "kill":
                if number in self.commands:
                    self.commands[number].kill()
            elif message["op"] in ("put", "look"):
                if message["op"] == "put":
                    put(message)
                self.port.send({"id": number, "exit": 0})
            else:
                self.port.send({"id": number, "error": f"the agent knows no {message['op']!r}"})
        except OSError as error:
            name = message.get("path") or message.get("argv", [""])[0]
            self.port.send({"id": number, "error": f"{name}: {error.strerror}"})

    def start(self, command: Command) -> None:
        self.commands[command.number] = command
        for file in (*command.pipes, command.process):
            self.owners[file] = command
            self.poll.register(file, select.POLLIN)

    def pass_on(self, command: Command, pipe: int) -> bool:
        """Sends what the pipe holds; false if that was nothing."""
        data = command.read(pipe)
        if data:
            text = binascii.b2a_base64(data, newline=False).decode()
            self.port.send({"id": command.number, command.pipes[pipe]: text})
        elif data is not None:
            self.forget(pipe)
            command.close(pipe)
        return bool(data)

    def end(self, command: Command) -> None:
        """Its process has ended: passes on what the pipes still hold, which is bounded, then the status."""
        _, status = os.waitpid(command.pid, 0)
        for pipe in list(command.pipes):
            left = 32  # chunks: a pipe holds 64 KiB, and somebody else may go on writing
            while left and pipe in command.pipes and self.pass_on(command, pipe):
                left -= 1
            if pipe in command.pipes:
                self.forget(pipe)
                command.close(pipe)
        self.forget(command.process)
        os.close(command.process)
        del self.commands[command.number]
        self.port.send({"id": command.number, "exit": os.waitstatus_to_exitcode(status)})

    def forget(self, file: int) -> None:
        self.poll.unregister(file)
        del self.owners[file]


def put(message: Message) -> None:
    """Writes or continues a file."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if message["append"] else os.O_TRUNC)
    file = os.open(message["path"], flags, message["mode"])
    try:
        data = memoryview(binascii.a2b_base64(message["data"]))
        while data:
            data = data[os.write(file, data) :]
        os.fchmod(file, message["mode"])
    finally:
        os.close(file)


if __name__ == "__main__":
    Agent(Port(sys.argv[1])).serve()
