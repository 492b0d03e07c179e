"""The driver's role in Python, over any backing that can map the machine's memory and interrupt its CPUs.

The life of a command, in the names used here: `Cpu` (commands) fills the command page, `PageDriver` (driver) claims the
CPU, moves its status byte from IDLE to RUN with an atomic (atomics) and has the `Backing` (backing) send the request
vector; the CPU answers by moving the byte back, `poll` (waiting) sees it, and `Cpu` reads the answer. A CPU that does
not answer gets INIT and comes back through the trampoline (recovery). `View` (views) shows a page by its field names.
"""
