"""A model of the hand-over protocol for the model checker spin, and an acceptor of what was seen of a running machine.

    table      what the model takes from layout/control.py
    *.pml      the processes: a CPU, the driver, a client, Linux's CPU hotplug, the boot
    scenarios  which of them there are, what may go wrong around them, and the defects that can be put back in
    spin       has spin search every state
    trace      what a host-driven machine's driver did and saw, and whether the protocol allows it

`make model` runs all of it. What the model leaves out, and what it takes for granted, stands in docs/model.md.
"""
