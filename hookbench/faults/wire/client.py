"""A run's hold on the proxy that it started."""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from hookbench.brokers.process import Child, spawn
from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import FaultError
from hookbench.faults.wire.link import LOOPBACK
from hookbench.faults.wire.model import LinkSettings, ProxyStats, Rule
from hookbench.faults.wire.proxy import MAX_LINE_BYTES, MAX_PATH_BYTES

__all__ = ["ProxyControl", "start_proxy"]

START_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 10.0
_END_PATIENCE_S = 1.0
_POLL_S = 0.02
_TAIL_CHARACTERS = 800


class ProxyControl:
    """Asks a running proxy; made by ``start_proxy``.

    Attributes:
        ports: of each link, by name.

    Every method raises ``FaultError`` when the proxy refuses, with its reason, or when it is gone,
    with the end of its log.
    """

    def __init__(self, child: Child, log: Path, folder: Path | None, ports: dict[str, int]) -> None:
        self.ports = ports
        self._child = child
        self._log = log
        self._folder = folder
        self._number = 0
        self._lock = asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def pid(self) -> int:
        """Process id of the proxy."""
        return self._child.pid

    def url(self, link: str) -> str:
        """``redis://127.0.0.1:…`` or ``nats://127.0.0.1:…``, for a link named after its broker."""
        if link not in self.ports:
            raise FaultError(f"no link {link!r}; there are {', '.join(self.ports)}")
        return f"{link}://{LOOPBACK}:{self.ports[link]}"

    def check_alive(self) -> None:
        """Raise ``FaultError`` when the proxy has ended by itself."""
        code = self._child.exit_code
        if code is not None:
            raise self._gone(_how_it_ended(code))

    async def connect(self, control: Path) -> None:
        """Open the control socket."""
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(
                control, limit=MAX_LINE_BYTES
            )
        except OSError as error:
            raise self._gone(f"does not listen on {control}: {error}") from error

    async def add(self, rule: Rule) -> int:
        """Put a rule to work; its id."""
        answer = await self._ask({"verb": "add", "rule": rule})
        return msgspec.convert(answer["id"], int)

    async def remove(self, number: int) -> None:
        """End a rule: what it holds back goes on."""
        await self._ask({"verb": "remove", "id": number})

    async def stats(self) -> ProxyStats:
        """What every link and every rule counted, removed rules included."""
        answer = await self._ask({"verb": "stats"})
        return msgspec.convert(answer["stats"], ProxyStats)

    async def firings(self, numbers: Sequence[int]) -> int:
        """How often some rules have fired, all together."""
        answer = await self._ask({"verb": "firings", "ids": list(numbers)})
        return msgspec.convert(answer["firings"], int)

    async def heal(self) -> int:
        """End all rules and close half-open connections; how many rules ended."""
        answer = await self._ask({"verb": "heal"})
        return msgspec.convert(answer["removed"], int)

    async def stop(self) -> None:
        """End the proxy and its connections.

        Raises:
            FaultError: it was gone already.
        """
        died = self._child.exit_code
        try:
            if self._writer is not None:
                self._writer.close()
            await asyncio.to_thread(self._child.stop)
        finally:
            _remove(self._folder)
        if died is not None:
            raise self._gone(_how_it_ended(died))

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        reader, writer = self._reader, self._writer
        if reader is None or writer is None:
            raise self._gone("has no control connection")
        async with self._lock:
            self.check_alive()
            self._number += 1
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    writer.write(msgspec.json.encode({"number": self._number, **request}) + b"\n")
                    await writer.drain()
                    answer = await self._answer(reader)
            except TimeoutError as error:
                raise self._gone(f"did not answer within {ANSWER_TIMEOUT_S} s") from error
            except OSError as error:
                raise await self._lost(f"does not answer: {error}") from error
        if not answer["ok"]:
            raise FaultError(answer["error"])
        return answer

    async def _answer(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        """To the last request; those to earlier ones that were given up are passed over."""
        while True:
            try:
                line = await reader.readline()
            except ValueError as error:
                raise self._gone(f"said more than {MAX_LINE_BYTES} bytes at once") from error
            if not line:
                raise await self._lost("closed its control connection")
            answer: dict[str, Any] = msgspec.json.decode(line)
            if answer["number"] == self._number:
                return answer

    async def _lost(self, how: str) -> FaultError:
        """Of a broken connection: a process that dies closes it a moment before it has ended."""
        code = await asyncio.to_thread(self._child.wait, _END_PATIENCE_S)
        return self._gone(how if code is None else _how_it_ended(code))

    def _gone(self, how: str) -> FaultError:
        return FaultError(f"the proxy (pid {self.pid}) {how}; the end of its log: {self._tail()!r}")

    def _tail(self) -> str:
        with contextlib.suppress(OSError):
            return self._log.read_text(errors="replace")[-_TAIL_CHARACTERS:].strip()
        return f"{self._log} cannot be read"


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _how_it_ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


async def start_proxy(folder: Path, links: list[LinkSettings], *, clock: Clock) -> ProxyControl:
    """Start a proxy that ends with this process.

    Call it on a thread that lives as long as the proxy should, see ``spawn``.

    Args:
        folder: for ``proxy.log`` and what it says on stdout, ``proxy.jsonl``.
        links: name one ``redis`` or ``nats`` for ``ProxyControl.url``.
        clock: for the deadline of the start.

    Raises:
        FaultError: it did not start; the text has the end of its log.
    """
    control, log, said = folder / "proxy.sock", folder / "proxy.log", folder / "proxy.jsonl"
    short = None
    if len(str(control).encode()) > MAX_PATH_BYTES:
        short = Path(tempfile.mkdtemp(prefix="hookbench-"))
        control = short / "proxy.sock"
    command = [sys.executable, "-m", "hookbench", "proxy", "--control", str(control)]
    for link in links:
        command += ["--name", link.name, "--protocol", link.protocol]
        command += ["--listen", f"{LOOPBACK}:{link.listen_port}"]
        command += ["--upstream", f"{LOOPBACK}:{link.upstream_port}"]
    with log.open("ab") as errors, said.open("wb") as output:
        child = spawn("proxy", command, output=errors, stdout=output)
    proxy = ProxyControl(child, log, short, {})
    try:
        proxy.ports = await _first_words(proxy, said, clock)
        await proxy.connect(control)
    except BaseException:
        child.kill()
        _remove(short)
        raise
    return proxy


async def _first_words(proxy: ProxyControl, said: Path, clock: Clock) -> dict[str, int]:
    """The ports, once it listens on them."""
    deadline_ns = clock.monotonic_ns() + int(START_TIMEOUT_S * NS_PER_S)
    while True:
        line, newline, _rest = (await asyncio.to_thread(said.read_bytes)).partition(b"\n")
        if newline:
            return msgspec.convert(json.loads(line)["ports"], dict[str, int])
        proxy.check_alive()
        if clock.monotonic_ns() > deadline_ns:
            raise FaultError(f"the proxy said nothing within {START_TIMEOUT_S} s: see {said}")
        await clock.sleep(_POLL_S)
