"""What an allocator did, replayed: every block that lived, and the moment at which together they were the most.

Everything here is arithmetic on a plain list, whatever allocator it came from (`cuda.py`, `cpu.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

from theworld.profiling.places import Place

SENTINEL_BYTES = 401
"""Size of the block that is allocated and freed at once to mark a moment in the allocator's own history.

No tensor of a model has 401 bytes, so two events of this size at one address and next to each other are a moment.
"""


@dataclass(frozen=True)
class Owner:
    """What a block is for, known because a tensor with that name lies in it.

    Attributes:
        category: `weights`, `gradients`, `optimizer_state`, `inputs` or `workspace`.
        part: Group of parameters, or what it is.
        size: Bytes of the tensor's storage.
    """

    category: str
    part: str
    size: int


@dataclass(frozen=True)
class Event:
    """One thing that the allocator did.

    Attributes:
        kind: A block was given out, or came back.
        address: Where it begins.
        size: Bytes that were asked for.
        seconds: When, by a clock of its own.
    """

    kind: Literal["alloc", "free"]
    address: int
    size: int
    seconds: float


@dataclass(frozen=True)
class Mark:
    """A moment in the history.

    Attributes:
        place: Where the step goes on.
        owners: What is known at this moment of the blocks that live, by their addresses.
        opens: Whether the stretch that is measured begins here.
    """

    place: Place | None = None
    owners: Mapping[int, Owner] = field(default_factory=dict)
    opens: bool = False


@dataclass(frozen=True)
class Recorded:
    """What an allocator says.

    Attributes:
        events: In its order, from the start of the recording on.
        before: Size by address of the blocks that lived then.
        allocated_peak: Most bytes that it had given out in the measured stretch, by its own count.
        asked_peak: The most that it had been asked for at once, by its own count too; None where it does not count it.
        reserved_peak: Most bytes that it had taken from the device; None where nothing is reserved.
    """

    events: list[Event]
    before: Mapping[int, int]
    allocated_peak: int
    asked_peak: int | None = None
    reserved_peak: int | None = None


@dataclass
class Block:
    """A stretch of memory from being given out until it came back.

    Attributes:
        size: Bytes that were asked for.
        begin: Number of the event that gave it out; -1 if it was there before the first one.
        end: Number of the event with which it came back; the number of all events if it never did.
        place: Where the step was when it was given out; None before the first mark.
        last: Where it was when the block came back; None if it never did, or before the first mark.
        owner: What it is for, if that is known.
    """

    size: int
    begin: int
    end: int
    place: Place | None = None
    last: Place | None = None
    owner: Owner | None = None


@dataclass(frozen=True)
class History:
    """All blocks of a recording.

    Attributes:
        blocks: In the order in which they were given out, those from before first.
        seconds: When each event was.
        first: The first event of the stretch that is measured.
    """

    blocks: list[Block]
    seconds: list[float]
    first: int

    def totals(self) -> list[int]:
        """Bytes that live after each event."""
        deltas = [0] * len(self.seconds)
        for block in self.blocks:
            if block.begin >= 0:
                deltas[block.begin] += block.size
            if block.end < len(deltas):
                deltas[block.end] -= block.size
        return list(accumulate(deltas, initial=sum(block.size for block in self.blocks if block.begin < 0)))[1:]

    def peak(self) -> int:
        """Number of the event after which the most bytes live, of those in the stretch that is measured."""
        totals = self.totals()
        if self.first >= len(totals):
            raise ValueError("found no event of the allocator in the measured step, expected some; record a whole step")
        return max(range(self.first, len(totals)), key=lambda number: totals[number])

    def living(self, event: int) -> list[Block]:
        """Blocks that live after an event."""
        return [block for block in self.blocks if block.begin <= event < block.end]


def replay(events: Sequence[Event], marks: Sequence[Mark], before: Mapping[int, int]) -> History:
    """Blocks of a list of events in which sentinels stand for the marks.

    Args:
        events: In the allocator's order.
        marks: One for each pair of sentinels.
        before: Size by address of the blocks that live before the first event.

    Raises:
        ValueError: Another number of sentinels than of marks, or a block that is freed and does not live.
    """
    blocks = [Block(size, -1, len(events)) for size in before.values()]
    living = dict(zip(before, blocks, strict=True))
    place: Place | None = None
    first = passed = number = 0
    while number < len(events):
        event = events[number]
        if is_sentinel(events, number):
            mark, passed = _mark(marks, passed), passed + 1
            place = place if mark.place is None else mark.place
            first = number + 2 if mark.opens else first
            for address, owner in mark.owners.items():
                if address in living:
                    living[address].owner = owner
            number += 2
            continue
        if event.kind == "alloc":
            block = Block(event.size, number, len(events), place)
            blocks.append(block)
            living[event.address] = block
        elif event.address in living:
            block = living.pop(event.address)
            block.end, block.last = number, place
        else:
            raise ValueError(
                f"found that {event.size} bytes at {event.address:#x} came back, expected a block that lives there: "
                "the history is not whole; record all events from the first step on"
            )
        number += 1
    if passed != len(marks):
        raise ValueError(f"found {passed} sentinels in the history, expected {len(marks)}: one for each mark")
    return History(blocks, [event.seconds for event in events], first)


def is_sentinel(events: Sequence[Event], number: int) -> bool:
    """Whether event `number` and the next one stand for a mark."""
    if number + 1 >= len(events):
        return False
    given, back = events[number], events[number + 1]
    sizes = given.size == back.size == SENTINEL_BYTES
    return sizes and (given.kind, back.kind) == ("alloc", "free") and given.address == back.address


def _mark(marks: Sequence[Mark], passed: int) -> Mark:
    if passed >= len(marks):
        raise ValueError(f"found more than {passed} sentinels in the history, expected one for each mark")
    return marks[passed]
