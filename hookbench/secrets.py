"""What must not be shown: passwords and tokens in URLs, wherever a text carries one."""

import logging
import re

__all__ = ["HIDDEN", "MaskingFormatter", "has_secret", "log_to_stderr", "redact", "unreadable_url"]

HIDDEN = "***"
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_USER_INFO = re.compile(rf"({_SCHEME})[^/@\s]*@")
_FURTHER_NODE = re.compile(rf"({_SCHEME}\S*?,)(?!\*\*\*@)[^@/,\s]*@")
# Whoever forgot to percent-encode a password is not to read a part of it here: up to the last @.
_STRAY = re.compile(rf"({_SCHEME})(?!\*\*\*@)(?:(?!,{_SCHEME})[^\s'\"])*@")
_QUERY = re.compile(
    r"([?&](?:password|passwd|pass|token|username|user|jwt|secret)=)[^&\s'\"#,]*", re.IGNORECASE
)


def redact(text: str) -> str:
    """A text without what stands before the ``@`` of a URL, and without secrets in its query.

    The user goes as well: a token of NATS stands in its place (``nats://TOKEN@host``).
    """
    text = _USER_INFO.sub(rf"\g<1>{HIDDEN}@", text)
    further = -1
    while further:  # each node of a list is a match that begins where the list does
        text, further = _FURTHER_NODE.subn(rf"\g<1>{HIDDEN}@", text)
    return _QUERY.sub(rf"\g<1>{HIDDEN}", _STRAY.sub(rf"\g<1>{HIDDEN}@", text))


def has_secret(text: str) -> bool:
    """Whether ``redact`` hides something of it."""
    return redact(text) != text


def unreadable_url(broker: str, url: str) -> str:
    """What is said of a URL that cannot be read; the parser's own text may quote a password."""
    return (
        f"{broker} URL {redact(url)!r} cannot be read: use scheme://host:port, and percent-encode"
        " special characters of a user or password"
    )


class MaskingFormatter(logging.Formatter):
    """A formatter whose lines, tracebacks included, show no secret."""

    def format(self, record: logging.LogRecord) -> str:
        """As logging's, redact."""
        return redact(super().format(record))


def log_to_stderr(level: int) -> None:
    """As ``logging.basicConfig``, without secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(MaskingFormatter(LOG_FORMAT))
    logging.basicConfig(level=level, handlers=[handler])
