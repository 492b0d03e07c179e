"""The model's part that comes from the ABI: statuses, parties, and which change of a status byte is allowed to whom.

Sample:

    #define RUN 2
    #define SIDECAR_CPU 1
    #define TRANSITION(old, new, party) (((old) * 6 + (new)) * 3 + (party))
    #define ALLOWED(old, new, party) ( \\
      ((old) == RUN && (new) == IDLE && (party) == SIDECAR_CPU) || \\
      ...
"""

from __future__ import annotations

from enum import IntEnum

from sidecar.layout.control import TRANSITIONS, CpuStatus, Party, Transition

COUNT = len(CpuStatus) ** 2 * len(Party)


def text() -> str:
    """The definitions in Promela, and the C code that remembers which transitions a search has made."""
    rows = " || \\\n".join(
        f"  ((old) == {row.old.name} && (new) == {row.new.name} && (party) == {row.party.name})" for row in TRANSITIONS
    )
    statuses, parties = len(CpuStatus), len(Party)
    return f"""\
/* From layout/control.py. */
{_constants(CpuStatus)}{_constants(Party)}
#define TRANSITION(old, new, party) (((old) * {statuses} + (new)) * {parties} + (party))
#define ALLOWED(old, new, party) ( \\
{rows})

hidden byte took;
c_decl {{
\\#include <stdio.h>
static unsigned char covered[{COUNT}];

static void __attribute__((destructor)) tell_covered(void)
{{
  for (int number = 0; number < {COUNT}; number++)
    if (covered[number])
      printf("covered %d\\n", number);
}}
}};
"""


def number(row: Transition) -> int:
    """The number that TRANSITION() gives to a row of the table.

    >>> number(TRANSITIONS[0]), number(TRANSITIONS[2])
    (6, 40)
    """
    return (row.old * len(CpuStatus) + row.new) * len(Party) + row.party


def _constants(values: type[IntEnum]) -> str:
    return "".join(f"#define {value.name} {value.value}\n" for value in values)
