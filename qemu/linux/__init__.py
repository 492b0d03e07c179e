"""Stock Debian Linux as a guest: from package names to a machine that runs commands. No code here.

`kernel_package` (kernels) asks the host's own mirror (`apt`) for a kernel with its headers and keeps it unpacked in the
project's cache (`cache`, `store`); nothing is installed. `build_module` (module) compiles a driver against it.
`guest_root` (userland) fetches busybox, kmod and Python the same way; `initramfs` packs them (`cpio`) with the stock
modules (`modules`), what our packages import (`libraries`), these and the agent (`own_files`), and the host's files.
`guest/init.sh` is the guest's first process; it starts `guest/agent.py`, whose other end is `Guest` (agent_client):
commands, files, log.

`sidecar.qemu.linux_session.LinuxSession` boots all of it, with the sidecar or without, and `linux_report` shows it.
"""
