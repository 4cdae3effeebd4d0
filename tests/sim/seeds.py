"""Seeds that are kept, see ``seeds.toml``."""

import tomllib
from pathlib import Path

import msgspec

from hookbench.ledger.model import Verdict
from hookbench.migration.phases import Design, Phase, parse_phase
from hookbench.sim.trial import Scope

__all__ = ["KeptSeed", "kept_seeds"]

_BOOK = Path(__file__).with_name("seeds.toml")


class KeptSeed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of ``seeds.toml``, which says what its fields are."""

    design: Design
    phases: str
    seed: int
    schedule: int
    verdict: Verdict
    found: str
    shows: tuple[str, ...] = ()
    never: tuple[str, ...] = ()

    @property
    def scope(self):
        """What is searched."""
        if self.phases == "timeline":
            phases, transition = tuple(Phase), None
        else:
            phases = tuple(parse_phase(name) for name in self.phases.split(":"))
            transition = 1 if len(phases) == 2 else None
        return Scope(
            design=self.design, phases=phases, transition=transition, schedule=self.schedule
        )


def kept_seeds():
    """All entries, in their order."""
    entries = tomllib.loads(_BOOK.read_text())["seed"]
    return msgspec.convert(entries, list[KeptSeed], strict=True)
