"""What ``hookbench sim`` has left in its folder: as a table, as a story, as one object."""

from pathlib import Path
from typing import TypeVar

import msgspec
import pandas as pd

from hookbench.errors import ResultsError, SettingError
from hookbench.ledger.model import Verdict
from hookbench.sim.book import TOTALS_NAME, SearchTotals
from hookbench.sim.coverage import COVERED_STEPS, add_up
from hookbench.sim.replayed import REPLAYS_NAME, Replays

__all__ = [
    "Search",
    "conformance_table",
    "coverage_of",
    "found_table",
    "identify_search",
    "load_search",
    "searches_table",
    "story_text",
]

STORY_NAME = "story.txt"
Kind = TypeVar("Kind")


class _Proof(msgspec.Struct, frozen=True):
    """As much of a proof's file as is shown here."""

    figures: dict[str, float | str | dict[str, float | str]]


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of ``hookbench sim``.

    Attributes:
        totals: of each commit and scope that was searched.
        replays: of its minimal schedules on real brokers; ``None`` where none was.
        stories: of its minimal schedules, by the name of their folder.
    """

    totals: tuple[SearchTotals, ...]
    replays: Replays | None
    stories: dict[str, str]


def load_search(folder: str | Path) -> Search:
    """What a search came to.

    Raises:
        ResultsError: the folder has no totals, or a file is none of a search.
    """
    path = Path(folder)
    if not (path / TOTALS_NAME).is_file():
        raise ResultsError(f"search {path}: no {TOTALS_NAME}; hookbench sim --out makes one")
    replays = path / REPLAYS_NAME
    stories = sorted(path.glob(f"*/{STORY_NAME}"))
    return Search(
        totals=tuple(_read(path / TOTALS_NAME, list[SearchTotals])),
        replays=_read(replays, Replays) if replays.is_file() else None,
        stories={item.parent.name: item.read_text(encoding="utf-8") for item in stories},
    )


def _read(path: Path, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise ResultsError(f"search {path}: {error}; search again into another folder") from error


def identify_search(found: Search) -> str:
    """One line for each scope: what was searched, with which commit of hookbench, which seeds."""
    return "\n".join(
        f"{item.scope}  hookbench commit {item.commit}  {item.seeds:,} seeds"
        for item in found.totals
    )


def searches_table(found: Search) -> pd.DataFrame:
    """One row per scope: verdicts, faults, what became of tasks, and the CPU time of a seed."""
    rows = [
        {
            "searched": item.scope,
            "seeds": f"{item.seeds:,}",
            **{str(word): f"{item.verdicts.get(word.value, 0):,}" for word in Verdict},
            "faults": f"{item.faults:,}",
            "fired": f"{item.fired:,}",
            "accepted": f"{item.accepted:,}",
            "lost": f"{item.lost:,}",
            "stuck": f"{item.stuck:,}",
            "done again": f"{item.duplicated:,}",
            "CPU of a seed (s)": f"{item.cpu_s / item.seeds:.2f}",
        }
        for item in found.totals
    ]
    return pd.DataFrame(rows).set_index("searched")


def found_table(found: Search) -> pd.DataFrame:
    """One row per cause that was replayed: seeds, minimal schedule, and whether it counts."""
    if found.replays is None:
        return pd.DataFrame()
    clean = found.replays.hardened
    hardened = "-" if clean is None else f"{clean.failing or 'none'} of {clean.seeds:,} failing"
    rows = [
        {
            "cause (hazard/invariant)": item.key.replace("# ", ""),
            "seeds until found": f"{item.seeds:,}",
            "faults of the minimal schedule": f"{item.faults:,}",
            "on real brokers": f"{item.named} of {item.tries}",
            "hardened over the same seeds": hardened,
            "counts": "found" if item.found else "not found",
        }
        for item in found.replays.causes
    ]
    return pd.DataFrame(rows)


def coverage_of(found: Search) -> pd.DataFrame:
    """How often faults struck: a row per kind and target, a column per step, over all scopes."""
    cells = add_up(
        {f"{name}|{step}": count for step, count in row.items()}
        for item in found.totals
        for name, row in item.coverage.items()
    )
    steps = [step for step in COVERED_STEPS if any(step in row for row in cells.values())]
    return (
        pd.DataFrame.from_dict(cells, orient="index").reindex(columns=steps).fillna(0).astype(int)
    )


def story_text(found: Search, cause: str = "") -> str:
    """A minimal schedule told, event by event.

    Args:
        found: the search.
        cause: the beginning of a hazard's id, as ``P10``; by default that of the first cause that
            real brokers have shown, else of any.

    Raises:
        SettingError: there is no such story; the text names those that there are.
    """
    shown = [item.key for item in found.replays.causes if item.found] if found.replays else []
    preferred = [key.partition("/")[0] for key in shown if not key.startswith("-")]
    for beginning in [cause] if cause else [*preferred, ""]:
        for name, text in found.stories.items():
            _design, _, key = name.partition("_")
            if key.startswith(beginning):
                return text.rstrip("\n")
    known = ", ".join(found.stories) or "none"
    raise SettingError(f"story of {cause or 'anything'}: there is none; there are {known}")


def conformance_table(path: str | Path) -> pd.DataFrame:
    """One row per simulated broker: what was compared with a real one; none without the file.

    Args:
        path: of the proof ``simulated_conformance``.

    Raises:
        ResultsError: it is none.
    """
    if not Path(path).is_file():
        return pd.DataFrame()
    rows = [
        {"simulated": name, **{column: _shown(value) for column, value in figures.items()}}
        for name, figures in _read(Path(path), _Proof).figures.items()
        if isinstance(figures, dict)
    ]
    return pd.DataFrame(rows).set_index("simulated")


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"
