"""What an hour of CPU, an hour of memory and a written byte cost: a file that its user edits."""

import tomllib
from importlib import resources
from pathlib import Path

import msgspec

from hookbench.decoding import MAX_CONFIGURATION_BYTES, decode_toml, read_document
from hookbench.errors import SettingError

__all__ = ["Prices", "load_prices"]

_NAME = "prices.toml"
_AMOUNTS = ("vcpu_hour", "gib_hour", "gb_written")


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price table.

    Attributes:
        currency: of all amounts, a label.
        vcpu_hour: an hour of one virtual CPU that is busy.
        gib_hour: an hour of one GiB (2**30 bytes) of memory.
        gb_written: a GB (10**9 bytes) written to the disk.
        example: whether they are the examples that ship.
    """

    currency: str
    vcpu_hour: float
    gib_hour: float
    gb_written: float
    example: bool = False


def load_prices(path: str | Path | None = None) -> Prices:
    """The prices of a TOML file; without one the examples of ``hookbench/report/prices.toml``.

    Raises:
        SettingError: the file cannot be read, a price is missing, unknown, below zero or no number.
    """
    shipped = resources.files("hookbench.report") / _NAME
    name = str(shipped) if path is None else str(path)
    try:
        data = (
            shipped.read_bytes()
            if path is None
            else read_document(Path(path), MAX_CONFIGURATION_BYTES)
        )
        prices = msgspec.convert(decode_toml(data.decode()), Prices)
    except OSError as error:
        raise SettingError(
            f"prices {name}: {error.strerror}; copy {shipped} there and edit it"
        ) from error
    except (msgspec.MsgspecError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(
            f"prices {name}: {error}; use currency, {', '.join(_AMOUNTS)}, as in {shipped}"
        ) from error
    for amount in _AMOUNTS:
        value = getattr(prices, amount)
        if not 0 <= value < float("inf"):
            raise SettingError(f"prices {name}: {amount} = {value:g}; use 0 or more")
    if not prices.currency.strip():
        raise SettingError(f"prices {name}: currency is empty; use a name such as EUR")
    return msgspec.structs.replace(prices, example=prices.example or path is None)
