"""Nodes on the BSP: node memory checked, windows mapped, control pages filled, every CPU's status set.

In state REMOVED the status byte belongs to the BSP until the first INIT; from then on the table in
`layout/control.py` says who may change it.
"""


def prepare_nodes() -> str:
    """Build node_states, the node windows and the control pages from the params page.

    In: r15 params, r14 output. Out: returns, or entry_fail. Clobbers: rax, rcx, rdx, rsi, rdi, rbx, rbp, r8 to r13.
    Interrupts: off. Stack: 8 bytes. Ref: OpenHCL sidecar, `init.rs` (one control page per node, index 0 REMOVED).
    """
    return """
    prepare_nodes:
            xor     ebp, ebp                        # node index
            lea     rbx, [rip + node_states]
            lea     r13, [r15 + SidecarParams.nodes]
            mov     r12, PdSlot.WINDOWS             # next free slot of high_pd
    .node:  mov     r8, qword ptr [r13 + SidecarNodeParams.memory_base]
            mov     r9d, dword ptr [r13 + SidecarNodeParams.vp_count]
            mov     eax, dword ptr [r13 + SidecarNodeParams.base_vp]
            mov     qword ptr [rbx + NodeState.memory_base], r8
            mov     dword ptr [rbx + NodeState.vp_count], r9d
            mov     dword ptr [rbx + NodeState.base_vp], eax
            mov     dword ptr [rbx + NodeState.next_vp], 1      # index 0 is Linux's
            mov     edx, ebp
            lea     rsi, [rip + text_node_memory]
            mov     rcx, r8
            mov     r10d, PAGE_SIZE - 1
            test    rcx, r10
            jne     entry_fail
            add     rax, r9                         # in 64 bits, where it cannot wrap
            lea     rsi, [rip + text_node_cpus]
            mov     rcx, rax
            mov     r8d, dword ptr [r15 + SidecarParams.cpu_map_count]
            cmp     rcx, r8
            ja      entry_fail
            lea     rsi, [rip + text_node_count]
            mov     ecx, r9d
            mov     r8d, 2                          # its first is Linux's
            cmp     rcx, r8
            jb      entry_fail
            imul    ecx, r9d, PAGES_PER_CPU         # pages in the window: control page and those of the CPUs
            inc     ecx
            lea     r11d, [rcx + TABLE_ENTRIES - 1]
            shr     r11d, 9                         # window tables
            lea     r8d, [rcx + r11]
            shl     r8, 12                          # required_memory
            mov     r10d, ecx
            lea     rsi, [rip + text_node_size]
            mov     rcx, qword ptr [r13 + SidecarNodeParams.memory_size]
            cmp     rcx, r8
            jb      entry_fail
            call    check_overlap
            call    check_cpus                      # so all windows together have room: WINDOW_SLOTS is checked for it
            call    map_window
            call    fill_control_page
            add     r13, SidecarNodeParams.SIZE
            add     rbx, NodeState.SIZE
            inc     ebp
            cmp     ebp, dword ptr [rip + node_count]
            jb      .node
            ret
            .section .rodata
    text_node_memory:
            .asciz  "sidecar node %u: memory_base %x, expected page alignment"
    text_node_cpus:
            .asciz  "sidecar node %u: its CPUs end at %u, the CPU map has %u"
    text_node_count:
            .asciz  "sidecar node %u: vp_count %u, expected at least %u"
    text_node_size:
            .asciz  "sidecar node %u: memory_size %x, expected at least %x"
            .section .bss
            .align  64
    node_states:
            .zero   MAX_NODES * NodeState.SIZE
    """


def check_overlap() -> str:
    """Refuse a node whose memory wraps, or overlaps an earlier node's.

    In: r13 node params, ebp node index, r15 params. Out: returns, or entry_fail. Keeps r10, r11.
    Clobbers: rax, rcx, rdx, rsi, rdi, r8, r9. Interrupts: off. Stack: none.
    """
    return """
    check_overlap:
            mov     edx, ebp
            mov     rcx, qword ptr [r13 + SidecarNodeParams.memory_base]
            mov     r8, rcx
            lea     rsi, [rip + text_node_wraps]
            add     r8, qword ptr [r13 + SidecarNodeParams.memory_size]
            jb      entry_fail
            mov     r9, r8                          # end of this node's memory
            lea     rdi, [r15 + SidecarParams.nodes]
            xor     r8d, r8d
            lea     rsi, [rip + text_node_overlaps]
    .other: cmp     r8d, ebp
            jae     .done
            mov     rax, qword ptr [rdi + SidecarNodeParams.memory_base]
            cmp     rax, r9
            jae     .apart
            add     rax, qword ptr [rdi + SidecarNodeParams.memory_size]
            cmp     rcx, rax
            jb      entry_fail
    .apart: add     rdi, SidecarNodeParams.SIZE
            inc     r8d
            jmp     .other
    .done:  ret
            .section .rodata
    text_node_wraps:
            .asciz  "sidecar node %u: memory_base %x and memory_size end at %x, expected no overflow"
    text_node_overlaps:
            .asciz  "sidecar node %u: its memory at %x overlaps node %u's"
    """


def check_cpus() -> str:
    """Refuse a node whose CPUs the CPU map gives to another node or calls by another number.

    So no CPU belongs to two nodes, and an arriving CPU finds the node that was prepared for it.
    In: rbx node state, ebp node index, r15 params. Out: returns, or entry_fail. Keeps r10, r11.
    Clobbers: rax, rcx, rdx, rsi, r8, r9. Interrupts: off. Stack: none.
    """
    return """
    check_cpus:
            mov     edx, ebp
            mov     ecx, dword ptr [rbx + NodeState.base_vp]
            mov     r9d, dword ptr [rbx + NodeState.vp_count]
            mov     eax, ecx
            shl     rax, 4                          # CpuMapEntry.SIZE
            add     rax, qword ptr [r15 + SidecarParams.cpu_map_pa]
    .cpu:   lea     rsi, [rip + text_cpu_node]
            movzx   r8d, word ptr [rax + CpuMapEntry.node]
            cmp     r8d, edx
            jne     entry_fail
            lea     rsi, [rip + text_cpu_number]
            mov     r8d, dword ptr [rax + CpuMapEntry.linux_number]
            cmp     r8d, ecx
            jne     entry_fail
            add     rax, CpuMapEntry.SIZE
            inc     ecx
            dec     r9d
            jne     .cpu
            ret
            .section .rodata
    text_cpu_node:
            .asciz  "sidecar node %u: entry %u of the CPU map says node %u"
    text_cpu_number:
            .asciz  "sidecar node %u: entry %u of the CPU map says linux_number %u"
    """


def map_window() -> str:
    """Map a node's control, shared and private pages into the transition tables.

    In: rbx node state, r10d pages, r11d tables, r12 first slot of high_pd. Out: r12 advanced, node state's window_va.
    Clobbers: rax, rcx, rdx, rdi, r8, r10, r11. Interrupts: off. Stack: none.
    """
    return """
    map_window:
            mov     rax, r12
            sub     rax, PdSlot.WINDOWS
            shl     rax, 21                         # 2 MiB per table
            lea     rcx, [rip + node_windows]       # relative to where the BSP runs: not the address yet
            lea     rdx, [rip + __ehdr_start]
            sub     rcx, rdx
            mov     rdx, IMAGE_VA
            add     rcx, rdx
            add     rax, rcx
            mov     qword ptr [rbx + NodeState.window_va], rax
            mov     rdx, qword ptr [rbx + NodeState.memory_base]
            mov     rdi, r10
            shl     rdi, 12
            add     rdi, rdx                        # the tables follow the pages
            lea     rcx, [rip + high_pd]
    .table: mov     rax, rdi
            or      rax, Pte.PRESENT | Pte.WRITE
            mov     qword ptr [rcx + r12*8], rax
            inc     r12
            mov     r8d, TABLE_ENTRIES
    .page:  xor     eax, eax
            test    r10d, r10d
            je      .put
            mov     rax, Pte.NX | Pte.WRITE | Pte.PRESENT
            or      rax, rdx
            add     rdx, PAGE_SIZE
            dec     r10d
    .put:   mov     qword ptr [rdi], rax
            add     rdi, 8
            dec     r8d
            jne     .page
            dec     r11d
            jne     .table
            ret
    """


def fill_control_page() -> str:
    """Zero and fill a node's control page, mark its CPUs' pages as not initialised, report the pages.

    In: rbx node state, ebp node index, r13 node params, r15 params, r14 output. Out: returns, or entry_fail.
    Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: none.
    """
    return """
    fill_control_page:
            mov     r8, qword ptr [rbx + NodeState.memory_base]
            mov     r9d, dword ptr [rbx + NodeState.vp_count]
            mov     rdi, r8
            mov     ecx, PAGE_SIZE // 8
            xor     eax, eax
            rep stosq
            mov     dword ptr [r8 + ControlPage.index], ebp
            mov     eax, dword ptr [rbx + NodeState.base_vp]
            mov     dword ptr [r8 + ControlPage.base_cpu], eax
            mov     dword ptr [r8 + ControlPage.cpu_count], r9d
            mov     dword ptr [r8 + ControlPage.request_vector], REQUEST_VECTOR
            mov     dword ptr [r8 + ControlPage.abi_version], ABI_VERSION
            mov     rcx, ABI_HASH
            mov     qword ptr [r8 + ControlPage.abi_hash], rcx
            shl     rax, 4                          # CpuMapEntry.SIZE
            add     rax, qword ptr [r15 + SidecarParams.cpu_map_pa]
            mov     r10d, r9d                       # first private page: 1 + 2 n pages on
            lea     r10d, [r10 + r10 + 1]
            shl     r10, 12
            add     r10, r8
            xor     ecx, ecx                        # index in the node
            xor     edx, edx                        # CPUs for the sidecar
    .cpu:   mov     qword ptr [r10 + PrivatePage.DIAGNOSTIC * PAGE_SIZE + DiagnosticPage.boot.arrivals], 0
            test    ecx, ecx
            je      .skip
            cmp     dword ptr [rax + CpuMapEntry.policy], CpuPolicy.SIDECAR
            jne     .skip
            mov     byte ptr [r8 + rcx + ControlPage.cpu_status], CpuStatus.RUN
            inc     edx
    .skip:  add     rax, CpuMapEntry.SIZE
            add     r10, PRIVATE_PAGES * PAGE_SIZE
            inc     ecx
            cmp     ecx, r9d
            jb      .cpu
            mov     ecx, edx
            mov     edx, ebp
            mov     r8d, 1
            lea     rsi, [rip + text_node_empty]
            test    ecx, ecx
            je      entry_fail
            lea     rax, [rbp + rbp*2]
            lea     rdi, [r14 + rax*8 + SidecarOutput.nodes]    # SidecarNodeOutput.SIZE is 24
            mov     r8, qword ptr [rbx + NodeState.memory_base]
            mov     qword ptr [rdi + SidecarNodeOutput.control_page], r8
            add     r8, PAGE_SIZE
            mov     qword ptr [rdi + SidecarNodeOutput.shmem_pages_base], r8
            shl     r9, 13                          # SHARED_PAGES pages each
            mov     qword ptr [rdi + SidecarNodeOutput.shmem_pages_size], r9
            add     dword ptr [r14 + SidecarOutput.started_count], ecx
            ret
            .section .rodata
    text_node_empty:
            .asciz  "sidecar node %u: %u CPUs for the sidecar, expected at least %u"
    """


ROUTINES = (prepare_nodes, check_overlap, check_cpus, map_window, fill_control_page)
