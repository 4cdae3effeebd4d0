"""``make peers``: environments, rounds, kills, and what they come to."""

import argparse
import sys
from pathlib import Path

import msgspec

from hookbench.clock import SystemClock
from hookbench.errors import HookbenchError, SettingError
from hookbench.rehearsal.stage import utc_now_label
from hookbench.results.store import write_aside
from tests.bench.peers.environments import FOLDER
from tests.bench.peers.measure import Plan, Report, measure
from tests.bench.peers.table import markdown
from tests.bench.peers.trial import ROOT

TROUBLE = 2
_MOST_ROUNDS = 20
_LONGEST_S = 30.0


def main(arguments=None):
    """The exit code: 0 for a measurement, whatever it shows, 2 where there is none."""
    options = _parser().parse_args(arguments)
    try:
        if options.stored:
            sys.stdout.write(markdown(load_report(options.stored)))
            return 0
        plan = _plan(options)
        report = measure(plan, options.environments, tell=_tell)
        _store(report, options.out)
    except HookbenchError as error:
        _tell(f"error: {error}")
        return TROUBLE
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.peers", description="The reference worker and its peers."
    )
    parser.add_argument("--rounds", type=int, default=3, help="of everyone (3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="a drain should take (4)")
    parser.add_argument("--seed", type=int, default=7, help="of the order in each round (7)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME",
        help="part of the name of a contender; may be given several times",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "peers")
    parser.add_argument("--environments", type=Path, default=FOLDER, help="where they are made")
    parser.add_argument(
        "--stored", type=Path, metavar="FOLDER", help="print a stored measurement and run nothing"
    )
    return parser


def _plan(options):
    if not 1 <= options.rounds <= _MOST_ROUNDS:
        raise SettingError(f"--rounds {options.rounds}: use 1 to {_MOST_ROUNDS}")
    if not 0 < options.seconds <= _LONGEST_S:
        raise SettingError(
            f"--seconds {options.seconds:g}: use more than 0, at most {_LONGEST_S:g}"
        )
    return Plan(
        rounds=options.rounds, seconds=options.seconds, seed=options.seed, names=options.only
    )


def load_report(folder):
    """A stored measurement.

    Raises:
        SettingError: there is none, or it is damaged.
    """
    path = folder / "peers.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingError(f"{path}: {error}: use a folder that make peers wrote") from error


def _store(report, out):
    from tests.bench.peers.plot import save_plot  # noqa: PLC0415 - matplotlib is slow to load

    folder = out / utc_now_label(SystemClock().wall_ns()).replace(":", "")
    folder.mkdir(parents=True)
    text = markdown(report)
    save_plot(report, folder / "peers.png")
    write_aside(folder / "summary.md", text.encode())
    data = msgspec.json.format(msgspec.json.encode(report), indent=2)
    write_aside(folder / "peers.json", data + b"\n")
    sys.stdout.write(f"{text}\nstored in {folder}\n")


def _tell(line):
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
