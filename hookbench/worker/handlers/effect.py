"""Synthetic handlers of each class: a service time, then one effect in the effect store."""

from hookbench.effects.classes import Execution, HandlerClass, mark_of, parse_handler_class
from hookbench.effects.store import EffectStore
from hookbench.errors import SettingError
from hookbench.ledger.events import Event, NullRecorder, Recorder
from hookbench.task import HookTask
from hookbench.worker.loop import Handler

__all__ = ["EffectHandler", "class_of_task"]


class EffectHandler:
    """Does ``service``, then has the effect that the task's class asks for.

    The class is the second component of the task's repository: ``synthetic/plain/repo-7``. The
    effect is in the store when the handler returns, and the ledger's ``effect`` comes after it,
    so that a worker killed between the two has had its effect.
    """

    def __init__(
        self, store: EffectStore, service: Handler, *, recorder: Recorder | None = None
    ) -> None:
        self._store = store
        self._service = service
        self._recorder = recorder or NullRecorder()

    async def __call__(self, task: HookTask, execution: Execution) -> None:
        """Serve, then have the effect.

        Raises:
            SettingError: the repository names no handler class.
            EffectStoreError: the store cannot be written, or the token is stale.
        """
        handler_class = class_of_task(task)
        await self._service(task, execution)
        key = task.id.bytes
        if handler_class is HandlerClass.PLAIN:
            self._store.append(key, execution)
        elif handler_class is HandlerClass.IDEMPOTENT:
            self._store.set_state(key, execution, mark_of(key))
        elif not self._store.apply_once(key, execution):
            return
        self._recorder.record(
            Event.EFFECT, key, value=int(handler_class), attempt=execution.attempt
        )


def class_of_task(task: HookTask) -> HandlerClass:
    """The class that the repository of a synthetic task names.

    Raises:
        SettingError: it names none.
    """
    parts = task.repo_id.split("/")
    if len(parts) != 3:  # noqa: PLR2004 - synthetic, class, repository
        raise SettingError(
            f"repository {task.repo_id!r}: a synthetic task names its handler class as in"
            " synthetic/plain/repo-7"
        )
    return parse_handler_class(parts[1])
