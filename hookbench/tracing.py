"""OpenTelemetry spans of puts and executions, whose context travels with the task.

The context (W3C ``traceparent``) is a key of the task's ``payload``, the one part of the guide's
JSON that is open: an unknown field beside ``payload`` is refused by readers that are strict, as
this one. So it goes wherever the task goes: over both brokers, through an outbox, into a dead
letter, and back. On NATS it is a header as well, where others look for it. The same bytes go to
both brokers, as without it. With tracing off nothing of all this is there.

Attributes are those of https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/.
OpenTelemetry is an optional dependency (``hookbench[otel]``), imported when it is asked for.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from hookbench.errors import SettingError
from hookbench.ledger.events import Broker
from hookbench.task import HookTask, Names
from hookbench.trace_context import TRACEPARENT

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from hookbench.migration.producer import Receipt, ReceiveSyncService
    from hookbench.migration.received import Received

__all__ = ["Tracing", "open_tracing"]

LAST_SEND_S = 5.0
_SYSTEMS = {Broker.REDIS: "redis", Broker.NATS: "nats", Broker.MEMORY: "memory"}


class Tracing:
    """Spans of one process.

    Args:
        provider: where they go.
        names: of the queue.
        version: of the program.
    """

    def __init__(self, provider: "TracerProvider", *, names: Names, version: str) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - an optional dependency
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - likewise
            TraceContextTextMapPropagator,
        )

        self._provider = provider
        self._tracer = provider.get_tracer("hookbench", version)
        self._kinds = trace.SpanKind
        self._propagator = TraceContextTextMapPropagator()
        self._names = names

    async def send(
        self, service: "ReceiveSyncService", task: HookTask, *, intended_ns: int = 0
    ) -> "Receipt":
        """``service.send`` in a span of its own, which the task carries along.

        Raises:
            OversizeError, SendError: see ``ReceiveSyncService.send``.
        """
        with self._tracer.start_as_current_span(
            f"send {self._names.subject(task.task_type)}",
            context=self._context(task),
            kind=self._kinds.PRODUCER,
            attributes=self._described(task, "send") | {"hookbench.route": service.route.value},
        ):
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier)
            traced = msgspec.structs.replace(task, payload=task.payload | carrier)
            return await service.send(traced, intended_ns=intended_ns)

    @contextlib.contextmanager
    def processing(self, item: "Received") -> Iterator[None]:
        """A span of an execution, a child of the put; an exception is its status."""
        task = item.task
        if task is None:
            yield
            return
        broker = item.delivery.broker
        attributes = self._described(task, "process")
        attributes["messaging.system"] = _SYSTEMS[broker]
        attributes["messaging.message.body.size"] = len(item.delivery.payload)
        attributes["hookbench.attempt"] = item.attempt
        if broker is Broker.NATS:
            consumer = self._names.consumer_of(task.task_type)
            attributes["messaging.consumer.group.name"] = consumer
        with self._tracer.start_as_current_span(
            f"process {self._names.subject(task.task_type)}",
            context=self._context(task),
            kind=self._kinds.CONSUMER,
            attributes=attributes,
        ):
            yield

    def close(self) -> None:
        """Send what is left, for ``LAST_SEND_S`` at the most: no process stays for its spans.

        By itself OpenTelemetry would try an endpoint that is away for half a minute.
        """
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(LAST_SEND_S)

    def _context(self, task: HookTask) -> Any:
        """What the task carries; of one that carries nothing the present one."""
        return self._propagator.extract({TRACEPARENT: str(task.payload.get(TRACEPARENT, ""))})

    def _described(self, task: HookTask, operation: str) -> dict[str, str | int]:
        return {
            "messaging.destination.name": self._names.subject(task.task_type),
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.message.id": str(task.id),
            "hookbench.repository": task.repo_id,
        }


def open_tracing(url: str, *, role: str, names: Names, version: str) -> Tracing:
    """Spans that go in batches to an OTLP endpoint, by a thread; ``OTEL_*`` variables count.

    What an endpoint does not take in time is dropped: no task waits for it.

    Args:
        url: as ``http://127.0.0.1:4318/v1/traces``.
        role: ``worker`` or ``producer``.
        names: of the queue.
        version: of the program.

    Raises:
        SettingError: OpenTelemetry is not installed, or the URL is none.
    """
    if not url.startswith(("http://", "https://")):
        raise SettingError(f"--traces {url!r}: use a URL, as in http://127.0.0.1:4318/v1/traces")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise SettingError(
            f"--traces needs OpenTelemetry ({error.name} is not there): install hookbench[otel]"
        ) from error
    resource = Resource.create({"service.name": f"hookbench-{role}", "service.version": version})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return Tracing(provider, names=names, version=version)
