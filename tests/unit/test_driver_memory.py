"""Every call of the driver's that needs memory is one that tests/campaign/test_driver_memory.py has fail."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAILING = ROOT / "tests" / "support" / "out_of_memory" / "nth_failure.h"

MAY_NEED_MEMORY = re.compile(
    r"\b((?!sidecar_)\w*(?:alloc|dup|remap|free_page|zeroed_page|request_|register|_add|set_name|getfd|setup_state"
    r"|insert|pin_user_pages|get_table|pinned|create|init_and)\w*)\("
)
NEEDS_NONE = {
    "list_add", "list_add_tail", "interval_tree_insert", "register_pm_notifier", "register_reboot_notifier",
    "atomic_notifier_chain_register", "atomic64_add_return",
}  # fmt: skip


def kernel_calls() -> set[str]:
    sources = "\n".join(source.read_text() for source in (ROOT / "driver").glob("*.c"))
    own = set(re.findall(r"^static [\w *]*?(\w+)\(", sources, re.MULTILINE))
    names = set(MAY_NEED_MEMORY.findall(re.sub(r"/\*.*?\*/", "", sources, flags=re.DOTALL)))
    return {name for name in names - own if not re.match(r"un|free_|.*_unregister$", name)}


def test_every_call_that_needs_memory_can_fail() -> None:
    replaced = re.findall(r"^#define (\w+)\b(?!\n)", FAILING.read_text(), re.MULTILINE)
    assert len(kernel_calls()) > 15
    assert kernel_calls() - NEEDS_NONE - set(replaced) == set()


def test_what_needs_none_is_still_called() -> None:
    assert kernel_calls() >= NEEDS_NONE
