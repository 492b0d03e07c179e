"""The sidecar kernel: the life of a CPU, in the names of its routines. No code here.

On the boot CPU, once, called by the shim (`entry`): `relocate_image`, `check_params`, `map_image`, `map_transition`,
`prepare_nodes`, `install_trampoline`; then `start_all` starts one CPU and, when that is idle, the others, and
`wait_for_all` waits for the last.

On every other CPU, at each arrival: INIT and SIPI bring it to `trampoline` in real mode, which goes to 64-bit mode and
`arrive`: find yourself, rebuild your own page tables, `load_descriptors`; then `prepare_cpu`: `scrub_state`,
`enable_x2apic`, `fan_out` to help start the others if wanted, `reset_vp`, `reset_pages`; `finish` makes it IDLE.

From then on it sits in `park`: halted until the status byte in the control page says otherwise. RUN and STOP lead to
`execute`, which takes a command from the command page and ends in `finish`; before the CPU halts again, `halt_poll`
looks for the next one for as long as the driver wishes. REMOVE leads to `remove`. An interrupt is `request`, `timer`,
`spurious` or `stray` and returns to `park`, or to `run_window` if it came from there. A fault anywhere goes through
`fault_entry`, which records it, sets FAULTED, raises attention and ends in `halt_forever`; INIT and SIPI bring the CPU
back to `trampoline`.

RUN_VP is `run_vp`: `prepare_vp` sets up what the driver gave, `take_run` reads the inputs, `load_context`, then the
back end's turn. On AMD that is `svm_run`: look, `svm_deliver`, `svm_enter`, `svm_requeue`, `svm_exit`, again, until
an exit is the VMM's or somebody wants the CPU; `store_context`, `give_run`. `forget_gone_vp` before every command
sees to it that nothing is left of a virtual processor that was taken away.

Which file: entry, params, image_map, nodes (the boot CPU); trampoline, arrive, descriptors, scrub, apic, fan_out
(arrival); park, registers, provoke, gaps, remove, log, recorder (service); interrupts, faults. `common/` is shared
with the shim.
vp, vp_run, vp_context, vp_xsave, vp_timer run any virtual processor, svm and the svm_ files one on AMD, with
cpuid_policy and vmcb_check.
guest_memory, guest_walk with guest_tables and guest_rights, translate and registers_vp look into a virtual processor
while its guest stands still.
Who may change which byte in which state: `layout/control.py`; what is mapped where: `layout/address_map.py`.
"""
