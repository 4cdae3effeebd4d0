"""From the ledger, the brokers and the mirrors to the verdict of a run."""

import contextlib
import traceback

import msgspec

from hookbench.effects.read import read_effects
from hookbench.effects.store import seal_effects
from hookbench.ledger.account import make_account
from hookbench.ledger.columns import without_end
from hookbench.ledger.read import read_ledger
from hookbench.metrics.agreement import compare_metrics
from hookbench.metrics.kept import METRICS_FOLDER, read_scrapes
from hookbench.migration.spool import Spool
from hookbench.queues.watermark import EndedFn
from hookbench.rehearsal.arguments import outbox_path
from hookbench.rehearsal.fleet import Fleet
from hookbench.rehearsal.load_check import Load, load_differences
from hookbench.rehearsal.observer import Observer
from hookbench.rehearsal.pushes import Pusher, check_mirrors
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.results.check import damage_lines, fault_windows, planned_starts, unchecked
from hookbench.results.histograms import save_histograms
from hookbench.results.store import Manifest, RunFolder
from hookbench.task import decode_task

__all__ = ["conclude"]

_ENDING = frozenset({"kill", "restart", "rolling_restart"})
"""Faults that leave nobody in a producer's place for a while."""


async def conclude(
    folder: RunFolder,
    manifest: Manifest,
    fleet: Fleet,
    pusher: Pusher,
    observer: Observer,
    settings: RehearsalSettings,
    *,
    ended: EndedFn | None = None,
) -> list[str]:
    """Account for every task and fill the manifest; why the verdict is unknown, if it is.

    A checker that crashes makes the verdict unknown; its traceback goes to ``checker.log``.

    Args:
        folder: of the run.
        manifest: of the run.
        fleet: its processes.
        pusher: of real pushes.
        observer: of the brokers.
        settings: of the run.
        ended: who knows which tasks have ended; ``None`` without a done-store.
    """
    unknown: list[str] = []
    manifest.lag = _worst_lag(fleet) if settings.loop == "open" else None
    try:
        residue = await observer.residue(pusher.spooled_ids() + _in_outboxes(folder, settings))
        seal_effects(folder.effects)
        steps = len(manifest.steps)
        ledger = read_ledger(folder.ledger, same_boot=True, lenient=True, steps=steps)
        if ended is not None:
            known = await ended(without_end(ledger))
            residue = msgspec.structs.replace(residue, ended=sorted(known))
        manifest.residue = residue
        unknown += [f"check: {line}" for line in damage_lines(ledger.damage)]
        if settings.metrics:
            scraped = read_scrapes(folder.path / METRICS_FOLDER)
            manifest.metrics = compare_metrics(scraped, ledger)
            unknown += [f"metrics: {line}" for line in manifest.metrics.differences]
        account = make_account(
            ledger,
            [record.plan for record in manifest.steps],
            residue,
            step_starts_ns=[record.start_ns for record in manifest.steps],
            end_ns=manifest.steps[-1].end_ns,
            planned_starts_ns=planned_starts(manifest.steps),
            effects=read_effects(folder.effects),
            bounds=settings.bounds,
            faults=fault_windows(manifest),
        )
        save_histograms(folder.path, account.histograms)
        manifest.account = msgspec.structs.replace(account, histograms=[])
        manifest.git = await check_mirrors(
            folder.work / "origins",
            folder.work / "mirrors",
            pusher.repo_ids,
            pushes=pusher.pushes,
            tasks=account.pushed_tasks,
        )
    except Exception as error:  # noqa: BLE001 - a checker that crashes is an unknown verdict
        with contextlib.suppress(OSError):
            (folder.logs / "checker.log").write_text(traceback.format_exc())
        unknown.append(f"a checker crashed: {type(error).__name__}: {error}")
    unknown += unchecked(manifest.account)
    unknown += _compare_load(manifest, fleet, settings)
    if pusher.failures:
        unknown.append(f"{len(pusher.failures)} pushes failed, e.g. {pusher.failures[0]}")
    return unknown


def _in_outboxes(folder: RunFolder, settings: RehearsalSettings) -> list[str]:
    """Ids of the tasks that are still in the outbox of a producer, those set aside as well."""
    found = []
    for number in range(settings.producers):
        path = outbox_path(folder.work, number)
        if path.exists():
            with Spool(path) as spool:
                found += [str(decode_task(task).id) for task in spool.tasks()]
    return found


def _compare_load(manifest: Manifest, fleet: Fleet, settings: RehearsalSettings) -> list[str]:
    """What the ledger holds against what was offered; see ``load_differences``.

    What was due while a fault had a producer down is no part of the load: nobody was there to
    offer it. It is kept in ``Manifest.not_offered``, apart from what is missing. A producer that
    dies without a fault is resumed as well, and its load is missing.
    """
    if manifest.account is None:
        return []
    producers = fleet.of("producer")
    hit = any(
        (record.target == "producers" or record.target.startswith("producer-"))
        and record.kind in _ENDING
        and record.begin_ns is not None
        for record in manifest.faults
    )
    until_end = settings.load_until_end
    load = Load(
        held=manifest.account.tasks - manifest.account.pushed_tasks,
        offered=sum(member.total("offered") for member in producers),
        planned=None if until_end else settings.planned_tasks,
        unfinished=[
            member.name
            for member in producers
            if not (member.said.get("left") == 0 or (until_end and member.told_to_stop))
        ],
        replaced=sum(member.replacements for member in producers),
    )
    if load.planned is not None and load.held < load.planned and hit and not load.unfinished:
        manifest.not_offered = load.planned - load.held
    return load_differences(load, not_offered=manifest.not_offered)


def _worst_lag(fleet: Fleet) -> dict[str, int]:
    """The worst producer's schedule lag, ns."""
    said = [member.said for member in fleet.of("producer")]
    return {
        name: max((int(item.get(name, 0)) for item in said), default=0)
        for name in ("lag_p50_ns", "lag_p99_ns", "lag_max_ns")
    }
