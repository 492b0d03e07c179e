"""The same guest under KVM and on the sidecar: every exit and every register, and what may differ, with the reason.

    differences(ours, kvms)         sentences; none if both tell the same

Nothing is left out but what REGISTERS, RULES and `joined` say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from tests.support.transcripts import Record

RF, GRANULARITY, ACCESSED, BUSY = 1 << 16, 1 << 15, 1, 2
RESET_LIMIT, BYTES = 0xFFFF, 0xFFFFF

REGISTERS = {
    "tsc": "time passes differently",
    "apicbase": "KVM is run without its APIC; ours has the register, which the VMM's APIC would use",
    "initialapicid": "KVM tells it by CPUID alone, which is compared",
    "internalactivitystate": "neither has such a state outside of KVM's own APIC, and the sidecar does not save it",
    "msrmtrrcap": "which MTRRs there are is policy, and the guests use those that both have",
}
"""Registers that are not compared, and why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A difference that is none: `apply` makes ours and KVM's record alike in it, and in nothing else."""

    why: str
    apply: Callable[[Record, Record], tuple[Record, Record]]


def changed(record: Record, **values: int) -> Record:
    return replace(record, registers={**record.registers, **{name.replace("_", "."): n for name, n in values.items()}})


def segments(ours: Record, kvms: Record) -> tuple[Record, Record]:
    return as_kvm_shows_them(ours), as_kvm_shows_them(kvms)


def as_kvm_shows_them(record: Record) -> Record:
    values = dict(record.registers)
    for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr"):
        attributes = values[f"{name}.attributes"] & ~GRANULARITY
        values[f"{name}.attributes"] = attributes | (GRANULARITY if values[f"{name}.limit"] > BYTES else 0)
    values["tr.attributes"] |= BUSY
    return replace(record, registers=values)


def reset_segments(ours: Record, kvms: Record) -> tuple[Record, Record]:
    values = dict(kvms.registers)
    for name in ("cs", "ss"):
        if values[f"{name}.limit"] == RESET_LIMIT:
            values[f"{name}.attributes"] |= ACCESSED
    if (values["tr.selector"], values["tr.limit"]) == (0, RESET_LIMIT):
        values["tr.attributes"] = ours.registers["tr.attributes"]
    return ours, replace(kvms, registers=values)


def resume_flag(ours: Record, kvms: Record) -> tuple[Record, Record]:
    return ours, changed(kvms, rflags=kvms.registers["rflags"] & (ours.registers["rflags"] | ~RF))


def shutdown(ours: Record, kvms: Record) -> tuple[Record, Record]:
    return ours, replace(kvms, registers=ours.registers) if kvms.exit == "triple fault" else kvms


def repeated(ours: Record, kvms: Record) -> tuple[Record, Record]:
    stands = kvms.registers["rip"] == ours.at and kvms.registers["rcx"] == 0 and len(ours.accesses) > 0
    if not stands:
        return ours, kvms
    return ours, changed(kvms, rip=ours.registers["rip"])


def events(ours: Record, kvms: Record) -> tuple[Record, Record]:
    return whether_pending(ours), whether_pending(kvms)


def whether_pending(record: Record) -> Record:
    names = ("pendinginterruption", "pendingevent0")
    return changed(record, **{name: int(record.registers[name] != 0) for name in names})


RULES = (
    Rule("KVM shows a segment's G as its limit needs it, and TR busy, whatever the VMCB has", segments),
    Rule("until the guest loads them, KVM's CS and SS are not accessed, and TR is a 16-bit TSS", reset_segments),
    Rule("the VMCB is undefined after SHUTDOWN (AMD64 APM vol. 2, 15.14.3), and KVM resets its registers", shutdown),
    Rule("KVM lets the guest finish a repeated instruction whose count has become 0, and RIP is at it", repeated),
    Rule("KVM leaves RF set after an instruction that it finishes without its emulator", resume_flag),
    Rule("what a pending event consists of is told in different words; that there is one is compared", events),
)  # fmt: skip
"""The stated differences; that of the number of exits is told at `joined`."""


def joined(ours: Sequence[Record], kvms: Sequence[Record]) -> Iterator[tuple[Record | None, Record | None]]:
    """The exits that belong together.

    A repeated instruction is one exit of ours; of KVM's it is one for each element, or for as many as it has buffered,
    and RIP is at the instruction until the last. With a count of 0 it is an exit of ours that accesses nothing,
    because the processor intercepts before it looks at the count, and KVM finishes that itself.
    """
    rest = iter(kvms)
    for our in ours:
        if our.exit == "port" and not our.accesses:
            continue
        kvm = next(rest, None)
        while kvm is not None and unfinished(our, kvm) and (more := next(rest, None)) is not None:
            kvm = replace(more, accesses=kvm.accesses + more.accesses)
        yield our, kvm
    yield from ((None, kvm) for kvm in rest)


def unfinished(our: Record, kvm: Record) -> bool:
    return our.exit == kvm.exit and kvm.registers["rip"] == our.at and len(kvm.accesses) < len(our.accesses)


def differences(ours: Sequence[Record], kvms: Sequence[Record]) -> list[str]:
    """Sentences, for each exit in which something differs."""
    return list(chain.from_iterable(
        differences_of(number, our, kvm) for number, (our, kvm) in enumerate(joined(ours, kvms))
    ))  # fmt: skip


def differences_of(number: int, our: Record | None, kvm: Record | None) -> Iterator[str]:
    if our is None or kvm is None:
        present, who = (our, "the sidecar") if kvm is None else (kvm, "KVM")
        yield f"exit {number}: {who} alone has {present.exit if present else 'nothing'}"
        return
    for rule in RULES:
        our, kvm = rule.apply(our, kvm)
    where = f"exit {number}, at {our.at or 0:#x}"
    if (our.exit, our.accesses) != (kvm.exit, kvm.accesses):
        yield f"{where}: {our.exit} {our.accesses} on the sidecar, {kvm.exit} {kvm.accesses} under KVM"
    for name in sorted(our.registers.keys() | kvm.registers.keys()):
        mine, other = our.registers.get(name), kvm.registers.get(name)
        if mine != other and name not in REGISTERS:
            yield f"{where}: {name} is {shown(mine)} on the sidecar, {shown(other)} under KVM"


def shown(value: int | None) -> str:
    return "not told" if value is None else f"{value:#x}"
