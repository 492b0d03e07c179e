/*
 * The driver: driver/run.c, driver/restart.c, driver/vector.c. Who calls has `found`, and `held`, which says of a wait
 * whether it ended with its condition.
 *
 * Left out on purpose: the look that the real waits take every 100 ms without being woken, so that every wake-up has
 * to arrive; and the second of the three attempts of a restart.
 */
#define ATTEMPTS 2

#if POLLS
inline unquiet(c) { quiet[c] = 0 }
#else
inline unquiet(c) { skip }
#endif

/* After RUN. `polling` is another byte, which may be cleared between RUN and the look at it: then there is a request
 * too many. With the look before RUN (the defect) there is one too few.
 */
#ifdef POLLING_IS_READ_TOO_EARLY
#define request_if_needed(c) if :: spared -> spared = 0 :: else -> send_request(c) fi
#elif POLLS
#define request_if_needed(c) if :: polling[c] :: send_request(c) fi
#else
#define request_if_needed(c) send_request(c)
#endif

inline wake_up(c) { asleep[c] = 0 }
inline set_state(c, s) { state[c] = s; wake_up(c) }

inline send_request(c) {
  assert(!linux_has[c]);                /* Linux never gets a vector that is not its own */
  if :: apic[c] -> request[c] = 1 :: else fi
}

/* sidecar_scan() */
inline scan() {
  attention = 0;
  i = 0;
  do
  :: i < N ->
     if
     :: (state[i] == ASYNC || state[i] == STOPPING) && !in_command(i) ->
        set_state(i, STOPPED); finished[i] = 1; reader_asleep[owner[i] - 1] = 0
     :: else -> wake_up(i)
     fi;
     i++
  :: else -> break
  od;
  i = 0
}

proctype Interrupt() {
  byte i;

end:
  do
  :: d_step { response -> response = 0; scan() }
  od
}

/* wait_event_timeout(): asleep first, then the look. */
inline wait_until(c, me, condition) {
  do
  :: asleep[c] = asleep[c] | me;
     if
     :: atomic { condition -> asleep[c] = asleep[c] & ~me; held = 1; break }
     :: else ->
        if
        :: !(asleep[c] & me)
        :: atomic {
             !(condition) && (asleep[c] & me) && (hopeless(c) || EARLY) ->
             asleep[c] = asleep[c] & ~me; held = 0; break
           }
        fi
     fi
  od
}

/* sidecar_bring_up(): the CPU is STARTING; AVAIL and `held`, or LOST afterwards. */
inline bring_up(c, me) {
  do
  :: atomic {
       arrived[c] = 0;
#ifndef RESTART_WITHOUT_INIT
       inits[c] = 1
#endif
     };
     atomic {
       !inits[c] ->
       if :: status[c] != RUN -> move(c, status[c], RUN, DRIVER) :: else fi;
       found = 0;
       if
       :: waiting[c] -> startup[c] = OURS
       :: !waiting[c]                   /* a CPU that does not wait for it ignores STARTUP */
       :: HOSTILE -> skip               /* it gets lost */
       fi
     };
     wait_until(c, me, (arrived[c] && status[c] != RUN));
     atomic {
       if
       :: held && status[c] == IDLE -> set_state(c, AVAIL); tries = 0; break
       :: else ->
#ifndef RESTART_NEVER_GIVES_UP
          tries++;
#endif
          if :: tries == ATTEMPTS -> set_state(c, LOST); held = 0; tries = 0; break :: else fi
       fi
     }
  od
}

/* end() */
inline end_run(c) {
  if
  :: status[c] == IDLE || status[c] == FAULTED -> set_state(c, AVAIL)
  :: else -> set_state(c, LOST)
  fi
}

/* sidecar_require_available() */
#define available(c, f) \
  ((owner[c] == 0 || owner[c] == f + 1) && !wanted[c] && state[c] == AVAIL && !finished[c])

/* begin(): `ok` if the CPU was told to run. */
inline begin(c, f, new) {
#ifdef POLLING_IS_READ_TOO_EARLY
  spared = polling[c];
#endif
#ifdef REQUEST_OVERTAKES_THE_STORE
  atomic { if :: available(c, f) -> send_request(c) :: else fi };
#endif
  atomic {
    ok = available(c, f);
#ifdef COMPLETION_BEFORE_START
    if :: ok -> state[c] = new :: else fi
  };
  atomic {
#endif
    if
    :: ok ->
#if POLLS
       if :: new == SYNC -> quiet[c] = 1 :: quiet[c] = 0 fi;            /* poll_us may change at any time */
#endif
       move(c, IDLE, RUN, DRIVER);
       ok = (found == IDLE);
       if
       :: ok ->
#ifndef COMPLETION_BEFORE_START
          state[c] = new;
#endif
#if !defined(REQUEST_OVERTAKES_THE_STORE) && !defined(REQUEST_AFTER_THE_LOCK)
          request_if_needed(c)
#endif
       :: !ok && found == FAULTED -> unquiet(c)
       :: !ok && found != FAULTED -> unquiet(c); set_state(c, LOST)
       fi;
       found = 0
    :: else
    fi
  };
#ifdef REQUEST_AFTER_THE_LOCK
  atomic { if :: ok -> send_request(c) :: else fi };
#endif
}

/* move_to_stop() and the request: sidecar_cancel(), sidecar_stop(). */
inline cancel(c) {
  atomic {
    ok = 0;
    if
    :: state[c] == SYNC || state[c] == ASYNC ->
       move(c, RUN, STOP, DRIVER);
       if
       :: found == RUN ->
          ok = 1;
          if :: state[c] == ASYNC -> set_state(c, STOPPING) :: else fi
       :: else
       fi
    :: else
    fi;
    found = 0;
#ifndef REQUEST_AFTER_THE_LOCK
    if :: ok -> send_request(c) :: else fi
#endif
  };
#ifdef REQUEST_AFTER_THE_LOCK
  atomic { if :: ok -> send_request(c) :: else fi };
#endif
}

/* sidecar_scrub() */
inline scrub(c) {
  if
  :: status[c] == IDLE || status[c] == FAULTED ->
     assert(!executing[c] && !resetting[c] && !filling[c]);
     phase[c] = EMPTY
  :: else
  fi
}
