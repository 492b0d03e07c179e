"""`sidecar boot` with Linux: the report, one command in the guest, or a shell there."""

import argparse
import json
import sys
from pathlib import Path

from sidecar.cli.machine_options import keep_running, print_failure
from sidecar.cli.parser import Parser
from sidecar.cli.progress import Progress, tell
from sidecar.errors import UserError
from sidecar.qemu.linux.agent_client import GuestError
from sidecar.qemu.linux.boot_times import BootTimes
from sidecar.qemu.linux.cache import cache_root, project_root
from sidecar.qemu.linux.kernels import WHICH, LinuxKernel, kernel_package, own_kernel
from sidecar.qemu.linux.module import ModuleBuildFailed, build_module
from sidecar.qemu.linux.terminal import interact
from sidecar.qemu.linux_report import render, report
from sidecar.qemu.linux_session import BASELINES, LinuxSession
from sidecar.qemu.machine import MachineDied
from sidecar.qemu.session import BootFailed
from sidecar.qemu.waiting import WaitedInVain

EXEC_SECONDS = 24 * 3600.0
END_SECONDS = 30.0
SIGNALLED = 128

LINUX_ONLY = ("headers", "exec", "shell", "baseline", "copy_in")


def add_linux_options(parser: Parser) -> None:
    """Adds --kernel, --headers, --exec, --shell, --baseline and --copy-in."""
    parser.add_argument("--kernel", default=WHICH[0], metavar="|".join((*WHICH, "PATH")),
                        help="Debian's kernel of this release or of its backports, or a bzImage (default stable)")
    parser.add_argument("--headers", type=Path, metavar="DIR",
                        help="with --kernel PATH: what to build the driver against; without, there is no driver")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--exec", metavar="CMD", help="run this in the guest and exit with its status; no report")
    end.add_argument("--shell", action="store_true", help="a shell in the guest; no report")
    parser.add_argument("--baseline", choices=BASELINES, help="the same kernel without the sidecar: all CPUs, or one")
    parser.add_argument("--copy-in", type=Path, action="append", default=[], metavar="FILE",
                        help="put this file into the guest's /root; may be given again")


def check_without_linux(options: argparse.Namespace) -> None:
    """Raises UserError for an option that means nothing without Linux."""
    for name in LINUX_ONLY:
        if getattr(options, name, None):
            raise UserError(f"--{name.replace('_', '-')} needs Linux: it does not go with --no-linux")


def check_with_linux(options: argparse.Namespace) -> None:
    """Raises UserError for an option that means nothing beside a command or a shell."""
    for name in ("json", "keep"):
        for other in ("exec", "shell"):
            if getattr(options, name) and getattr(options, other):
                raise UserError(f"--{name} goes with the report, which --{other} leaves out")


def run(options: argparse.Namespace) -> int:
    check_with_linux(options)
    progress = Progress("Linux")
    try:
        kernel = chosen_kernel(options.kernel, options.headers)
        session = make_linux_session(options, kernel, progress)
        with session:
            progress.end()
            status = use(session, options)
            if session.machine.alive:
                session.guest.power_off(seconds=END_SECONDS)
    except (BootFailed, GuestError, MachineDied, ModuleBuildFailed, WaitedInVain) as error:
        progress.end()
        print_failure(error)
        return 1
    return status


def chosen_kernel(name: str, headers: Path | None) -> LinuxKernel:
    """The kernel that the options name. Raises UserError."""
    for which in WHICH:
        if name == which:
            if headers is not None:
                raise UserError(f"--headers goes with --kernel PATH: {which} has its own")
            return kernel_package(which, tell=tell)
    return own_kernel(Path(name), headers=headers)


def driver_for(kernel: LinuxKernel) -> Path | None:
    """The driver built for a kernel; None if there are no headers, or no source as in an installed package."""
    root = project_root()
    if kernel.headers is None or root is None:
        return None
    return build_module(kernel, source=root / "driver", output=root / "build" / f"driver-{kernel.version}", tell=tell)


def make_linux_session(options: argparse.Namespace, kernel: LinuxKernel, progress: Progress) -> LinuxSession:
    """The session that the options describe, not yet booted."""
    return LinuxSession(
        kernel=kernel,
        smp=options.smp,
        numa=options.numa,
        memory_bytes=options.memory,
        accel=options.accel,
        append=options.append,
        baseline=options.baseline,
        driver=driver_for(kernel) if options.baseline is None else None,
        copy_in=options.copy_in,
        interactive=options.shell,
        qmp_socket=options.qmp,
        seconds=options.timeout,
        progress=progress,
        tell=tell,
    )


def use(session: LinuxSession, options: argparse.Namespace) -> int:
    """What the user wants of the booted machine; the exit status."""
    reported = options.exec is None and not options.shell
    if reported and session.uses_sidecar:
        tell("Linux is up: the guest asks every sidecar CPU")
    problems = attach(session)
    if not reported:
        if session.fallback is not None:
            problems.append(f"the shim did not use the sidecar: {session.fallback}")
        for problem in problems:
            print(f"sidecar: {problem}", file=sys.stderr)
        return execute(session, options.exec) if options.exec is not None else shell(session)
    times = BootTimes(cache_root())
    earlier = times.of(session.description)
    if session.fallback is None:
        times.note(session.description, session.mode, session.user_space_seconds)
    result = report(session, problems=problems, earlier={m: s for m, s in earlier.items() if m != session.mode})
    print(json.dumps(result.as_dict(), indent=2) if options.json else render(result), flush=True)
    if options.keep:
        keep_running(session.machine)
    return 0 if result.ok else 1


def attach(session: LinuxSession) -> list[str]:
    """Gives the guest its way to the sidecar's CPUs; what did not work, as sentences."""
    if not session.uses_sidecar:
        return []
    try:
        session.attach()
    except GuestError as error:
        if session.driver is not None:
            return [f"the driver does not load: {error}"]
        return [f"there is no driver (--headers DIR builds one), and without it: {error}"]
    except WaitedInVain as error:
        return [str(error)]
    return []


def execute(session: LinuxSession, command: str) -> int:
    """Runs a command in the guest, its output on ours; its exit status, 128 and the signal's number if one ended it."""

    def show(stream: str, data: bytes) -> None:
        out = (sys.stdout if stream == "stdout" else sys.stderr).buffer
        out.write(data)
        out.flush()

    status = session.guest.run(command, EXEC_SECONDS, show).status
    return status if status >= 0 else SIGNALLED - status


def shell(session: LinuxSession) -> int:
    print("sidecar: a shell in the guest; 'exit' or Ctrl-] ends the machine", file=sys.stderr)
    return interact(session)
