"""Every routine says what it takes and gives, which registers it changes, how much stack it needs; and that is so."""

from collections.abc import Callable
from functools import cache

import pytest

from sidecar.builder.image import routines
from sidecar.kernel import provoke, svm_exits
from sidecar.layout import PAGE_SIZE
from sidecar.layout.private import INTERRUPT_STACK_BYTES
from tests.image.helpers import MODULES, built
from tests.support.contracts import contract
from tests.support.control_flow import ControlFlow

Routine = Callable[[], str]

KINDS = [routine for routine in provoke.ROUTINES if routine is not provoke.raise_command]
"""What RAISE jumps to: all have the contract of `raise_command`, and a fault or a return as result."""

EVERY = [
    pytest.param(name, routine, id=f"{name}-{routine.__name__}")
    for name, modules in MODULES.items()
    for routine in routines(modules)
    if routine not in KINDS
]
HARDWARE_FRAME = 5 * 8 + 8
"""ss, rsp, rflags, cs, rip, and what aligns them. Ref: SDM vol. 3A, 6.14.2."""


@cache
def flow(name: str) -> ControlFlow:
    return ControlFlow(built(name).linked)


@pytest.mark.parametrize(("name", "routine"), EVERY)
def test_the_docstring_has_a_contract(name: str, routine: Routine) -> None:
    parts = contract(routine).parts
    assert parts.keys() & {"In", "Out", "In and out"}, f"{routine.__name__}: the docstring has neither In: nor Out:"


@pytest.mark.parametrize(("name", "routine"), EVERY)
def test_only_the_named_registers_change(name: str, routine: Routine) -> None:
    promised = contract(routine)
    if promised.clobbers is None:
        return
    written = flow(name).written(routine.__name__, ends=promised.leads_to(flow(name).symbols))
    assert written <= promised.clobbers, f"{routine.__name__} also changes {sorted(written - promised.clobbers)}"


@pytest.mark.parametrize(("name", "routine"), EVERY)
def test_the_stack_is_as_small_as_promised(name: str, routine: Routine) -> None:
    promised = contract(routine)
    if promised.stack is None:
        return
    most, with_callees = promised.stack
    ends = promised.leads_to(flow(name).symbols)
    used = flow(name).stack(routine.__name__, ends=ends, callees=with_callees)
    assert used <= most, f"{routine.__name__} uses {used} bytes of stack"


@pytest.mark.parametrize("routine", KINDS, ids=lambda routine: routine.__name__)
def test_every_kind_of_raise_says_what_it_provokes(routine: Routine) -> None:
    assert (routine.__doc__ or "").strip()


def test_a_fault_fits_on_an_interrupt_stack() -> None:
    assert HARDWARE_FRAME + flow("kernel").stack("interrupt_stubs") <= INTERRUPT_STACK_BYTES


@pytest.mark.parametrize("start", ["prepare_cpu", "park"])
def test_a_fault_in_any_routine_fits_on_the_stack_of_the_cpu(start: str) -> None:
    deepest = flow("kernel").stack(start, ends=["fault_entry"]) + max(commands().values())
    assert deepest + HARDWARE_FRAME + flow("kernel").stack("interrupt_stubs") <= PAGE_SIZE


def commands() -> dict[str, int]:
    """Stack of what is called through a table or jumped to by one, so that no step leads to it."""
    names = ["get_vp_registers", "translate_gva", *(kind.__name__ for kind in KINDS)]
    found = {name: flow("kernel").stack(name) for name in names}
    operations = max(flow("kernel").stack(name) for name in ("svm_probe", "svm_create", "svm_destroy"))
    exits = max(flow("kernel").stack(name) for name in set(svm_exits.HANDLERS.values()))
    run = flow("kernel").stack("svm_run") + flow("kernel").stack("svm_exit") + exits
    return found | {"run_vp": flow("kernel").stack("run_vp") + max(operations, run)}


def test_the_shim_fits_on_its_stack() -> None:
    """The sidecar's entry, which runs on it too, is called through a pointer."""
    symbols = flow("shim").symbols
    deepest = flow("shim").stack("main") + flow("kernel").stack("entry")
    assert deepest <= symbols["shim_stack_end"] - symbols["shim_stack"]
