"""The boot shim: what the boot CPU does before Linux, in the names of its routines. No code here.

QEMU enters at `pvh_entry` in 32-bit mode; `long_mode` has 64-bit mode with all memory identity-mapped; `main` is the
story from there: `read_start_info` (command line, memory map, bundle), `check_bundle`, `read_options`, `find_linux`,
`find_acpi`, `list_cpus` (MADT), `assign_numa` (SRAT), `list_free_memory`, then the decision. Each step that finds the
sidecar unusable jumps to `no_sidecar` with its reason: a log line, never a failure. Otherwise `split_nodes`,
`load_image`, `calibrate_tsc`, `call_sidecar`, `publish_sdcr`.

At the end the machine belongs to somebody: to Linux, if the bundle carries one (`boot_linux`, `write_e820`); else to
the host, through `relay`, where the boot CPU sends the interrupts that the host asks for; else, with nothing to run, it
ends (`end_machine`).

Which file: entry (modes), main (the decision), start_info, options, bundle (input), acpi, cpus, memory, nodes (the
machine), loader, call (the sidecar), sdcr, linux, e820, relay (afterwards), console, traps, tsc (tools).
"""
