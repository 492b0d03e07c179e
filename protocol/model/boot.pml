/*
 * The boot: kernel/fan_out.py on the boot CPU, then the driver's look at what it finds. Without BOOT every CPU is idle
 * and known from the beginning.
 */
proctype BootCpu() {
  byte c, found;

  atomic {                              /* prepare_nodes, fan_out */
    do
    :: c < N -> move(c, REMOVED, RUN, SIDECAR_BSP); inits[c] = 2; c++
    :: c < N && HOSTILE -> move(c, REMOVED, RUN, SIDECAR_BSP); inits[c] = 1; c++
    :: else -> c = 0; found = 0; break
    od
  };
  do                                    /* wait_for_all: a STARTUP alone for each that is missing */
  :: c < N ->
     atomic {
       if :: status[c] == RUN && waiting[c] && !inits[c] -> startup[c] = OURS :: else fi;
       c++
     }
  :: else -> c = 0; break
  od;
  do                                    /* for those that are missing still: from the beginning */
  :: c < N ->
#ifdef SECOND_INIT_WITHOUT_REVOKING
     if :: status[c] == RUN -> inits[c] = 2 :: else fi;
#else
     atomic { move(c, RUN, REMOVED, SIDECAR_BSP); if :: found == RUN -> inits[c] = 1 :: else fi };
     atomic {
       !inits[c] ->
       if :: found == RUN -> move(c, REMOVED, RUN, SIDECAR_BSP); startup[c] = OURS :: else fi;
       found = 0
     };
#endif
     c++
  :: else -> c = 0; break
  od;
  do                                    /* who is missing at last: the claim is revoked */
  :: c < N -> atomic { move(c, RUN, REMOVED, SIDECAR_BSP); found = 0; c++ }
  :: else -> c = 0; break
  od;
  atomic {
    do
    :: c < N -> state[c] = (status[c] == IDLE || status[c] == FAULTED -> AVAIL : LOST); c++
    :: else -> c = 0; break
    od;
    attached = 1
  }
}

init {
  byte c;

  atomic {
    do
    :: c < N ->
       if :: !BOOT -> status[c] = IDLE; apic[c] = 1 :: else fi;
       run Cpu(c);
       c++
    :: else -> break
    od;
    c = 0;
    do
    :: c < CLIENTS -> run Client(c); c++
    :: else -> break
    od;
    run Hotplug();
    run Interrupt();
    if :: BOOT -> run BootCpu() :: else -> attached = 1 fi
  }
}
