"""From routines as text to bootable files: the assembler, the ELF writer and the images."""
