"""Workers whose work takes longer: a slow dependency."""

from hookbench.clock import Clock
from hookbench.effects.classes import Execution
from hookbench.errors import SettingError
from hookbench.faults.load_fault import LoadFault
from hookbench.faults.orders import OrderBook, SlowOrder
from hookbench.task import HookTask
from hookbench.worker.loop import Handler

__all__ = ["SlowHandler", "SlowedHandler"]

_MAX_SERVICE_MS = 600_000.0


class SlowHandler(LoadFault, frozen=True, kw_only=True, tag="slow_handler"):
    """Each execution of the workers takes ``service_ms`` longer, pushed tasks included."""

    service_ms: float

    @property
    def order(self) -> SlowOrder:
        """What the workers are told."""
        return SlowOrder(service_ms=self.service_ms)

    def check(self) -> None:
        """Refuse no time, or one beyond any rehearsal."""
        super().check()
        if not 0 < self.service_ms <= _MAX_SERVICE_MS:
            raise SettingError(
                f"fault {self.name}: service_ms {self.service_ms}: use more than 0 and up to"
                f" {_MAX_SERVICE_MS:.0f}"
            )


class SlowedHandler:
    """A handler that waits before it works, as long as it is told to."""

    def __init__(self, handler: Handler, book: OrderBook, clock: Clock) -> None:
        self._handler = handler
        self._book = book
        self._clock = clock

    async def __call__(self, task: HookTask, execution: Execution) -> None:
        """Wait, then work."""
        for number, order in self._book.of(SlowOrder):
            self._book.hit(number)
            await self._clock.sleep(order.service_ms / 1000)
        await self._handler(task, execution)
