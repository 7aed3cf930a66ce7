"""COMPARE AND WRITE of several initiators on one sector: is there one order in which all of it makes sense?

Every content is written by one request only, so the contents that a sector has had form a chain, from
the first to the last one, which is read in the end. The requests are linearizable if all that were
acknowledged are links of the chain, in an order that agrees with the time at which they were under way,
and if every read and every miscompare fits into it.
"""

from dataclasses import dataclass, field
from typing import Final

from tests.sim.history import HistoryError, explain

_NEVER: Final = 1 << 60


@dataclass(eq=False)
class Swap:
    """One COMPARE AND WRITE.

    Attributes:
        old: The content that the sector has to have.
        new: The content that it has then.
        began: A time.
        ended: Likewise; a request whose fate is not known may take effect at any later time.
        outcome: True if it was acknowledged, False after a miscompare, None if its fate is not known.
    """

    old: bytes
    new: bytes
    began: int
    ended: int = _NEVER
    outcome: bool | None = None


@dataclass(eq=False)
class Seen:
    """One read: the content, and the times between which it was read."""

    content: bytes
    began: int
    ended: int


@dataclass
class Cell:
    """A sector that is changed by COMPARE AND WRITE only.

    Attributes:
        first: Its content at first.
    """

    first: bytes
    _clock: int = 0
    _swaps: list[Swap] = field(default_factory=list)
    _reads: list[Seen] = field(default_factory=list)

    def tick(self) -> int:
        """Return a time later than all before."""
        self._clock += 1
        return self._clock

    def begin(self, old: bytes, new: bytes) -> Swap:
        """Note that a request is sent; `new` is no other request's."""
        self._swaps.append(Swap(old, new, self.tick()))
        return self._swaps[-1]

    def end(self, swap: Swap, outcome: bool | None) -> None:
        """Note the answer to a request."""
        swap.outcome = outcome
        if outcome is not None:
            swap.ended = self.tick()

    def saw(self, content: bytes, began: int) -> None:
        """Note that a read which was sent at `began` has returned `content`."""
        self._reads.append(Seen(content, began, self.tick()))

    def judge(self, last: bytes) -> None:
        """Judge all requests, when nothing is under way any more.

        Args:
            last: The content of the sector.

        Raises:
            HistoryError: They are not linearizable.
        """
        chain = self._chain(last)
        for swap in self._swaps:
            if swap.outcome and swap not in chain:
                raise HistoryError(f"a COMPARE AND WRITE was acknowledged and has no effect: {_said(swap)}")
        latest = 0
        for swap in chain:
            if swap.ended < latest:
                raise HistoryError(f"a COMPARE AND WRITE came after one that began later: {_said(swap)}")
            latest = max(latest, swap.began)
        self._judge_answers(chain)

    def _judge_answers(self, chain: list[Swap]) -> None:
        """Judge reads and miscompares by the time at which each content was there."""
        places = {self.first: 0, **{swap.new: place for place, swap in enumerate(chain, 1)}}
        for read in self._reads:
            if read.content not in places:
                raise HistoryError(f"a read returned {explain(read.content)}, which is not there any more")
            since, until = self._while(chain, places[read.content])
            if until.ended < read.began or since.began > read.ended:
                raise HistoryError(f"a read returned {explain(read.content)}, which was not there then")
        for swap in self._swaps:
            if swap.outcome is False and swap.old in places:
                since, until = self._while(chain, places[swap.old])
                if since.ended < swap.began and until.began > swap.ended:
                    raise HistoryError(f"a miscompare, although the content was there: {_said(swap)}")

    def _chain(self, last: bytes) -> list[Swap]:
        """Return the requests that took effect, in their order."""
        made_by = {swap.new: swap for swap in self._swaps if swap.outcome is not False}
        chain: list[Swap] = []
        while last != self.first:
            if last not in made_by:
                raise HistoryError(f"a sector has {explain(last)}, which no COMPARE AND WRITE has written")
            chain.append(made_by.pop(last))
            last = chain[-1].old
        return chain[::-1]

    def _while(self, chain: list[Swap], place: int) -> tuple[Swap, Swap]:
        """Return the requests that brought and took away the content at a place of the chain."""
        at_first, at_last = Swap(b"", b"", -1, -1), Swap(b"", b"", _NEVER)
        since = chain[place - 1] if place else at_first
        return since, chain[place] if place < len(chain) else at_last


def _said(swap: Swap) -> str:
    return f"{explain(swap.old)} to {explain(swap.new)}"
