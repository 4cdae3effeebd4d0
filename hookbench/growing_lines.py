"""The lines of a file that another process appends to: each once, and only when it is whole."""

from pathlib import Path

__all__ = ["GrowingLines"]


class GrowingLines:
    """What was appended to a file since it was read last.

    Args:
        path: of the file; it may have lines already, which are new.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0

    def new(self) -> list[bytes]:
        """The lines since the last call, without their ends; none of a file that is not there."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        return whole.splitlines()
