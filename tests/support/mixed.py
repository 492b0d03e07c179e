"""Mixed commands on several CPUs at once, each answer checked, with STOP coming from all sides.

One worker thread per CPU: it knows what its CPU's registers must hold and what every command must answer. Another
thread stops commands that are not its own, a third reads the status bytes all the time.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from sidecar.layout import MAX_REGISTERS, ControlPage, CpuStatus, HvStatus, RaiseKind, SidecarCommand
from sidecar.protocol.commands import Cpu, Run
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.errors import SidecarCommandError
from sidecar.protocol.requests import raise_request, register_request
from sidecar.protocol.slot import Node
from sidecar.qemu.session import Session
from tests.support import cpus
from tests.support.malformed import OF_A_GUEST
from tests.support.register_model import NO_VP, NUMBERS, TABLE, WRITABLE, RegisterModel

SECONDS = 10.0
SAMPLE_SECONDS = 100e-6
STOP_SECONDS = 50e-6
STATUS_OFFSET = 4  # of `status` in a register request
FIRST_VALUE, VALUE_STRIDE = 32, 32  # bytes of a request

IN_USE = {CpuStatus.IDLE, CpuStatus.RUN, CpuStatus.STOP}
"""What a status byte may be while commands run and end."""


@dataclass
class Worker:
    """Runs commands on one CPU and checks each answer; raises at the first that is wrong."""

    cpu: Cpu
    seed: int
    done: int = 0
    errors: int = 0
    stopped: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.model = RegisterModel()
        self.values: dict[int, int] = self.model.values
        for number, value in self.cpu.get_registers(NUMBERS).items():
            self.values[number] = value
        self.before = cpus.counters(self.cpu)
        self.first_sequence = int(self.cpu.pages.command.sequence)
        self.kinds: list[tuple[int, Callable[[], None]]] = [
            (30, self.none), (20, self.get), (20, self.set), (6, self.set_wrong), (5, self.unknown),
            (4, self.bad_count), (3, self.not_here), (10, self.wait_for_stop), (12, self.stopped_early),
        ]

    def work(self, count: int) -> None:
        weights = [weight for weight, _ in self.kinds]
        for _, kind in self.random.choices(self.kinds, weights, k=count):
            kind()
            self.done += 1
            self.by_kind[kind.__name__] = self.by_kind.get(kind.__name__, 0) + 1

    # --- the commands ----------------------------------------------------------------------------------------------

    def none(self) -> None:
        self.cpu.none(seconds=SECONDS)

    def get(self) -> None:
        numbers = self.some(NUMBERS)
        data = self.cpu.execute(SidecarCommand.GET_VP_REGISTERS, _request(numbers), seconds=SECONDS)
        self.check_values(numbers, data)

    def set(self) -> None:
        pairs = [(number, self.random.getrandbits(64) & TABLE[number].writable) for number in self.some(WRITABLE)]
        self.model.answer(SidecarCommand.SET_VP_REGISTERS, pairs)
        self.cpu.execute(SidecarCommand.SET_VP_REGISTERS, register_request(pairs), seconds=SECONDS)

    def set_wrong(self) -> None:
        """The register before the bad one is stored."""
        number = 0x50005
        pairs = [(0x50000, self.random.getrandbits(64)), (number, 1 << 40), (0x50001, 5)]
        self.model.answer(SidecarCommand.SET_VP_REGISTERS, pairs)
        sentence = f"register {number:#x}: bits {1 << 40:#x} must be 0"
        self.refused(SidecarCommand.SET_VP_REGISTERS, register_request(pairs), sentence)

    def unknown(self) -> None:
        command = self.random.choice((5, 0xFF, 0x103, self.random.randrange(0x104, 1 << 32)))
        self.refused(command, b"", f"command {command:#x} is not known; expected 0 to 4 or 0x100 to 0x102")

    def bad_count(self) -> None:
        command = self.random.choice((SidecarCommand.GET_VP_REGISTERS, SidecarCommand.SET_VP_REGISTERS))
        count = self.random.choice((0, MAX_REGISTERS + 1, self.random.randrange(33, 1 << 16)))
        self.refused(command, register_request([], count=count), f"count {count}, expected 1 to 31")

    def not_here(self) -> None:
        self.refused(self.random.choice(OF_A_GUEST), b"", NO_VP)

    def wait_for_stop(self) -> None:
        run = self.cpu.start(SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP))
        self.wait_busily()
        self.stop(run)
        run.wait(seconds=SECONDS)

    def stopped_early(self) -> None:
        """A command that ends by itself and is stopped all the same: its answer is whole, whoever is first."""
        numbers = self.some(NUMBERS)
        run = self.cpu.start(SidecarCommand.GET_VP_REGISTERS, _request(numbers))
        self.wait_busily()
        self.stop(run)
        self.check_values(numbers, run.wait(seconds=SECONDS))

    # --- what they share -------------------------------------------------------------------------------------------

    def some(self, numbers: tuple[int, ...]) -> list[int]:
        return self.random.sample(numbers, self.random.randint(1, min(MAX_REGISTERS, len(numbers))))

    def stop(self, run: Run) -> None:
        self.stopped += run.stop()

    def wait_busily(self) -> None:
        end = time.perf_counter() + self.random.random() * 100e-6
        while time.perf_counter() < end:
            time.sleep(0)

    def check_values(self, numbers: list[int], data: bytes) -> None:
        status = int.from_bytes(data[STATUS_OFFSET : STATUS_OFFSET + 2], "little")
        starts = range(FIRST_VALUE, FIRST_VALUE + VALUE_STRIDE * len(numbers), VALUE_STRIDE)
        got = [int.from_bytes(data[start : start + 16], "little") for start in starts]
        assert (status, got) == (HvStatus.SUCCESS, [self.values[number] for number in numbers])

    def refused(self, command: int, data: bytes, sentence: str) -> None:
        with pytest.raises(SidecarCommandError) as caught:
            self.cpu.execute(command, data, seconds=SECONDS)
        assert caught.value.sentence.endswith(sentence)
        self.errors += 1

    def check_end(self) -> None:
        """Nothing lost, nothing repeated: every command was executed once, and the last one is the one completed."""
        page, after = self.cpu.pages.command, cpus.counters(self.cpu)
        assert page.completed_sequence == page.sequence == self.first_sequence + self.done
        assert after["commands"] == self.before["commands"] + self.done
        assert after["errors"] == self.before["errors"] + self.errors
        assert self.cpu.get_registers(NUMBERS, seconds=SECONDS) == self.values
        cpus.assert_answers(self.cpu)


@dataclass
class Sampler:
    """Reads the status bytes of a node as fast as is polite, and keeps what it has seen."""

    node: Node
    seen: set[int] = field(default_factory=set)
    samples: int = 0

    def sample(self) -> None:
        start = int(ControlPage.cpu_status) + 1  # without the base CPU
        self.seen |= {*bytes(self.node.memory[start : start + len(self.node.slots) - 1])}
        self.samples += 1


def on_four_cpus(session: Session, commands: int) -> None:
    """`commands` on each of four CPUs, out of all nodes; every check of this module."""
    every = list(session.cpus.values())
    chosen = every[:: len(every) // 4][:4]
    arrivals = [cpus.arrivals(cpu) for cpu in chosen]
    workers = [Worker(cpu, seed) for seed, cpu in enumerate(chosen)]
    samplers = run(session.driver, workers, commands)
    for worker in workers:
        worker.check_end()
        assert worker.done == commands
        assert len(worker.by_kind) == len(worker.kinds)
        assert worker.stopped > 0
    for sampler in samplers:
        assert sampler.samples > 0
        assert sampler.seen <= IN_USE
    assert {CpuStatus.RUN, CpuStatus.STOP} <= set().union(*(sampler.seen for sampler in samplers))
    for cpu in session.cpus.values():
        cpus.assert_halted_in(session, cpu, "park")
    assert [cpus.arrivals(cpu) for cpu in chosen] == arrivals
    assert [cpus.faults(cpu) for cpu in chosen] == [0] * 4


def run(driver: PageDriver, workers: list[Worker], commands: int) -> list[Sampler]:
    """`commands` on each worker's CPU, all at once, with a stopper and samplers beside. Raises what a worker raised."""
    over, failures = threading.Event(), list[BaseException]()
    samplers = [Sampler(node) for node in driver.nodes]

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def worked() -> None:
            try:
                work()
            except BaseException as failure:
                failures.append(failure)

        return worked

    def stop_somebody() -> None:
        choose = random.Random(len(workers))
        while not over.is_set():
            driver.stop(choose.choice(workers).cpu.number)
            time.sleep(STOP_SECONDS)

    def watch() -> None:
        while not over.is_set():
            for sampler in samplers:
                sampler.sample()
            time.sleep(SAMPLE_SECONDS)

    beside = [threading.Thread(target=guarded(work)) for work in (stop_somebody, watch)]
    working = [threading.Thread(target=guarded(partial(worker.work, commands))) for worker in workers]
    for thread in beside + working:
        thread.start()
    for thread in working:
        thread.join()
    over.set()
    for thread in beside:
        thread.join()
    if failures:
        raise failures[0]
    return samplers


def _request(numbers: list[int]) -> bytes:
    return register_request([(number, 0) for number in numbers])
