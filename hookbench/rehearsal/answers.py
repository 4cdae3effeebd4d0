"""Stored answers of ``hookbench capacity``."""

from pathlib import Path

import msgspec

from hookbench.decoding import decode_json, read_document
from hookbench.errors import ResultsError
from hookbench.rehearsal.capacity import CAPACITY_SCHEMA, CapacityAnswer

__all__ = ["load_answers"]


def load_answers(folder: str | Path) -> list[CapacityAnswer]:
    """The answers in a folder, by label: its JSON files, those of kept runs below it not.

    Raises:
        ResultsError: there is no such folder, no answer in it, or a file is none, or of a newer
            version.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ResultsError(f"answers {place}: no such folder; hookbench capacity --out makes one")
    answers = []
    for path in sorted(place.glob("*.json")):
        try:
            data = read_document(path)
            schema = decode_json(data, _SchemaOnly).schema
            if schema > CAPACITY_SCHEMA:
                raise ResultsError(
                    f"answer {path}: schema {schema}, this version reads up to {CAPACITY_SCHEMA};"
                    " use the hookbench that wrote it, or a newer one"
                )
            answers.append(decode_json(data, CapacityAnswer))
        except (OSError, msgspec.MsgspecError) as error:
            raise ResultsError(
                f"answer {path}: {error}; remove it, or hookbench capacity makes it anew"
            ) from error
    if not answers:
        raise ResultsError(
            f"answers {place}: no JSON file in it; hookbench capacity --out {place} makes one"
        )
    return sorted(answers, key=lambda item: item.label)


class _SchemaOnly(msgspec.Struct):
    schema: int = 1  # of answers from before there was one
