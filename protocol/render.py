"""Text of the plain data that `decode` and `report` make: columns for many, `name  value` lines for one.

Addresses, identifiers and contents in hex, counts in decimal, times in microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from sidecar.protocol.decode import Decoded
from sidecar.protocol.report import Section


def columns(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with columns as wide as they need; None is shown as `-`."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in cells
    )


def lines(pairs: Iterable[tuple[str, object]]) -> str:
    """`name  value` lines with the values in one column."""
    shown = list(pairs)
    width = max((len(name) for name, _ in shown), default=0)
    return "".join(f"{name:{width}}  {_cell(value)}".rstrip() + "\n" for name, value in shown)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def overview(data: Decoded) -> str:
    """The machine, its nodes and its CPUs."""
    top = lines([
        ("SDCR table", hex(data["sdcr_pa"])),
        ("trampoline", hex(data["trampoline_pa"])),
        ("image", f"{data['image_pa']:#x}, {data['image_bytes']} bytes"),
        ("relay", hex(data["relay_pa"]) if data["relay_pa"] else None),
        ("TSC", f"{data['tsc_khz']} kHz"),
        ("first INIT to last idle", f"{data['first_init_to_all_idle_us']:.1f} us"),
        ("missing CPUs", data["missing_count"]),
    ])
    nodes = columns(("node", "CPUs", "control page", "memory", "NUMA node", "memory's"), (
        (node["number"], f"{node['base_cpu']}-{node['base_cpu'] + node['cpu_count'] - 1}", hex(node["control_pa"]),
         f"{node['memory_bytes'] // 1024} KiB", node["numa_node"], node["memory_numa_node"])
        for node in data["nodes"]
    ))
    cpus = columns(("CPU", "APIC id", "node", "index", "state", "boot us"), (
        (cpu["linux_number"], hex(cpu["apic_id"]), cpu["node"], cpu["index"], cpu["state"], cpu["boot_us"])
        for cpu in data["cpus"]
    ))
    return "\n".join((top, nodes, cpus))


def section(wanted: Section, entries: Sequence[Decoded]) -> str:
    """One part of a live dump, an entry after the other."""
    return "\n".join(_ENTRIES[wanted](entry) for entry in entries)


def _title(entry: Decoded) -> str:
    return (
        f"CPU {entry['linux_number']} (APIC id {entry['apic_id']:#x}, node {_cell(entry['node'])}, "
        f"index {_cell(entry['index'])})\n"
    )


def control(entry: Decoded) -> str:
    """A control page."""
    top = lines([
        ("node", entry["index"]),
        ("base CPU", entry["base_cpu"]),
        ("CPUs", entry["cpu_count"]),
        ("request vector", hex(entry["request_vector"])),
        ("response CPU", f"APIC id {entry['response_cpu']:#x}"),
        ("response vector", hex(entry["response_vector"]) if entry["response_vector"] else "none"),
        ("needs attention", entry["needs_attention"]),
        ("ABI", f"version {entry['abi_version']}, hash {entry['abi_hash']:#018x}"),
    ])
    cpus = columns(("CPU", "index", "status"), (
        (cpu["linux_number"], cpu["index"], cpu["status"]) for cpu in entry["cpus"]
    ))
    beyond = "".join(f"index {one['index']}, behind the node's CPUs: {one['status']}\n" for one in entry["beyond"])
    return f"{top}\n{cpus}{beyond}"


def command(entry: Decoded) -> str:
    """A command page."""
    request = {name: value for name, value in entry["request"].items() if name != "registers"}
    pairs = [
        ("command", entry["command"]),
        ("error", entry["error"] if entry["has_error"] else "none"),
        ("sequence", f"{entry['sequence']}, completed {entry['completed_sequence']}"),
        ("TSC ticks taken", entry["end_tsc"] - entry["start_tsc"]),
        ("ABI", f"version {entry['abi_version']}, hash {entry['abi_hash']:#018x}"),
        *((f"{entry['request_of']}: {name}", _hex(value)) for name, value in request.items()),
        *((one["name"], hex(one["value"])) for one in entry["request"].get("registers", ())),
        *((f"cpu_context {name}", hex(value)) for name, value in entry["cpu_context"].items()),
        *((f"run {name}", _hex(value)) for name, value in (entry["run"] or {}).items()),
        *((f"intercept {name}", _hex(value)) for name, value in (entry["intercept"] or {}).items()),
    ]
    return _title(entry) + lines(pairs)


def _hex(value: object) -> str:
    return hex(value) if isinstance(value, int) else str(value) or "none"


def boot(entry: Decoded) -> str:
    """A boot record."""
    if not entry["arrivals"]:
        return _title(entry) + "has never arrived\n"
    phases = entry["phases"].items()
    return _title(entry) + lines([
        ("arrivals", entry["arrivals"]),
        ("found itself as", f"CPU {entry['found_linux_number']}, APIC id {entry['found_apic_id']:#x}"),
        ("CPUs started by it", entry["started_by_it"]),
        *((name, "not reached" if us is None else f"{us:.1f} us") for name, us in phases),
    ])


def fault(entry: Decoded) -> str:
    """A fault record and the counters."""
    return _title(entry) + lines([*_fault(entry), *_counters(entry["counters"])])


def _fault(entry: Decoded) -> Iterator[tuple[str, object]]:
    yield "faults", entry["count"]
    if not entry["count"]:
        return
    bits = f" ({', '.join(entry['error_bits'])})" if entry["error_bits"] else ""
    yield "exception", f"{entry['exception']}, error code {entry['error_code']:#x}{bits}"
    yield "rip", f"{entry['rip']:#x}" + (f", {entry['where']}" if entry["where"] else "")
    yield "cr2", hex(entry["cr2"])
    if entry["nested"]:
        yield "registers", "not known: the fault handler itself faulted"
        return
    yield "status", f"{entry['status']}, command {entry['command']}"
    for name in ("cs", "rflags", "rsp", "ss", "cr0", "cr3", "cr4", "dr6"):
        yield name, hex(entry[name])
    for name, value in entry["registers"].items():
        yield name, f"{value:#018x}"


def _counters(counters: Decoded) -> Iterator[tuple[str, object]]:
    for name in ("commands", "requests", "spurious", "errors", "removals", "timer"):
        yield name, counters[name]
    yield "stray", ", ".join(f"{vector}: {count}" for vector, count in counters["stray"].items()) or "none"


def log(entry: Decoded) -> str:
    """A log ring; `...` stands before a line whose beginning is overwritten and behind one that is not finished."""
    text = list(entry["lines"])
    if entry["cut"] and text:
        text[0] = "..." + text[0]
    if entry["open"] and text:
        text[-1] += "..."
    return _title(entry) + "".join(f"{line}\n" for line in text or ["the log is empty"])


def recorder(entry: Decoded) -> str:
    """A flight recorder, oldest event first, each with the time since the one before."""
    shown = entry["events"]
    if not shown:
        return _title(entry) + "nothing is recorded\n"
    before = [None, *(one["us"] for one in shown)]
    table = columns(("event", "us after INIT", "+us", "what", ""), (
        (one["number"], one["us"], None if None in (one["us"], last) else one["us"] - last, one["event"], one["what"])
        for one, last in zip(shown, before, strict=False)
    ))
    lost = entry["written"] - len(shown)
    return _title(entry) + (f"{lost} older events are overwritten\n" if lost else "") + table


def page_tables(entry: Decoded) -> str:
    """A CPU's mappings, and how they differ from the address map."""
    table = columns(("virtual", "physical", "KiB", "rights", "what"), (
        (f"{one['va']:#018x}", hex(one["pa"]), one["size"] // 1024, one["rights"], ", ".join(one["what"]) or "?")
        for one in entry["ranges"]
    ))
    verdict = "".join(f"wrong: {sentence}\n" for sentence in entry["differences"]) or "as the address map says\n"
    return f"{_title(entry)}root  {entry['root_pa']:#x}\n{table}{verdict}"


_ENTRIES: dict[Section, Callable[[Decoded], str]] = {
    Section.CONTROL: control,
    Section.COMMAND: command,
    Section.BOOT: boot,
    Section.FAULT: fault,
    Section.LOG: log,
    Section.RECORDER: recorder,
    Section.PAGE_TABLES: page_tables,
}
