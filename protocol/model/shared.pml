/*
 * What the processes share. The statuses, the parties and ALLOWED() stand before this file and come from
 * layout/control.py. N CPUs of one node, CLIENTS open files; file f is written f + 1 where nobody is 0.
 *
 * One step is one access to bytes that another party may change at that moment. What the driver does under node->lock
 * with at most one such access is therefore one step; so is a look at all CPUs in a scan, because looks at different
 * CPUs commute.
 *
 * An INIT is assumed to take effect in the time that the driver waits after it; a locked instruction and an interrupt
 * that follows `mfence; lfence` are assumed to be seen in their order, which docs/memory_order.md argues for.
 */

/* --- the control page and the interrupt controllers ------------------------------------------------------------- */

byte status[N];
bit attention;
bit request[N];         /* the request vector is pending */
bit response;           /* the response vector is pending on the base CPU */
bit apic[N];            /* software-enabled: takes interrupts other than INIT and STARTUP */
byte inits[N];          /* INIT is under way: 1, or 2 if a STARTUP follows at once */
byte startup[N];        /* STARTUP has arrived, for: */
#define OURS 1
#define LINUXS 2
bit waiting[N];         /* after INIT, before STARTUP */
bit arrived[N];         /* `arrivals` differs from what the driver has seen */
#if POLLS
bit quiet[N];           /* the driver looks for the end of a RUN itself: no attention */
bit polling[N];         /* the CPU, if IDLE, looks for a command itself: no request */
#endif

/* --- the command page, as far as order matters ------------------------------------------------------------------ */

byte phase[N];
#define EMPTY 0
#define ISSUED 1        /* a client has put a command there */
#define TAKEN 2         /* the CPU has taken it out */
#define DONE 3
#define GONE 4          /* an arrival or a release has cleared the page with the command in it */
bit filling[N];         /* a client writes */
bit executing[N];       /* the CPU executes a command */
bit resetting[N];       /* the CPU clears its pages on arrival */

/* --- what else a CPU is doing ----------------------------------------------------------------------------------- */

bit endless[N];         /* executes what ends upon STOP only */
bit dead[N];            /* executes nothing or for ever the same: nothing but INIT helps */
bit linux_has[N];

/* --- the driver ------------------------------------------------------------------------------------------------- */

byte state[N];
#define AVAIL 0
#define SYNC 1
#define STARTING 2
#define ASYNC 3
#define STOPPING 4
#define STOPPED 5
#define LINUX_HAS_IT 6  /* SIDECAR_REMOVED */
#define LOST 7
byte owner[N];
bit finished[N];        /* in the list of ended runs of its owner */
bit wanted[N];
byte asleep[N];         /* cpu->wait: a bit per process */
bit reader_asleep[CLIENTS];
bit attached;           /* the boot is over */

#define in_command(c) (status[c] == RUN || status[c] == STOP)
#define in_flight(c) (state[c] == ASYNC || state[c] == STOPPING || state[c] == STOPPED)
#define may_take(c) (state[c] == AVAIL || state[c] == STOPPED || state[c] == LINUX_HAS_IT || state[c] == LOST)

/* Without this no time-out ends a wait, unless EARLY: so a wake-up that gets lost is a deadlock, which spin finds. */
#define hopeless(c) (dead[c] || (waiting[c] && !startup[c] && !inits[c]) || (endless[c] && status[c] == RUN))

/* --- a locked compare-exchange of a status byte; `found` is the caller's ----------------------------------------- */

inline move(c, old, new, party) {
  found = status[c];
  if
  :: found == old ->
     assert(ALLOWED(old, new, party));
     took = TRANSITION(old, new, party);
     c_code { covered[took] = 1; };
     status[c] = new
  :: else
  fi
}
