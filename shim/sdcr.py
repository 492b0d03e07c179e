"""The SDCR table, by which driver and tools find everything, and the RSDP and XSDT that lead to it.

Built in memory that stays reserved; the firmware's own tables are not touched. Runs on the boot CPU.
Ref: ACPI 6.5, 5.2.5.3 (RSDP revision 2), 5.2.6 (table header), 5.2.8 (XSDT).
"""

XSDT_ENTRIES = 200


def publish_sdcr() -> str:
    """Build the table from what is known, then RSDP and XSDT.

    In: output_page, params_page, cpu_map. Out: sdcr, xsdt, rsdp. Clobbers: all. Stack: 16 bytes.
    """
    copies = "".join(
        f"""
            mov     rax, qword ptr [rip + output_page + SidecarOutput.{source}]
            mov     qword ptr [rbx + Sdcr.{target}], rax"""
        for source, target in (
            ("image_pa", "image_pa"), ("image_bytes", "image_bytes"), ("entry_tsc", "sidecar_entry_tsc"),
            ("first_init_tsc", "first_init_tsc"), ("all_idle_tsc", "all_idle_tsc"),
        )
    )
    return f"""
    publish_sdcr:
            lea     rbx, [rip + sdcr]
            mov     dword ptr [rbx + AcpiHeader.signature], SDCR_SIGNATURE
            mov     byte ptr [rbx + AcpiHeader.revision], SDCR_REVISION
            call    acpi_maker
            mov     dword ptr [rbx + Sdcr.abi_version], ABI_VERSION
            mov     rax, ABI_HASH
            mov     qword ptr [rbx + Sdcr.abi_hash], rax{copies}
            mov     rax, qword ptr [rip + trampoline_pa]
            mov     qword ptr [rbx + Sdcr.trampoline_pa], rax
            lea     rax, [rip + relay_page]
            cmp     qword ptr [rip + linux_part], 0
            je      .relay
            xor     eax, eax                        # Linux runs here, not the relay
    .relay: mov     qword ptr [rbx + Sdcr.relay_pa], rax
            mov     eax, dword ptr [rip + tsc_khz]
            mov     dword ptr [rbx + Sdcr.tsc_khz], eax
            mov     eax, dword ptr [rip + output_page + SidecarOutput.missing_count]
            mov     dword ptr [rbx + Sdcr.missing_count], eax
            mov     rax, qword ptr [rip + shim_entry_tsc]
            mov     qword ptr [rbx + Sdcr.shim_entry_tsc], rax
            mov     eax, dword ptr [rip + node_count]
            mov     dword ptr [rbx + Sdcr.node_count], eax
            mov     dword ptr [rbx + Sdcr.node_offset], Sdcr.SIZE
            lea     rdi, [rbx + Sdcr.SIZE]
            call    sdcr_nodes
            mov     rax, rdi
            sub     rax, rbx
            mov     dword ptr [rbx + Sdcr.cpu_offset], eax
            mov     ecx, dword ptr [rip + cpu_count]
            mov     dword ptr [rbx + Sdcr.cpu_count], ecx
            imul    ecx, ecx, CpuMapEntry.SIZE
            lea     rsi, [rip + cpu_map]
            rep movsb
            sub     rdi, rbx
            mov     dword ptr [rbx + AcpiHeader.length], edi
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            mov     qword ptr [rbx + Sdcr.hand_over_tsc], rax
            call    acpi_checksum
            jmp     publish_root

    acpi_maker:                                     # rbx table: OEM and creator
            mov     dword ptr [rbx + AcpiHeader.oem_id], OEM_ID_LOW
            mov     word ptr [rbx + AcpiHeader.oem_id + 4], OEM_ID_HIGH
            mov     rax, OEM_TABLE_ID
            mov     qword ptr [rbx + AcpiHeader.oem_table_id], rax
            mov     dword ptr [rbx + AcpiHeader.oem_revision], 1
            mov     dword ptr [rbx + AcpiHeader.creator_id], SDCR_SIGNATURE
            mov     dword ptr [rbx + AcpiHeader.creator_revision], 1
            ret

    acpi_checksum:                                  # rbx table, length set: its checksum
            mov     byte ptr [rbx + AcpiHeader.checksum], 0
            mov     rdi, rbx
            call    table_sum
            neg     al
            mov     byte ptr [rbx + AcpiHeader.checksum], al
            ret
            .section .bss
            .align  PAGE_SIZE
    lasting_tables:                                 # stay reserved when Linux runs
    cpu_map:
            .zero   MAX_CPUS * CpuMapEntry.SIZE
    sdcr:   .zero   Sdcr.SIZE + MAX_NODES * SdcrNode.SIZE + MAX_CPUS * CpuMapEntry.SIZE
            .align  8
    rsdp:   .zero   Rsdp.SIZE
            .align  8
    xsdt:   .zero   AcpiHeader.SIZE + {XSDT_ENTRIES} * 8
            .align  PAGE_SIZE
    lasting_tables_end:
    relay_page:
            .zero   PAGE_SIZE
    """


def sdcr_nodes() -> str:
    """One SdcrNode per node.

    In: rdi where. Out: rdi behind them. Clobbers: rax, rcx, rdx, rsi, r8 to r10. Stack: none.
    """
    return """
    sdcr_nodes:
            lea     rsi, [rip + params_page + SidecarParams.nodes]
            lea     r8, [rip + output_page + SidecarOutput.nodes]
            lea     r9, [rip + node_numa]
            mov     r10d, dword ptr [rip + node_count]
    .node:  mov     rax, qword ptr [r8 + SidecarNodeOutput.control_page]
            mov     qword ptr [rdi + SdcrNode.control_pa], rax
            mov     rax, qword ptr [r8 + SidecarNodeOutput.shmem_pages_base]
            mov     qword ptr [rdi + SdcrNode.shared_pa], rax
            add     rax, qword ptr [r8 + SidecarNodeOutput.shmem_pages_size]
            mov     qword ptr [rdi + SdcrNode.private_pa], rax
            mov     rax, qword ptr [rsi + SidecarNodeParams.memory_size]
            mov     qword ptr [rdi + SdcrNode.memory_bytes], rax
            mov     eax, dword ptr [rsi + SidecarNodeParams.base_vp]
            mov     dword ptr [rdi + SdcrNode.base_cpu], eax
            mov     eax, dword ptr [rsi + SidecarNodeParams.vp_count]
            mov     dword ptr [rdi + SdcrNode.cpu_count], eax
            mov     eax, dword ptr [r9]
            mov     dword ptr [rdi + SdcrNode.numa_node], eax
            mov     eax, dword ptr [r9 + 4]
            mov     dword ptr [rdi + SdcrNode.memory_numa_node], eax
            add     rsi, SidecarNodeParams.SIZE
            add     r8, SidecarNodeOutput.SIZE
            add     r9, 8
            add     rdi, SdcrNode.SIZE
            dec     r10d
            jne     .node
            ret
    """


def publish_root() -> str:
    """An XSDT with the firmware's tables and SDCR, and the RSDP that points at it.

    In: acpi_root. Out: rsdp, xsdt. Clobbers: all. Stack: 16 bytes.
    """
    return f"""
    publish_root:
            lea     rbx, [rip + xsdt]
            mov     dword ptr [rbx + AcpiHeader.signature], XSDT_SIGNATURE
            mov     byte ptr [rbx + AcpiHeader.revision], 1
            call    acpi_maker
            lea     rdi, [rbx + AcpiHeader.SIZE]
            mov     rsi, qword ptr [rip + acpi_root]
            add     rsi, AcpiHeader.SIZE
            mov     ecx, dword ptr [rip + acpi_pointer_count]
            mov     r8d, dword ptr [rip + acpi_pointer_bytes]
            cmp     ecx, {XSDT_ENTRIES - 1}
            jbe     .copy
            mov     ecx, {XSDT_ENTRIES - 1}
    .copy:  sub     ecx, 1
            jb      .own
            mov     eax, dword ptr [rsi]
            cmp     r8d, 8
            jne     .put
            mov     rax, qword ptr [rsi]
    .put:   mov     qword ptr [rdi], rax
            add     rsi, r8
            add     rdi, 8
            jmp     .copy
    .own:   lea     rax, [rip + sdcr]
            mov     qword ptr [rdi], rax
            lea     rax, [rdi + 8]
            sub     rax, rbx
            mov     dword ptr [rbx + AcpiHeader.length], eax
            call    acpi_checksum
            lea     rdi, [rip + rsdp]
            mov     rax, RSDP_SIGNATURE
            mov     qword ptr [rdi + Rsdp.signature], rax
            mov     dword ptr [rdi + Rsdp.oem_id], OEM_ID_LOW
            mov     word ptr [rdi + Rsdp.oem_id + 4], OEM_ID_HIGH
            mov     byte ptr [rdi + Rsdp.revision], 2
            mov     dword ptr [rdi + Rsdp.length], Rsdp.SIZE
            mov     qword ptr [rdi + Rsdp.xsdt_address], rbx
            mov     ecx, Rsdp.length                # the first 20 bytes
            call    byte_sum
            neg     al
            mov     byte ptr [rdi + Rsdp.checksum], al
            mov     ecx, Rsdp.SIZE
            call    byte_sum
            neg     al
            mov     byte ptr [rdi + Rsdp.extended_checksum], al
            ret
    """


ROUTINES = (publish_sdcr, sdcr_nodes, publish_root)
