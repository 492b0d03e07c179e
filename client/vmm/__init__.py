"""Virtual machines on the sidecar's CPUs: what a VMM in user space needs, and one made of it (`sidecarctl vm run`).

    with Sidecar.open() as sidecar, sidecar.machine(memory=64 << 20) as machine:
        machine.ports.add(uart.PORTS, uart.Uart(sys.stdout.buffer.write))
        load_multiboot(machine.memory, machine.add_vp(3), kernel)
        ended = machine.run(seconds=60)

A `Machine` (machine) has memory (memory), virtual processors (vp, events, state, registers) and claims of ports,
addresses, MSRs and CPUID leaves (ranges, bus, devices). A virtual processor runs until an exit (exits); `loop` and
`loop_async` run any number of them and let the machine handle each exit: IN and OUT (ports), accesses to memory that
is none (mmio). What a machine stands on is a `VmBacking` (backing): the driver (device_backing), or, without Linux,
whoever sees the machine's memory (pages_backing). `loaders` put code into it, `ledger` tells where the time went.

Ref: docs/vmm.md.
"""
