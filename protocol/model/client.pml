/*
 * A client with an open file, and the driver's side of its system calls: driver/file.c, driver/cpu.c, driver/run.c.
 *
 * Again and again it claims a CPU, puts one command there, has it run in one of the ways that there are, and lets the
 * CPU go by RELEASE or by closing the file. It may stop at any time before that, so that whoever waits for something
 * that only another command would bring waits for ever.
 */
#define ME (1 << f)

proctype Client(byte f) {
  byte c, found, tries, i;
  bit held, ok, asked;
#ifdef POLLING_IS_READ_TOO_EARLY
  bit spared;
#endif

progress_round:
  atomic {
    ok = 0; held = 0; asked = 0; c = 0;
    if :: goto over :: attached fi;
    do :: c < N - 1 -> c++ :: break od
  };
  atomic {                              /* sidecar_claim() */
    if
    :: owner[c] == 0 && available(c, f) -> owner[c] = f + 1
    :: owner[c] == 0 && state[c] == LOST -> owner[c] = f + 1; phase[c] = EMPTY
    :: else -> goto progress_round
    fi
  };
  atomic { assert(!filling[c] && !executing[c]); filling[c] = 1 };      /* no two owners of a page */
  atomic {
    assert(!executing[c]);
    phase[c] = ISSUED; filling[c] = 0;
    if :: goto do_run :: goto do_start :: goto do_restart fi
  };

do_run:
  begin(c, f, SYNC);
  if :: !ok -> goto release :: else fi;
#if POLLS
  if                                    /* poll_for_end(): for a while, which may be over at any time */
  :: quiet[c] ->
     if
     :: !in_command(c) -> quiet[c] = 0; held = 1; goto ended
     :: quiet[c] = 0
     fi
  :: else
  fi;
#endif
  if
  :: wait_until(c, ME, (!in_command(c)))
  :: cancel(c); wait_until(c, ME, (!in_command(c)))                     /* a signal */
  fi;
ended:
  atomic {
    if
    :: !held -> set_state(c, STARTING); ok = 0; goto time_out
    :: else ->
       ok = (status[c] == IDLE);
       end_run(c);
       if :: ok -> ok = 0; goto answer :: else -> goto release fi
    fi
  };
time_out:
  bring_up(c, ME);
  goto release;

do_start:
  begin(c, f, ASYNC);
  if :: !ok -> goto release :: else fi;
  if :: asked = 1; cancel(c) :: skip fi;
do_read:
  atomic { if :: attention -> scan() :: !attention fi };
  do
  :: atomic {                           /* sidecar_told() */
       finished[c] && owner[c] == f + 1 ->
       finished[c] = 0;
       assert(state[c] != STOPPED || !in_command(c));                   /* no completion before the start */
       ok = (state[c] == STOPPED && status[c] == IDLE);
       if :: state[c] == STOPPED -> end_run(c) :: else fi;
       if :: ok -> ok = 0; goto answer :: else -> goto release fi
     }
  :: atomic { !finished[c] -> reader_asleep[f] = 1 };
     if
     :: atomic { finished[c] -> reader_asleep[f] = 0 }
     :: else ->
        if
        :: !reader_asleep[f]
        :: atomic {                     /* poll() with a time-out */
             reader_asleep[f] && !finished[c] && in_command(c) && (hopeless(c) || EARLY) ->
             reader_asleep[f] = 0;
             if
             :: !asked -> asked = 1; goto do_stop
             :: goto do_restart
             :: goto close
             fi
           }
        fi
     fi
  od;
do_stop:
  cancel(c);
  goto do_read;

answer:                                 /* told of a success */
  atomic { assert(!executing[c]); assert(phase[c] == DONE || phase[c] == GONE); goto release };

do_restart:
  atomic {
    ok = owner[c] == f + 1 && (state[c] == LOST || in_flight(c) || state[c] == AVAIL);
    if :: ok -> ok = 0; finished[c] = 0; set_state(c, STARTING) :: else -> goto release fi
  };
  bring_up(c, ME);

release:
  atomic {
    if
    :: owner[c] != f + 1 || state[c] == SYNC || state[c] == STARTING || in_flight(c) || finished[c] -> goto close
    :: else -> scrub(c); owner[c] = 0; goto progress_round
    :: goto close
    fi
  };

close:                                  /* sidecar_abandon() */
  cancel(c);
  if
  :: in_flight(c) ->
     wait_until(c, ME, (!in_command(c)));
     if
     :: !held ->
        atomic {
          ok = (state[c] == ASYNC || state[c] == STOPPING) && in_command(c);
          if :: ok -> set_state(c, STARTING) :: else fi
        };
        if :: ok -> bring_up(c, ME) :: else fi
     :: else
     fi
  :: else
  fi;
  atomic {                              /* disown() */
    finished[c] = 0;
    if :: in_flight(c) -> end_run(c) :: else fi;
    if :: state[c] == AVAIL -> scrub(c) :: else fi;
    owner[c] = 0
  };
  goto progress_round;
over:
  skip
}
