"""How a guest's code gets into its memory, and its first virtual processor into the state that the code expects.

`raw`: bytes at an address, in real, protected or long mode. `multiboot`: an ELF file by Multiboot 1. `modes` has the
states that both give.
"""
