"""``hookbench secrets``: passwords for docker-compose.yml."""

from pathlib import Path
from typing import Annotated

import typer

from hookbench.cli.options import JsonOutput, announce_json

__all__ = ["secrets"]


def secrets(
    file: Annotated[Path, typer.Argument(help="Where to: Compose reads .env by itself.")] = Path(
        ".env"
    ),
    json: JsonOutput = False,
) -> None:
    """Make the file of passwords that docker-compose.yml needs, with mode 0600.

    A file that is there is kept; one that lacks a name is an error.

    Example: hookbench secrets .env
    """
    from hookbench.brokers.passwords import NAMES, write_passwords

    made = write_passwords(file)
    if json:
        announce_json({"file": str(file), "made": made, "names": list(NAMES)})
        return
    print(f"{'made' if made else 'kept'} {file}: {len(NAMES)} passwords, for docker compose up")
