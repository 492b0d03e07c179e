"""Linux's 64-bit boot protocol: byte offsets in the bzImage and in boot_params.

The fields are not naturally aligned, so they are offsets and no Layout.
Ref: Linux `Documentation/arch/x86/boot.rst` ("The Real-Mode Kernel Header", "64-bit Boot Protocol"), `zero-page.rst`.
"""

from __future__ import annotations

from enum import IntEnum


class SetupHeader(IntEnum):
    """Offsets in the first sector of the bzImage, and the same in boot_params."""

    setup_sects = 0x1F1
    boot_flag = 0x1FE
    jump_offset = 0x201
    header = 0x202
    version = 0x206
    type_of_loader = 0x210
    loadflags = 0x211
    ramdisk_image = 0x218
    ramdisk_size = 0x21C
    cmd_line_ptr = 0x228
    xloadflags = 0x236
    pref_address = 0x258
    init_size = 0x260


class BootParams(IntEnum):
    """Offsets in boot_params, beside those of the setup header."""

    acpi_rsdp_addr = 0x70
    ext_ramdisk_image = 0xC0
    ext_ramdisk_size = 0xC4
    e820_entries = 0x1E8
    e820_table = 0x2D0


class LinuxBoot(IntEnum):
    """Values and limits of the protocol."""

    BOOT_FLAG = 0xAA55
    HEADER_MAGIC = 0x53726448
    VERSION_2_12 = 0x20C
    XLF_KERNEL_64 = 1
    LOADED_HIGH = 1
    LOADER_UNDEFINED = 0xFF
    ENTRY_64_OFFSET = 0x200
    SECTOR_BYTES = 512
    E820_MAX_ENTRIES = 128
    E820_ENTRY_BYTES = 20
    BOOT_CS = 0x10
    BOOT_DS = 0x18
    COMMAND_LINE_BYTES = 2048


class E820Type(IntEnum):
    """Ref: ACPI 6.5, 15.1."""

    RAM = 1
    RESERVED = 2
