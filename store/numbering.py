"""Numbers that a restored database goes on from: none that any log gave out before it was lost.

The lost log had given numbers beyond the copy's: to clients of streams as what they have seen up
to, to merchants as names of deliveries. Would they be given again, to something else, a client
would take the new event for one that it has. So each restore lets every table that counts go on
from a number that only time makes, and notes which numbers of events are left out: an audit must
not miss them, and who counts events must not count them.
"""

from typing import Final

from store.database import Statement
from store.queries import QUERIES


#: Numbers for each second since 1970. A log that wrote fewer in a second, on average since its own
#: restore, has not come to where the next restore begins; JSON's numbers last for 280,000 years.
NUMBERS_PER_SECOND: Final = 1_000


def first_after(now: int) -> int:
    """The number after which a database goes on that is restored at that time, unix seconds."""
    return now * NUMBERS_PER_SECOND


def go_on(now: int) -> list[Statement]:
    """Lets all numbers go on from that time on; those that are beyond it already stay."""
    names = ("numbering_note", "numbering_go_on", "numbering_begin")
    return [Statement(QUERIES[name], (first_after(now),)) for name in names]
