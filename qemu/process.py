"""QEMU as a child process that cannot outlive us.

A thread of its own starts QEMU, waits for it and reaps it. Linux ties a parent-death signal to the thread that
started the child, so that thread must live as long as the child does; it ends with this process in any case, also on
SIGKILL, and QEMU is killed then. QEMU reads and writes nothing of our terminal, and Ctrl-C reaches us alone.

Ref: prctl(2), PR_SET_PDEATHSIG; setpriv(1), which sets it without running Python between fork and exec.
"""

import contextlib
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path


class QemuProcess:
    """A running QEMU, from construction on. Raises OSError if it cannot be started."""

    def __init__(self, command: Sequence[str], *, inherited: Sequence[int], errors: Path) -> None:
        self.command = tuple(command)
        self._inherited = tuple(inherited)
        self._errors = errors
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        self._started = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._keep, name="qemu-keeper", daemon=True).start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while QEMU runs; negative for the signal that ended it."""
        if not self._ended.is_set() or self._process is None:
            return None
        return self._process.returncode

    def wait(self, seconds: float) -> int | None:
        """The exit status, or None if QEMU still runs after `seconds`."""
        self._ended.wait(seconds)
        return self.exit_status

    def kill(self) -> None:
        """Ends QEMU at once and reaps it. Harmless when it has ended."""
        if self._process is not None and not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            self._ended.wait()

    def _keep(self) -> None:
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        try:
            with self._errors.open("wb") as errors:
                self._process = subprocess.Popen(
                    [*guard, *self.command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    pass_fds=self._inherited,
                    process_group=0,
                )
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        self._process.wait()
        self._ended.set()
