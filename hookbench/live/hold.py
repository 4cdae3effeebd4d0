"""One operator at a time: who carries a move out holds the places that it tells.

A hold is kept where the place is, so that it is seen from every machine that can tell a phase
there. On a broker it is a lease, renewed while its operator runs: that of an operator who died ends
by itself after ``LEASE_S``, and at once where the next one is called on the same machine and finds
that process gone. A file is locked (flock), which ends with the process.
"""

import asyncio
import getpass
import os
import socket
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hookbench.clock import Clock
from hookbench.decoding import decode_json
from hookbench.errors import BrokerUnreachableError, PlaceHeldError
from hookbench.ledger.boot import boot_id
from hookbench.live.boards import Boards
from hookbench.live.places import LEASE_S, Place

__all__ = ["Hold", "Operator", "this_operator"]

_RENEWED_IN_A_LEASE = 3
_SAME_START_S = 1.0
_T = TypeVar("_T")


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """Who carries a move out, as a place keeps it.

    Attributes:
        user, host, pid: for a person to find the process.
        machine: one start of a machine and one space of process ids: what a pid is valid in.
        started_s: when the process was started, since another one may get its pid.
        move: as in ``dual_write to dual_read``.
    """

    user: str
    host: str
    pid: int
    machine: str
    started_s: float
    move: str

    @property
    def text(self) -> str:
        """For an error."""
        return f"{self.user} on {self.host}, process {self.pid} ({self.move})"


def this_operator(move: str) -> Operator:
    """The process that asks."""
    import psutil  # noqa: PLC0415 - only who carries a move out pays for it

    process = psutil.Process()
    return Operator(
        user=_user(),
        host=socket.gethostname(),
        pid=process.pid,
        machine=_machine(),
        started_s=process.create_time(),
        move=move,
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
    """

    def __init__(
        self, boards: Boards, places: Iterable[Place], operator: Operator, *, clock: Clock
    ) -> None:
        self._boards = boards
        # In one order for everybody: of two that begin at once one gets all.
        self._places = sorted(places, key=lambda place: place.text)
        self._operator = operator
        self._data = msgspec.json.encode(operator)
        self._clock = clock
        self._held: list[Place] = []

    async def take(self) -> None:
        """Hold all places, or none.

        Raises:
            PlaceHeldError: another operator holds one; the text names the operator.
            BrokerUnreachableError: a board does not answer.
        """
        try:
            for place in self._places:
                await self._take(place)
                self._held.append(place)
        except BaseException:
            await self.let_go()
            raise

    async def _take(self, place: Place) -> None:
        board = await self._boards.of(place)
        other = await board.hold(place.key, self._data)
        found = None if other is None else _decoded(other)
        if found is not None and _has_ended(found, self._operator):
            other = await board.hold(place.key, self._data, instead_of=other)
        if other is not None:
            raise _held_by(place, other)

    async def assure(self, place: Place) -> None:
        """Renew the hold on a place that is about to be told something.

        Raises:
            PlaceHeldError: it has gone to another operator, since this one was away for too long.
        """
        board = await self._boards.of(place)
        other = await board.hold(place.key, self._data, instead_of=self._data)
        if other is not None:
            raise _held_by(place, other)

    async def during(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Renew while ``work`` goes on; it is cancelled when a place has gone to somebody else.

        A broker that is away is waited for, as the work does: nobody else can hold its places
        meanwhile, and the hold is taken again when it is back.

        Raises:
            PlaceHeldError: likewise.
        """
        working = asyncio.ensure_future(work)
        renewing = asyncio.ensure_future(self._renew())
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

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(LEASE_S / _RENEWED_IN_A_LEASE)
            for place in self._held:
                try:
                    await self.assure(place)
                except BrokerUnreachableError:  # the work says so, where it needs that broker
                    continue

    async def let_go(self) -> None:
        """The next operator may come; a broker that is away forgets the hold by itself."""
        while self._held:
            place = self._held.pop()
            board = await self._boards.of(place)
            try:
                await board.let_go(place.key, self._data)
            except BrokerUnreachableError:
                continue


def _decoded(data: bytes) -> Operator | None:
    """Whoever may tell a phase may write anything there."""
    try:
        return decode_json(data, Operator)
    except msgspec.MsgspecError:
        return None


def _held_by(place: Place, data: bytes) -> PlaceHeldError:
    operator = _decoded(data)
    who = "somebody who does not say who it is" if operator is None else operator.text
    return PlaceHeldError(
        f"{place.text} is held by another operator: {who}; wait until that move is done, or end"
        f" that process: its hold is gone {LEASE_S:.0f} s after it",
        step="hold_places",
        evidence=f"{place.text} is held by {who}",
    )
