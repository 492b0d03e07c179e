"""The machine's CPUs in Linux's numbering: the boot CPU is 0, then the enabled MADT entries in order.

Fills the CPU map, which the sidecar, the SDCR table and Linux's driver read. Runs on the boot CPU.
Ref: ACPI 6.5, 5.2.12.2 (local APIC), 5.2.12.3 (I/O APIC), 5.2.12.12 (local x2APIC), 5.2.16 (SRAT).
"""


def list_cpus() -> str:
    """Fill cpu_map from the MADT.

    In: ACPI found. Out: cpu_map, cpu_count, io_apic_pa, or no_sidecar. Clobbers: all. Interrupts: off. Stack: as say.
    """
    return """
    list_cpus:
            mov     eax, Cpuid.TOPOLOGY
            xor     ecx, ecx
            cpuid
            mov     dword ptr [rip + bsp_apic_id], edx
            mov     esi, edx
            call    add_cpu
            mov     esi, MADT_SIGNATURE
            call    find_table
            lea     rsi, [rip + text_no_madt]
            test    rax, rax
            je      no_sidecar
            lea     rbx, [rax + MADT_ENTRIES_OFFSET]
            mov     ebp, dword ptr [rax + AcpiHeader.length]
            add     rbp, rax                        # end of the table
    .entry: lea     rax, [rbx + 2]
            cmp     rax, rbp
            ja      .done
            movzx   r12d, byte ptr [rbx + MadtLocalApic.length]
            cmp     r12d, 2
            jb      .done                           # a length that leads nowhere
            movzx   eax, byte ptr [rbx + MadtLocalApic.type]
            cmp     eax, MadtType.LOCAL_APIC
            je      .local
            cmp     eax, MadtType.LOCAL_X2APIC
            je      .x2apic
            cmp     eax, MadtType.IO_APIC
            jne     .next
            cmp     dword ptr [rbx + MadtIoApic.gsi_base], 0
            jne     .next
            mov     eax, dword ptr [rbx + MadtIoApic.address]
            mov     dword ptr [rip + io_apic_pa], eax
            jmp     .next
    .local: movzx   esi, byte ptr [rbx + MadtLocalApic.apic_id]
            mov     eax, dword ptr [rbx + MadtLocalApic.flags]
            cmp     esi, 0xff
            je      .next
            jmp     .enabled
    .x2apic:
            mov     esi, dword ptr [rbx + MadtLocalX2Apic.x2apic_id]
            mov     eax, dword ptr [rbx + MadtLocalX2Apic.flags]
    .enabled:
            test    eax, 1
            je      .next
            cmp     esi, dword ptr [rip + bsp_apic_id]
            je      .next
            call    add_cpu
    .next:  add     rbx, r12
            jmp     .entry
    .done:  test    dword ptr [rip + options], Option.PHANTOM
            je      .all
            mov     esi, dword ptr [rip + phantom_apic_id]
            call    add_cpu                         # a CPU that is not there, for tests
    .all:   ret

    add_cpu:                                        # esi x2APIC id; clobbers rax, rdi
            mov     eax, dword ptr [rip + cpu_count]
            cmp     eax, MAX_CPUS
            jae     .full
            lea     rdi, [rip + cpu_map]
            shl     rax, 4                          # CpuMapEntry.SIZE
            add     rdi, rax
            shr     eax, 4
            mov     dword ptr [rdi + CpuMapEntry.apic_id], esi
            mov     dword ptr [rdi + CpuMapEntry.linux_number], eax
            mov     word ptr [rdi + CpuMapEntry.node], NO_NODE
            mov     dword ptr [rdi + CpuMapEntry.policy], CpuPolicy.LINUX
            inc     eax
            mov     dword ptr [rip + cpu_count], eax
    .full:  ret
            .section .rodata
    text_no_madt:
            .asciz  "ACPI has no MADT to list the CPUs"
            .section .bss
            .align  8
    cpu_count:
            .zero   4
    bsp_apic_id:
            .zero   4
    io_apic_pa:
            .zero   8
    phantom_apic_id:
            .zero   8
    """


def assign_numa() -> str:
    """Give every CPU its proximity domain, and list which memory belongs to which, from the SRAT.

    Without an SRAT all is domain 0.
    In: cpu_map. Out: numa_node of each entry, memory_affinity, or no_sidecar. Clobbers: all. Stack: as say.
    """
    return """
    assign_numa:
            mov     esi, SRAT_SIGNATURE
            call    find_table
            test    rax, rax
            je      .none
            lea     rbx, [rax + SRAT_ENTRIES_OFFSET]
            mov     ebp, dword ptr [rax + AcpiHeader.length]
            add     rbp, rax
    .entry: lea     rax, [rbx + 2]
            cmp     rax, rbp
            ja      .done
            movzx   r12d, byte ptr [rbx + SratLocalApic.length]
            cmp     r12d, 2
            jb      .done
            movzx   eax, byte ptr [rbx + SratLocalApic.type]
            cmp     eax, SratType.LOCAL_APIC_AFFINITY
            je      .local
            cmp     eax, SratType.LOCAL_X2APIC_AFFINITY
            je      .x2apic
            cmp     eax, SratType.MEMORY_AFFINITY
            je      .memory
    .next:  add     rbx, r12
            jmp     .entry
    .local: test    dword ptr [rbx + SratLocalApic.flags], 1
            je      .next
            mov     edx, dword ptr [rbx + SratLocalApic.proximity_high - 1]
            mov     dl, byte ptr [rbx + SratLocalApic.proximity_low]
            movzx   esi, byte ptr [rbx + SratLocalApic.apic_id]
            jmp     .cpu
    .x2apic:
            test    dword ptr [rbx + SratLocalX2Apic.flags], 1
            je      .next
            mov     edx, dword ptr [rbx + SratLocalX2Apic.proximity]
            mov     esi, dword ptr [rbx + SratLocalX2Apic.x2apic_id]
    .cpu:   call    .check
            lea     rdi, [rip + cpu_map]
            mov     ecx, dword ptr [rip + cpu_count]
    .find:  cmp     dword ptr [rdi + CpuMapEntry.apic_id], esi
            jne     .other
            mov     word ptr [rdi + CpuMapEntry.numa_node], dx
    .other: add     rdi, CpuMapEntry.SIZE
            dec     ecx
            jne     .find
            jmp     .next
    .memory:
            test    dword ptr [rbx + SratMemory.flags], 1
            je      .next
            mov     edx, dword ptr [rbx + SratMemory.proximity]
            call    .check
            mov     eax, dword ptr [rip + memory_affinity_count]
            cmp     eax, MEMORY_AFFINITIES
            jae     .next
            inc     dword ptr [rip + memory_affinity_count]
            call    .slot
            mov     rax, qword ptr [rbx + SratMemory.base]
            mov     qword ptr [rdi + Range.base], rax
            add     rax, qword ptr [rbx + SratMemory.length]
            mov     qword ptr [rdi + Range.end], rax
            mov     qword ptr [rdi + Range.numa], rdx
            jmp     .next
    .done:  cmp     dword ptr [rip + memory_affinity_count], 0
            jne     .some
    .none:  mov     dword ptr [rip + memory_affinity_count], 1
            xor     eax, eax
            call    .slot
            mov     qword ptr [rdi + Range.base], 0
            mov     qword ptr [rdi + Range.end], -1
            mov     qword ptr [rdi + Range.numa], 0
    .some:  ret
    .slot:  imul    eax, eax, Range.SIZE
            lea     rdi, [rip + memory_affinity]
            add     rdi, rax
            ret
    .check: lea     rcx, [rip + text_numa_node]
            cmp     edx, MAX_NUMA_NODES
            jae     .refuse
            ret
    .refuse:
            mov     rsi, rcx
            mov     ecx, MAX_NUMA_NODES - 1
            jmp     no_sidecar
            .section .rodata
    text_numa_node:
            .asciz  "NUMA node %u is beyond %u"
            .section .bss
            .align  8
    memory_affinity_count:
            .zero   8
    memory_affinity:
            .zero   MEMORY_AFFINITIES * Range.SIZE
    """


ROUTINES = (list_cpus, assign_numa)
