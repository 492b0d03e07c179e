"""The node split: CPUs by NUMA node, then in balanced chunks of at most 32, each with memory of its own.

A node covers consecutive Linux numbers; its first CPU is Linux's. A node without a CPU for the sidecar is never
created: its CPUs stay with Linux. Runs on the boot CPU.
Ref: OpenHCL `openhcl_boot/src/sidecar.rs`.
"""


def split_nodes() -> str:
    """Fill the params page's nodes, the CPU map's node and policy.

    In: cpu_map, linux_cpus, free memory. Out: params, node_count, or no_sidecar. Clobbers: all. Stack: as say.
    """
    return """
    split_nodes:
            xor     r12d, r12d                      # first CPU that has no node yet
    .run:   mov     eax, dword ptr [rip + cpu_count]
            sub     eax, r12d
            je      .done
            mov     r14d, 1                         # CPUs of the same NUMA node from here on
            mov     ecx, r12d
            shl     rcx, 4                          # CpuMapEntry.SIZE
            lea     rbx, [rip + cpu_map]
            add     rbx, rcx
            movzx   ebp, word ptr [rbx + CpuMapEntry.numa_node]
    .same:  cmp     r14d, eax
            jae     .chunks
            add     rbx, CpuMapEntry.SIZE
            cmp     word ptr [rbx + CpuMapEntry.numa_node], bp
            jne     .chunks
            inc     r14d
            jmp     .same
    .chunks:
            lea     eax, [r14 + MAX_NODE_CPUS - 1]
            xor     edx, edx
            mov     ecx, MAX_NODE_CPUS
            div     ecx
            mov     r15d, eax                       # chunks left
    .chunk: lea     eax, [r14 + r15 - 1]
            xor     edx, edx
            div     r15d
            mov     r13d, eax                       # CPUs left by chunks left, rounded up
            call    make_node
            add     r12d, r13d
            dec     r15d
            sub     r14d, r13d
            jne     .chunk
            jmp     .run
    .done:  lea     rsi, [rip + text_one_cpu]
            cmp     dword ptr [rip + cpu_count], 1
            je      no_sidecar
            lea     rsi, [rip + text_no_node]
            cmp     dword ptr [rip + node_count], 0
            je      no_sidecar
            ret
            .section .rodata
    text_one_cpu:
            .asciz  "the machine has one CPU"
    text_no_node:
            .asciz  "no node has a CPU for the sidecar"
            .section .bss
            .align  8
    node_count:
            .zero   8
    """


def make_node() -> str:
    """Create the node of a chunk of CPUs, or leave them to Linux.

    In: r12d first CPU, r13d CPUs, ebp NUMA node. Out: one node more, or not, or no_sidecar. Keeps rbp, r12 to r15.
    Clobbers: the rest. Stack: as say.
    """
    return """
    make_node:
            mov     ecx, r12d
            shl     rcx, 4                          # CpuMapEntry.SIZE
            lea     rbx, [rip + cpu_map]
            add     rbx, rcx
            mov     ecx, 1                          # index 0 is Linux's
            xor     edx, edx                        # CPUs for the sidecar
    .count: cmp     ecx, r13d
            jae     .counted
            lea     eax, [r12 + rcx]
            bt      dword ptr [rip + linux_cpus], eax
            jb      .linux
            inc     edx
    .linux: inc     ecx
            jmp     .count
    .counted:
            test    edx, edx
            jne     .create
            cmp     dword ptr [rip + cpu_count], 1
            je      .nothing
            lea     rsi, [rip + text_left_to_linux]
            mov     edx, r12d
            lea     ecx, [r12 + r13 - 1]
            jmp     say
    .create:
            mov     edx, dword ptr [rip + node_count]
            lea     rsi, [rip + text_many_nodes]
            cmp     edx, MAX_NODES
            jae     no_sidecar
            imul    edi, r13d, PAGES_PER_CPU        # required_memory
            inc     edi
            lea     eax, [rdi + TABLE_ENTRIES - 1]
            shr     eax, 9
            add     edi, eax
            shl     rdi, 12
            mov     r8, rdi
            mov     esi, ebp
            mov     rdx, -1
            push    r8
            call    allocate
            pop     r8
            mov     edx, dword ptr [rip + node_count]
            lea     rsi, [rip + text_no_memory]
            mov     r10d, ecx
            mov     rcx, r8
            test    rax, rax
            je      no_sidecar
            mov     ecx, r10d
            imul    edi, edx, SidecarNodeParams.SIZE
            lea     r9, [rip + params_page + SidecarParams.nodes]
            add     rdi, r9
            mov     qword ptr [rdi + SidecarNodeParams.memory_base], rax
            mov     qword ptr [rdi + SidecarNodeParams.memory_size], r8
            mov     dword ptr [rdi + SidecarNodeParams.base_vp], r12d
            mov     dword ptr [rdi + SidecarNodeParams.vp_count], r13d
            lea     rdi, [rip + node_numa]
            mov     dword ptr [rdi + rdx*8], ebp
            mov     dword ptr [rdi + rdx*8 + 4], ecx
            inc     dword ptr [rip + node_count]
            xor     r8d, r8d
    .cpu:   mov     word ptr [rbx + CpuMapEntry.node], dx
            lea     eax, [r12 + r8]
            test    r8d, r8d
            je      .keep
            bt      dword ptr [rip + linux_cpus], eax
            jb      .keep
            mov     dword ptr [rbx + CpuMapEntry.policy], CpuPolicy.SIDECAR
    .keep:  add     rbx, CpuMapEntry.SIZE
            inc     r8d
            cmp     r8d, r13d
            jb      .cpu
            cmp     ecx, ebp
            je      .nothing
            lea     rsi, [rip + text_remote_memory]
            mov     r8d, ecx
            mov     ecx, ebp
            jmp     say
    .nothing:
            ret
            .section .rodata
    text_left_to_linux:
            .asciz  "note: CPUs %u to %u stay with Linux: a node needs a CPU for the sidecar besides its first"
    text_many_nodes:
            .asciz  "more than %u nodes"
    text_no_memory:
            .asciz  "not enough memory for node %u (%u bytes)"
    text_remote_memory:
            .asciz  "note: node %u: NUMA node %u has no memory to spare, taken from NUMA node %u"
            .section .bss
            .align  8
    node_numa:                                      # per node: NUMA node of its CPUs, of its memory; u32 each
            .zero   MAX_NODES * 8
    """


ROUTINES = (split_nodes, make_node)
