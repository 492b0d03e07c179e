/*
 * A sidecar CPU: kernel/arrive.py, kernel/park.py, kernel/remove.py, kernel/faults.py.
 *
 * INIT comes between any two steps. A CPU that is blocked is at an end label; whoever needs it and waits is not.
 */
#if defined(CANCEL_BEFORE_THE_FIRST_RUN_IS_LOST) || defined(CANCEL_BEFORE_THE_FIRST_RUN_EXECUTES_NOTHING)
#define is_called(c) (status[c] == RUN)
#else
#define is_called(c) (status[c] == RUN || status[c] == STOP)
#endif

proctype Cpu(byte c) {
  byte found;
#ifdef QUIET_IS_READ_TOO_EARLY
  bit silent;
#endif

  if :: BOOT -> waiting[c] = 1; goto reset :: else -> goto park fi;
reset:
  {
    skip;
end_off:                                /* wait-for-SIPI; then trampoline and arrive */
    if
    :: atomic { startup[c] == OURS -> startup[c] = 0; waiting[c] = 0 }
    :: atomic { startup[c] == LINUXS -> startup[c] = 0; waiting[c] = 0; linux_has[c] = 1; goto taken }
    fi;
    if
    :: atomic { status[c] == REMOVED || status[c] == REMOVE || status[c] == FAULTED -> goto halt_forever }
    :: atomic { status[c] == RUN || status[c] == STOP || status[c] == IDLE -> arrived[c] = 1 }
    :: HOSTILE -> goto fault
    fi;
    if                                  /* prepare_cpu: enable_x2apic, reset_pages */
    :: atomic { status[c] != IDLE -> resetting[c] = 1; apic[c] = 1 };
       atomic {
         assert(!executing[c]);
         if :: phase[c] != EMPTY -> phase[c] = GONE :: else fi;
         resetting[c] = 0
       }
    :: atomic { status[c] == IDLE -> apic[c] = 1 }
    :: HOSTILE -> goto fault
    fi;
    goto finish;

halt_poll:                              /* for a while, which may be over at any time; then park looks once more */
#if POLLS
    if
    :: polling[c] ->
       if
       :: status[c] != IDLE
#ifdef POLLING_IS_CLEARED_TOO_LATE
       :: skip
#else
       :: polling[c] = 0
#endif
       :: HOSTILE -> goto fault         /* NMI */
       fi
    :: else
    fi;
#endif
park:
    if :: status[c] == IDLE -> skip :: status[c] != IDLE -> goto busy fi;
#ifdef POLLING_IS_CLEARED_TOO_LATE
    polling[c] = 0;
#endif
#ifdef INTERRUPTS_OPEN_TOO_EARLY
    if :: atomic { request[c] -> request[c] = 0 } :: skip fi;
#endif
end_hlt:                                /* sti; hlt: one that is pending, or the next one, ends it */
    if
    :: atomic { request[c] -> request[c] = 0; goto park }
    :: HOSTILE -> goto fault            /* NMI */
    fi;
busy:
    if
    :: atomic {
         is_called(c) ->
         assert(!filling[c] && !executing[c]);                          /* no two owners of a page */
         assert(phase[c] == ISSUED || phase[c] == GONE);                /* no command twice */
         executing[c] = 1;
         if :: phase[c] == ISSUED -> phase[c] = TAKEN :: else fi;
         goto execute
       }
    :: atomic { status[c] == REMOVE -> apic[c] = 0; goto remove }
    :: status[c] == REMOVED || status[c] == FAULTED -> goto halt_forever
    :: status[c] == IDLE -> goto park
#ifdef CANCEL_BEFORE_THE_FIRST_RUN_IS_LOST
    :: status[c] == STOP -> goto end_hlt
#endif
#ifdef CANCEL_BEFORE_THE_FIRST_RUN_EXECUTES_NOTHING
    :: atomic { status[c] == STOP -> executing[c] = 1; goto finish }
#endif
    fi;

execute:
    if
    :: goto finish
    :: endless[c] = 1;
end_endless:
       atomic { status[c] == STOP -> endless[c] = 0; goto finish }
    :: HOSTILE -> dead[c] = 1;
end_spin:
       false
    :: HOSTILE -> goto fault
    fi;
finish:
#ifdef QUIET_IS_READ_TOO_EARLY
    silent = quiet[c];
#endif
    atomic {
      if :: phase[c] == TAKEN -> phase[c] = DONE :: else fi;
#if POLLS
      if :: polling[c] = 1 :: polling[c] = 0 fi;                        /* halt_poll may change at any time */
#endif
      move(c, RUN, IDLE, SIDECAR_CPU);
      if :: found == STOP -> move(c, STOP, IDLE, SIDECAR_CPU) :: else fi;
      if
      :: found == RUN || found == STOP -> executing[c] = 0; found = 0
      :: else -> found = 0; goto park
      fi
    };
#ifdef QUIET_IS_READ_TOO_EARLY
    if :: silent -> goto halt_poll :: else fi;
#elif POLLS
    if :: quiet[c] -> goto halt_poll :: else fi;
#endif
notify:                                 /* raise_attention */
    atomic { attention = 1; response = 1; if :: dead[c] -> goto halt_forever :: else -> goto halt_poll fi };

remove:                                 /* the local APIC is software-disabled by now */
    if :: HOSTILE -> goto fault :: skip fi;
    atomic {
      move(c, REMOVE, REMOVED, SIDECAR_CPU);
      if
      :: found == REMOVE -> found = 0; dead[c] = 1; goto notify
      :: else -> found = 0; apic[c] = 1; goto park
      fi
    };

fault:                                  /* set_faulted */
    atomic {
      if
      :: status[c] == REMOVED || status[c] == FAULTED -> goto halt_forever
      :: else ->
         move(c, status[c], FAULTED, SIDECAR_CPU);
         found = 0; executing[c] = 0; endless[c] = 0; dead[c] = 1;
         goto notify
      fi
    };
halt_forever:
    dead[c] = 1;
end_halt:
    false;
taken:                                  /* Linux runs here, until INIT */
    skip;
end_taken:
    false
  } unless {
    atomic {
      inits[c] ->
      startup[c] = (inits[c] == 2 -> OURS : 0);
      inits[c] = 0; waiting[c] = 1;
      request[c] = 0; apic[c] = 0; linux_has[c] = 0;
      executing[c] = 0; resetting[c] = 0; endless[c] = 0; dead[c] = 0; found = 0;
      goto reset
    }
  }
}
