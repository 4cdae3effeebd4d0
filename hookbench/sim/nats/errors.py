"""What JetStream answers where it refuses."""

from typing import Any

__all__ = ["StreamError"]


class StreamError(Exception):
    """An error of the API.

    Args:
        code: as of HTTP.
        error_code: JetStream's own, such as 10059.
        description: for a person.
    """

    def __init__(self, code: int, error_code: int, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.error_code = error_code

    def told(self) -> dict[str, Any]:
        """As it stands in an answer."""
        return {"code": self.code, "err_code": self.error_code, "description": str(self)}
