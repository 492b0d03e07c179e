"""What relocation leaves behind: pointers to routines and data, tables by command and kind, nothing used too early."""

from elftools.elf.relocation import RelocationSection

from sidecar.builder import image
from sidecar.kernel import provoke
from sidecar.layout import IMAGE_VA, RaiseKind, SidecarCommand
from tests.image.helpers import memory_of, number_at, read
from tests.support.control_flow import ControlFlow

SHF_ALLOC, SHF_EXECINSTR = 2, 4
KERNEL_SYMBOLS = image.kernel().linked.symbols
RELATIVE = image.kernel().linked.relocations


def routine_at(vaddr: int) -> str:
    """The routine whose first byte is there."""
    (name,) = [line.routine for line in image.kernel().linked.lines if line.vaddr == vaddr and line.is_instruction]
    return name


def test_the_table_in_the_file_is_the_linkers() -> None:
    table = read(image.kernel().elf).get_section_by_name(".rela.dyn")
    assert isinstance(table, RelocationSection)
    found = [(one["r_offset"], one["r_addend"]) for one in table.iter_relocations()]
    assert found == list(RELATIVE)
    assert found


def test_every_pointer_leads_to_a_symbol() -> None:
    known = set(KERNEL_SYMBOLS.values())
    assert [hex(value) for _, value in RELATIVE if value not in known] == []


def test_every_pointer_lies_in_what_becomes_read_only() -> None:
    relro = next(one for one in read(image.kernel().elf).iter_segments() if one["p_type"] == "PT_GNU_RELRO")
    fields = range(relro["p_vaddr"], relro["p_vaddr"] + relro["p_memsz"] - 7)
    assert [hex(field) for field, _ in RELATIVE if field not in fields] == []


def test_no_data_but_the_pointers_is_an_address_of_the_image() -> None:
    """Such a quadword would be right for one address of the map alone, and nobody would see it."""
    loaded = range(IMAGE_VA, IMAGE_VA + image.kernel().plan.memory_bytes)
    sections = read(image.kernel().elf).iter_sections()
    data = [one for one in sections if one["sh_flags"] & SHF_ALLOC and not one["sh_flags"] & SHF_EXECINSTR]
    memory = memory_of("kernel")
    found = {
        at
        for section in data
        for at in range(-(-section["sh_addr"] // 8) * 8, section["sh_addr"] + section["sh_size"] - 7, 8)
        if int.from_bytes(memory[at : at + 8], "little") in loaded
    }
    assert [hex(at) for at in found - {field for field, _ in RELATIVE}] == []


def test_each_command_has_its_routine() -> None:
    tables = {"commands": SidecarCommand.NONE, "extensions": SidecarCommand.RAISE}

    def handler(command: SidecarCommand) -> str:
        table = "commands" if command < SidecarCommand.RAISE else "extensions"
        return routine_at(number_at("kernel", KERNEL_SYMBOLS[table] + 8 * (command - tables[table])))

    handlers = {command: handler(command) for command in SidecarCommand if command is not SidecarCommand.NONE}
    assert handlers == {
        SidecarCommand.RUN_VP: "run_vp",
        SidecarCommand.GET_VP_REGISTERS: "get_vp_registers",
        SidecarCommand.SET_VP_REGISTERS: "get_vp_registers",
        SidecarCommand.TRANSLATE_GVA: "translate_gva",
        SidecarCommand.RAISE: "raise_command",
        SidecarCommand.GET_VP_XSAVE: "get_vp_xsave",
        SidecarCommand.SET_VP_XSAVE: "get_vp_xsave",
    }


def test_each_kind_of_raise_has_its_routine() -> None:
    """A row is the kind and its routine's distance from the table, u32 and i32."""
    table = KERNEL_SYMBOLS["raise_kinds"]
    rows = {}
    for row in range(table, table + 8 * len(provoke.KINDS), 8):
        distance = number_at("kernel", row + 4, 4)
        rows[number_at("kernel", row, 4)] = routine_at(table + (distance ^ 1 << 31) - (1 << 31))
    assert rows == {kind: f"raise_{kind.name.lower()}" for kind in RaiseKind}


def test_the_boot_cpu_needs_no_relocated_pointer() -> None:
    """It runs at the physical address, where a pointer to IMAGE_VA leads nowhere."""
    fields = {at for field, _ in RELATIVE for at in range(field, field + 8)}
    steps = ControlFlow(image.kernel().linked).reachable("entry")
    assert {"relocate_image", "map_image", "prepare_nodes", "fan_out"} <= {step.routine for step in steps}
    assert [f"{step.routine}: {step.text}" for step in steps if step.refers_to in fields] == []
    assert [f"{step.routine}: {step.text}" for step in steps if step.indirect] == []
    tables = {KERNEL_SYMBOLS[name] for name in ("commands", "raise_kinds", "idt_pointer")}
    assert [f"{step.routine}: {step.text}" for step in steps if step.refers_to in tables] == []
