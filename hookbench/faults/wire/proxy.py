"""The proxy: its links, its rules, and the control socket over which both are asked about.

The control socket takes one JSON object a line and answers each with one: ``{"ok": true, ...}`` or
``{"ok": false, "error": "..."}``. Verbs: ``add`` (``rule``; answers ``id``), ``remove`` (``id``),
``stats`` (answers ``stats``), ``heal`` (answers ``removed`` and ``closed``) and ``stop``. A
``number`` in a request stands in its answer too.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from hookbench.clock import Clock
from hookbench.errors import FaultError
from hookbench.faults.wire.link import LOOPBACK, Link
from hookbench.faults.wire.model import OPAQUE, LinkSettings, ProxyStats
from hookbench.faults.wire.rules import ActiveRule, nearest, parse_rule

__all__ = ["MAX_LINE_BYTES", "MAX_PATH_BYTES", "PROTOCOLS", "Proxy"]

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longest line on the control socket: the statistics of all rules with all their hits."""

MAX_RULES = 1000
"""Rules in the life of a proxy, for each is kept with its counts."""

MAX_PATH_BYTES = 100
"""Of a unix socket's path; the kernel's limit is 107 on Linux and 103 on macOS."""

PROTOCOLS = ("resp", "nats", OPAQUE)


class Proxy:
    """Runs until it is asked to stop.

    Args:
        links: at least one, with distinct names.
        control: path of the unix socket.
        clock: times of everything.
        announce: is told ``{"event": "listening", ...}`` when clients can connect.

    Raises:
        FaultError: links or path cannot be used.
    """

    def __init__(
        self,
        links: list[LinkSettings],
        control: Path,
        *,
        clock: Clock,
        announce: Callable[[dict[str, Any]], None],
    ) -> None:
        self._clock = clock
        self._control = control
        self._announce = announce
        self._links: dict[str, Link] = {}
        self._rules: dict[int, ActiveRule] = {}
        self._stop = asyncio.Event()
        for settings in links:
            if settings.protocol not in PROTOCOLS:
                raise FaultError(
                    f"protocol {settings.protocol!r}{nearest(settings.protocol, PROTOCOLS)}: use"
                    f" {', '.join(PROTOCOLS[:-1])} or {PROTOCOLS[-1]}"
                )
            if settings.name in self._links:
                raise FaultError(f"two links named {settings.name!r}: name them with --name")
            self._links[settings.name] = Link(settings, clock)
        if not self._links:
            raise FaultError("no link: give --listen, --upstream and --protocol")
        if len(str(control).encode()) > MAX_PATH_BYTES:
            raise FaultError(f"control socket {control}: use a path of at most {MAX_PATH_BYTES}")

    def request_stop(self) -> None:
        """Close everything and end."""
        self._stop.set()

    async def run(self) -> None:
        """Listen until asked to stop.

        Raises:
            FaultError: a port or the control socket cannot be had.
        """
        server = None
        try:
            ports = {name: await link.listen() for name, link in self._links.items()}
            try:
                server = await asyncio.start_unix_server(
                    self._converse, self._control, limit=MAX_LINE_BYTES
                )
            except OSError as error:
                raise FaultError(f"control socket {self._control}: {error}") from error
            self._announce(
                {
                    "event": "listening",
                    "host": LOOPBACK,
                    "ports": ports,
                    "control": str(self._control),
                }
            )
            await self._stop.wait()
        finally:
            if server is not None:
                server.close()
            for link in self._links.values():
                link.close()
            self._control.unlink(missing_ok=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            return  # who asked is gone, or sent a line without an end
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        number = None
        try:
            request = msgspec.json.decode(line)
            if not isinstance(request, dict):
                raise FaultError(f"request {request!r}: send an object with a verb")
            number = request.get("number")
            return {"ok": True, "number": number, **await self._do(request)}
        except msgspec.DecodeError as error:
            text = f"request {line[:80]!r}: {error}"
        except FaultError as error:
            text = str(error)
        return {"ok": False, "number": number, "error": text}

    async def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        verb = request.get("verb")
        if verb == "add":
            return {"id": await self.add(request.get("rule"))}
        if verb == "remove":
            await self.remove(request.get("id"))
            return {}
        if verb == "stats":
            return {"stats": self.stats()}
        if verb == "firings":
            return {"firings": self.firings(request.get("ids"))}
        if verb == "heal":
            return await self.heal()
        if verb == "stop":
            self.request_stop()
            return {}
        verbs = ("add", "remove", "stats", "firings", "heal", "stop")
        raise FaultError(
            f"verb {verb!r}{nearest(str(verb), verbs)}: use {', '.join(verbs[:-1])} or {verbs[-1]}"
        )

    async def add(self, data: Any) -> int:
        """Put a rule to work; its id.

        Raises:
            FaultError: see ``parse_rule`` and ``Link.add``.
        """
        rule = parse_rule(data, {name: link.protocol for name, link in self._links.items()})
        if len(self._rules) >= MAX_RULES:
            raise FaultError(f"{MAX_RULES} rules so far: start another proxy for more")
        number = len(self._rules) + 1
        active = ActiveRule(number, rule, self._clock)
        await self._links[rule.link].add(active)
        self._rules[number] = active
        return number

    async def remove(self, number: Any) -> None:
        """End a rule; its counts stay.

        Raises:
            FaultError: it never was, or was removed.
        """
        active = self._rules.get(number) if isinstance(number, int) else None
        if active is None or active.removed:
            standing = [str(key) for key, rule in self._rules.items() if not rule.removed]
            raise FaultError(f"no rule {number!r}; at work are {', '.join(standing) or 'none'}")
        await self._links[active.rule.link].remove(active)

    async def heal(self) -> dict[str, int]:
        """End all rules and close half-open connections, so that clients reconnect."""
        standing = [rule for rule in self._rules.values() if not rule.removed]
        for rule in standing:
            await self._links[rule.rule.link].remove(rule)
        closed = sum(link.close_half_open() for link in self._links.values())
        return {"removed": len(standing), "closed": closed}

    def firings(self, numbers: Any) -> int:
        """How often some rules have fired: a look at few of them, which is made often.

        Raises:
            FaultError: one of them never was.
        """
        if not isinstance(numbers, list):
            raise FaultError(f"ids {numbers!r}: send a list of numbers")
        for number in numbers:
            if not isinstance(number, int) or number not in self._rules:
                raise FaultError(f"no rule {number!r}; there are {len(self._rules)}")
        return sum(self._rules[number].stats.firings for number in numbers)

    def stats(self) -> ProxyStats:
        """What every link and every rule counted."""
        return ProxyStats(
            now_ns=self._clock.monotonic_ns(),
            links=[link.counted() for link in self._links.values()],
            rules=[rule.stats for rule in self._rules.values()],
        )
