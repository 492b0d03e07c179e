"""Page tables: what is mapped on every CPU is exactly the address map, by QEMU's own walk and by ours.

QEMU's `info tlb` and `info mem` walk the tables of a CPU in QEMU's code; readelf says which rights the image asks for;
our walk reads the tables through QMP. A CPU that was left to Linux and sent through the trampoline all the same halts
on the transition tables, so QEMU shows those too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.builder.image import kernel
from sidecar.layout import IMAGE_VA, PAGE_SIZE, CpuMapEntry, PrivatePage
from sidecar.layout.address_map import LARGE_PAGE, PAGES_PER_CPU, PER_CPU_MAP, PER_CPU_VA, WINDOWS_VA, Mapping
from sidecar.layout.svm import IOPM_PAGES, MSRPM_PAGES
from sidecar.protocol.address_check import CPU_MAP_VA, ImageSegment, differences, mapped_pa
from sidecar.protocol.page_tables import walk
from sidecar.qemu.session import Session
from tests.support.booted import fresh_directory, send_startup, transition_root, wait_parked, wait_turned_away
from tests.support.qemu_view import Page, QemuMemory, tables, translate, translations, writable_pages
from tests.support.readelf import page_rights

pytestmark = pytest.mark.needs("readelf")

SMP = 40
TURNED_AWAY = 5


@dataclass(frozen=True)
class Views:
    """One machine, twice: as QEMU translates on each CPU, and as the tables in its memory are."""

    session: Session
    memory: QemuMemory
    pages: dict[int, dict[int, Page]]
    transition: dict[int, Page]
    read_only: set[int]


@pytest.fixture(scope="module")
def views(request: pytest.FixtureRequest) -> Iterator[Views]:
    directory = fresh_directory(request)
    with Session(smp=SMP, append=f"sidecar.linux_cpus={TURNED_AWAY}", directory=directory) as session:
        for cpu in session.cpus.values():
            cpu.none()
        send_startup(session, [session.found.cpu(TURNED_AWAY)])
        wait_turned_away(session, TURNED_AWAY)
        wait_parked(session)
        session.machine.stop()
        memory = QemuMemory(session.machine)
        image = range(session.found.image_pa, session.found.image_pa + session.found.image_bytes)
        maps = session.found.image_pa + kernel().linked.symbols["permission_maps"]
        shared = tables(memory, transition_root(session)) & set(image)
        shared |= {maps + page * PAGE_SIZE for page in range(IOPM_PAGES + MSRPM_PAGES)}
        pages = {cpu: translations(session.machine, cpu) for cpu in session.cpus}
        yield Views(session, memory, pages, translations(session.machine, TURNED_AWAY), shared)


@pytest.fixture(autouse=True)
def run_directory(views: Views) -> Path:
    return views.session.machine.directory


@pytest.fixture(scope="module")
def image_pages(views: Views) -> dict[int, Page]:
    """The image as it must be mapped: rights by readelf, but read-only what is a page table or permission map."""
    elf = views.session.machine.directory / "kernel.elf"
    elf.write_bytes(kernel().elf)
    base = views.session.found.image_pa
    return {
        IMAGE_VA + at: Page(base + at, rights.writable and base + at not in views.read_only, rights.executable)
        for at, rights in page_rights(elf).items()
    }


def cpu_map_pages(views: Views) -> dict[int, Page]:
    """The CPU map as it must be mapped; where it is, the shim decides."""
    count = -(-SMP * CpuMapEntry.SIZE // PAGE_SIZE)
    base = views.pages[1][CPU_MAP_VA].pa
    entries = views.memory.read(base, SMP * CpuMapEntry.SIZE)
    ids = [int.from_bytes(entries[at : at + 4], "little") for at in range(0, len(entries), CpuMapEntry.SIZE)]
    assert ids == [cpu.apic_id for cpu in views.session.found.cpus]
    return {CPU_MAP_VA + at: Page(base + at, False, False) for at in range(0, count * PAGE_SIZE, PAGE_SIZE)}


# --- a CPU's own tables -----------------------------------------------------------------------------------------------


def test_every_cpu_has_exactly_the_address_map(views: Views, image_pages: dict[int, Page]) -> None:
    found = views.session.found
    common = image_pages | cpu_map_pages(views)
    for number, pages in views.pages.items():
        own = {
            mapping.va: Page(mapped_pa(found, found.cpu(number), mapping), mapping.writable, False)
            for mapping in PER_CPU_MAP
        }
        assert pages == common | own, f"CPU {number}"


def test_no_page_is_both_writable_and_executable(views: Views) -> None:
    for pages in (*views.pages.values(), views.transition):
        assert not [hex(va) for va, page in pages.items() if page.writable and page.executable]


def test_rights_of_all_levels_are_those_of_the_last(views: Views) -> None:
    for cpu, pages in [*views.pages.items(), (TURNED_AWAY, views.transition)]:
        expected = {va for va, page in pages.items() if page.writable}
        assert writable_pages(views.session.machine, cpu) == expected, f"CPU {cpu}"


def test_our_walk_agrees_with_qemus(views: Views) -> None:
    for number, pages in views.pages.items():
        root = views.session.found.private_page_pa(views.session.found.cpu(number), PrivatePage.PML4)
        assert walked(views, root) == pages, f"CPU {number}"
    assert walked(views, transition_root(views.session)) == views.transition


def walked(views: Views, root: int) -> dict[int, Page]:
    """Our own walk, page by page."""
    return {
        va: Page(one.pa_of(va), one.writable, one.executable)
        for one in walk(views.memory, root)
        for va in range(one.va, one.end, PAGE_SIZE)
    }


def test_our_check_of_the_address_map_finds_nothing(views: Views, image_pages: dict[int, Page]) -> None:
    found = views.session.found
    segments = [
        ImageSegment(va - IMAGE_VA, PAGE_SIZE, page.writable, page.executable) for va, page in image_pages.items()
    ]
    for number in views.pages:
        cpu = found.cpu(number)
        ranges = list(walk(views.memory, found.private_page_pa(cpu, PrivatePage.PML4)))
        assert differences(ranges, found, cpu, segments) == []


def test_no_page_table_is_writable_through_any_cpus_own_map(views: Views) -> None:
    found = views.session.found
    roots = [found.private_page_pa(found.cpu(number), PrivatePage.PML4) for number in views.pages]
    all_tables = set().union(*(tables(views.memory, root) for root in [*roots, transition_root(views.session)]))
    assert len(all_tables) >= 4 * len(roots)
    for number, pages in views.pages.items():
        writable = {page.pa for page in pages.values() if page.writable}
        assert not writable & all_tables, f"CPU {number}"


def test_private_pages_of_one_cpu_are_on_no_other(views: Views) -> None:
    control = {node.control_pa for node in views.session.found.nodes}
    seen: dict[int, int] = {}
    for number, pages in views.pages.items():
        for va, page in pages.items():
            if va >= PER_CPU_VA and page.pa not in control:
                assert seen.setdefault(page.pa, number) == number


def test_guard_pages_and_a_few_addresses_by_qemus_translation(views: Views) -> None:
    machine, found = views.session.machine, views.session.found
    last = max(views.pages)
    by_name = {mapping.symbol: mapping for mapping in PER_CPU_MAP}
    for name in ("command_page", "control_page", "stack", "interrupt_page"):
        mapping = by_name[name]
        assert translate(machine, last, mapping.va + 0x123) == mapped_pa(found, found.cpu(last), mapping) + 0x123
    assert translate(machine, last, IMAGE_VA + 0x1234) == found.image_pa + 0x1234
    guards = [va for name in ("stack", "interrupt_page") for va in around(by_name[name])]
    for unmapped in (0, 0x1000, found.trampoline_pa, found.image_pa, *guards, WINDOWS_VA):
        assert translate(machine, last, unmapped) is None, hex(unmapped)


def around(mapping: Mapping) -> tuple[int, int]:
    """The last address before a page and the first behind it."""
    return mapping.va - 1, mapping.va + PAGE_SIZE


# --- the transition tables --------------------------------------------------------------------------------------------


def test_transition_tables_have_image_trampoline_and_windows_alone(
    views: Views, image_pages: dict[int, Page]
) -> None:
    found = views.session.found
    expected = image_pages | cpu_map_pages(views) | {found.trampoline_pa: Page(found.trampoline_pa, False, True)}
    for number, node in enumerate(found.nodes):
        window = WINDOWS_VA + number * LARGE_PAGE
        for at in range(0, (1 + PAGES_PER_CPU * node.cpu_count) * PAGE_SIZE, PAGE_SIZE):
            expected[window + at] = Page(node.control_pa + at, True, False)
    assert views.transition == expected


def test_windows_do_not_show_the_transition_tables(views: Views) -> None:
    """Node memory is mapped writable there, but not the tables of the windows, which lie behind it."""
    own = tables(views.memory, transition_root(views.session))
    assert not own & {page.pa for page in views.transition.values() if page.writable}
    for node in views.session.found.nodes:
        behind = node.control_pa + (1 + PAGES_PER_CPU * node.cpu_count) * PAGE_SIZE
        assert behind in own
