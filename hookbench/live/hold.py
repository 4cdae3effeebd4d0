"""One operator at a time: who carries a move out holds the places that it tells.

A hold is kept where the place is, so that it is seen from every machine that can tell a phase
there. On a broker it is a lease, renewed while its operator runs: that of an operator who died ends
by itself after ``LEASE_S``, and at once where the next one is called on the same machine and finds
that process gone. A file is locked (flock), which ends with the process.

An operator may be stopped, or cut off, for longer than its lease, while another one takes the place
and lets it go again. So the place keeps who took it last, and a phase is written on the condition
that it is still the writer, which the broker checks (a fencing token,
https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html). Moves of tasks are no
single write: they are fenced by time, see ``assure``.
"""

import asyncio
import getpass
import os
import socket
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hookbench.clock import NS_PER_S, Clock
from hookbench.decoding import decode_json
from hookbench.errors import BrokerUnreachableError, PlaceHeldError
from hookbench.ids import Entropy, system_entropy
from hookbench.ledger.boot import boot_id
from hookbench.live.boards import Boards
from hookbench.live.places import FILE, Place

__all__ = ["Hold", "Operator", "this_operator"]

_RENEWED_IN_A_LEASE = 3
_SAME_START_S = 1.0
_TOKEN_BITS = 64
_T = TypeVar("_T")


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """Who carries a move out, as a place keeps it.

    Attributes:
        user, host, pid: for a person to find the process.
        machine: one start of a machine and one space of process ids: what a pid is valid in.
        started_s: when the process was started, since another one may get its pid.
        move: as in ``dual_write to dual_read``.
        token: one process may take a place twice, and the first time is over then.
    """

    user: str
    host: str
    pid: int
    machine: str
    started_s: float
    move: str
    token: str = ""

    @property
    def text(self) -> str:
        """For an error."""
        return f"{self.user} on {self.host}, process {self.pid} ({self.move})"


def this_operator(move: str, entropy: Entropy | None = None) -> Operator:
    """The process that asks; its token is drawn from the entropy, by default the system's."""
    import psutil  # noqa: PLC0415 - only who carries a move out pays for it

    process = psutil.Process()
    return Operator(
        user=_user(),
        host=socket.gethostname(),
        pid=process.pid,
        machine=_machine(),
        started_s=process.create_time(),
        move=move,
        token=f"{(entropy or system_entropy()).getrandbits(_TOKEN_BITS):x}",
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"user {os.getuid()}"


def _machine() -> str:
    """Two containers have each a process of every low number: their ids are spaces apart."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{socket.gethostname()} {boot_id().hex()} {space}"


def _has_ended(operator: Operator, mine: Operator) -> bool:
    """Whether it is known that a process is gone: only of one on the same machine."""
    import psutil  # noqa: PLC0415 - likewise

    if operator.machine != mine.machine:
        return False
    if not psutil.pid_exists(operator.pid):
        return True
    try:
        started_s = psutil.Process(operator.pid).create_time()
    except psutil.Error:  # of another user, and hidden from this one
        return False
    return bool(abs(started_s - operator.started_s) > _SAME_START_S)


class Hold:
    """The places of one move, held by one operator from ``take`` to ``let_go``.

    Args:
        boards: where the places are.
        places: all that the move tells.
        operator: who holds them.
        clock: for the renewals.
        by_force: whoever holds a place is displaced, and ends before it tells a phase.
    """

    def __init__(
        self,
        boards: Boards,
        places: Iterable[Place],
        operator: Operator,
        *,
        clock: Clock,
        by_force: bool = False,
    ) -> None:
        self._boards = boards
        # In one order for everybody: of two that begin at once one gets all.
        self._places = sorted(places, key=lambda place: place.text)
        self._operator = operator
        self._data = msgspec.json.encode(operator)
        self._clock = clock
        self._by_force = by_force
        self._lease_ns = int(boards.lease_s * NS_PER_S)
        self._held: dict[Place, int] = {}
        """Since when the lease of a place runs, at the latest."""

    async def take(self) -> None:
        """Hold all places, or none.

        Raises:
            PlaceHeldError: another operator holds one; the text names the operator.
            BrokerUnreachableError: a board does not answer.
        """
        try:
            for place in self._places:
                asked_ns = self._clock.monotonic_ns()
                await self._take(place)
                self._held[place] = asked_ns
        except BaseException:
            await self.let_go()
            raise

    async def _take(self, place: Place) -> None:
        board = await self._boards.of(place)
        other = await board.hold(place.key, self._data)
        if other is not None and self._may_displace(place, other):
            other = await board.hold(place.key, self._data, instead_of=other)
        if other is not None:
            raise _held_by(place, other, self._boards.lease_s)

    def _may_displace(self, place: Place, other: bytes) -> bool:
        if self._by_force:
            return True
        # The lock of a file ends with its process: who seems gone has not written its name yet.
        found = None if place.kind == FILE else _decoded(other)
        return found is not None and _has_ended(found, self._operator)

    async def write(self, place: Place, data: bytes) -> None:
        """Tell a place its phase; nothing is written if it was taken by somebody else meanwhile.

        Nor if another place of the move was: a fleet is told by one operator.

        Raises:
            PlaceHeldError: it was.
            BrokerUnreachableError: its board does not answer.
        """
        await self.assure()
        board = await self._boards.of(place)
        other = await board.write(place.key, data, held_by=self._data)
        if other is not None:
            raise _lost_to(place, other)

    async def assure(self) -> None:
        """Go on only while no other operator can have taken a place; before each move of a task.

        As long as every lease runs nobody can. One that may have ended is renewed first, which
        fails where somebody took the place.

        Raises:
            PlaceHeldError: it has gone to another operator, since this one was away for too long.
            BrokerUnreachableError: its board does not answer.
        """
        for place, since_ns in list(self._held.items()):
            if self._clock.monotonic_ns() - since_ns >= self._lease_ns:
                await self._renew(place)

    async def _renew(self, place: Place) -> None:
        asked_ns = self._clock.monotonic_ns()
        board = await self._boards.of(place)
        other = await board.renew(place.key, self._data)
        if other is not None:
            raise _lost_to(place, other)
        self._held[place] = asked_ns

    async def during(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Renew while ``work`` goes on; it is cancelled when a place has gone to somebody else.

        A broker that is away is waited for, as the work does, and the hold is renewed when it is
        back.

        Raises:
            PlaceHeldError: likewise.
        """
        working = asyncio.ensure_future(work)
        renewing = asyncio.ensure_future(self._renew_all())
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                working.cancel()
                await asyncio.wait({working})
                renewing.result()
            return working.result()
        finally:
            for task in (working, renewing):
                task.cancel()
            await asyncio.gather(working, renewing, return_exceptions=True)

    async def _renew_all(self) -> None:
        while True:
            await self._clock.sleep(self._boards.lease_s / _RENEWED_IN_A_LEASE)
            for place in list(self._held):
                # The work says so, where it needs that broker.
                with suppress(BrokerUnreachableError):
                    await self._renew(place)

    async def let_go(self) -> None:
        """The next operator may come; a broker that is away forgets the hold by itself."""
        while self._held:
            place, _since_ns = self._held.popitem()
            board = await self._boards.of(place)
            with suppress(BrokerUnreachableError):
                await board.let_go(place.key, self._data)


def _decoded(data: bytes) -> Operator | None:
    """Whoever may tell a phase may write anything there."""
    try:
        return decode_json(data, Operator)
    except msgspec.MsgspecError:
        return None


def _held_by(place: Place, data: bytes, lease_s: float) -> PlaceHeldError:
    who = _who(data)
    after = "with it" if place.kind == FILE else f"{lease_s:.0f} s after it"
    return PlaceHeldError(
        f"{place.text} is held by another operator: {who}; wait until that one is done, or end"
        f" that process: its hold is gone {after}",
        step="hold_places",
        evidence=f"{place.text} is held by {who}",
    )


def _lost_to(place: Place, data: bytes) -> PlaceHeldError:
    who = _who(data)
    return PlaceHeldError(
        f"{place.text} was taken by another operator while this one was stopped or cut off: {who};"
        f" nothing more is done here: see hookbench phase show {place.text} before you begin again",
        step="hold_places",
        evidence=f"{place.text} was taken by {who}",
    )


def _who(data: bytes) -> str:
    operator = _decoded(data)
    return "somebody who does not say who it is" if operator is None else operator.text
