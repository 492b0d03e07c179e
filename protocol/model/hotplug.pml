/*
 * Linux's CPU hotplug and the driver's callbacks: driver/hotplug.c. Again and again Linux wants a CPU, has it, or gives
 * up half way, and lets it go. It may stop at any time before that.
 */
#define HOTPLUG 128

proctype Hotplug() {
  byte c, found, tries, i;
  bit held;

progress_round:
  atomic {
    held = 0; c = 0; found = 0;
    if :: goto over :: attached fi;
    do :: c < N - 1 -> c++ :: break od
  };
try_take:
  atomic {
    if :: attention -> scan() :: else fi;
    if
    :: state[c] == LINUX_HAS_IT -> wanted[c] = 0; goto progress_round
    :: state[c] == LOST -> wanted[c] = 0; set_state(c, STARTING); goto bring_up_first
    :: state[c] == AVAIL || state[c] == STOPPED -> wanted[c] = 0; set_state(c, SYNC); goto remove
    :: else -> wanted[c] = 1
    fi
  };
  wait_until(c, HOTPLUG, may_take(c));
  if
  :: held -> goto try_take
  :: else -> wanted[c] = 0; goto progress_round                                  /* -EAGAIN */
  fi;
bring_up_first:
  bring_up(c, HOTPLUG);
  if :: held -> goto try_take :: else -> goto progress_round fi;                 /* -EIO */

remove:
  atomic {
    move(c, IDLE, REMOVE, DRIVER);
    if :: found != IDLE -> goto gone :: else -> found = 0 fi
  };
  atomic { send_request(c) };
#ifdef REMOVAL_WAITS_FOR_THE_WRONG_VALUE
  wait_until(c, HOTPLUG, (status[c] != IDLE));
#else
  wait_until(c, HOTPLUG, (status[c] != REMOVE));
#endif
  atomic {
    if
    :: !held -> set_state(c, STARTING); goto back                       /* -ETIMEDOUT */
    :: else
    fi
  };
gone:
  if
  :: status[c] == FAULTED ->
     inits[c] = 1;
     atomic { !inits[c] -> move(c, FAULTED, REMOVED, DRIVER); found = 0 }
  :: else
  fi;
  atomic {
    assert(status[c] == REMOVED);                                       /* REMOVE ends in REMOVED */
    set_state(c, LINUX_HAS_IT)
  };
  if                                    /* Linux's own INIT and STARTUP, or an error before them */
  :: inits[c] = 1;
     atomic { !inits[c] -> startup[c] = LINUXS };
     linux_has[c]
  :: skip
  fi;
  atomic { assert(state[c] == LINUX_HAS_IT && status[c] == REMOVED); set_state(c, STARTING) };  /* dead() */
back:
  bring_up(c, HOTPLUG);
  goto progress_round;
over:
  skip
}
