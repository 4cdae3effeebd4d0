"""Processes that follow phase files, and say what they are in files of JSON lines."""

from collections.abc import Sequence
from pathlib import Path

from hookbench.errors import SettingError
from hookbench.migration.announcements import read_announced
from hookbench.migration.phases import Phase, PhaseFile
from hookbench.migration.snapshot import Announcement

__all__ = ["FileFleet"]


class FileFleet:
    """A fleet that somebody else started, as a procedure tells it its phase.

    Args:
        producers, workers: the phase files that these watch; several processes may share one, but
            a producer none with a worker, for the one is rerouted before the other.
        announced: what they print with ``--json``: files, or folders of ``*.jsonl``.

    Raises:
        SettingError: a role has no phase file, or two roles share one.
    """

    def __init__(
        self, *, producers: Sequence[Path], workers: Sequence[Path], announced: Sequence[Path]
    ) -> None:
        self._files = {
            role: [PhaseFile(path) for path in dict.fromkeys(paths)]
            for role, paths in (("producer", producers), ("worker", workers))
        }
        for role, files in self._files.items():
            if not files:
                raise SettingError(f"no phase file of a {role}: nobody can be told to change")
        shared = {path.resolve() for path in producers} & {path.resolve() for path in workers}
        if shared:
            raise SettingError(
                f"phase file {min(shared)}: of producers and of workers; start them with one each,"
                " for the one is rerouted before the other"
            )
        self._announced = announced

    async def enter(self, role: str, phase: Phase) -> None:
        """Write the files that say another phase; to tell it twice is to tell it once.

        Raises:
            SettingError: a phase file is missing or holds something else.
        """
        steps = [file.read() for files in self._files.values() for file in files]
        newest = max(index for index, _phase in steps)
        # Both roles are to be in the same step, and so are those that a killed procedure left out.
        index = newest if (newest, phase) in steps else newest + 1
        for file in self._files[role]:
            if file.read()[1] is not phase:
                file.write(index, phase)

    async def not_in(self, role: str, phase: Phase) -> list[str]:
        """Those that last announced another phase."""
        return [
            item.name
            for item in self.announcements()
            if item.role == role and item.phase is not phase
        ]

    def announcements(self) -> list[Announcement]:
        """Of all that have not stopped.

        Raises:
            SettingError: see ``read_announced``.
        """
        return list(read_announced(self._announced))
