"""The ABI's version and the limits that upstream fixed; the hash over all of it is in `registry`.

Ref: OpenHCL `sidecar_defs`.
"""

ABI_VERSION = 1
"""Counts incompatible changes. Parties that attach compare the version and the hash."""

MAX_NODES = 128
MAX_CPUS = 2048
MAX_NODE_CPUS = 32
"""Most CPUs the shim gives to one node, so that enough Linux CPUs exist to manage the others."""

MAX_NUMA_NODES = 64
MAX_REGISTERS = 31
"""Registers in one GET or SET: (1024 - 16) / 32."""

REQUEST_VECTOR = 0x20
"""The driver's request to a sidecar CPU."""

SPURIOUS_VECTOR = 0xFF
"""The local APIC's spurious-interrupt vector; it must not be answered with EOI."""

TIMER_VECTOR = 0x21
"""The CPU's own APIC timer: it ends the guest's turn so that a run's time limit is looked at."""
