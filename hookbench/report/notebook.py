"""A report: notebooks executed on stored runs, in one HTML file that needs no network."""

import html
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from hookbench.report.choice import Part, choose_parts
from hookbench.report.execute import (
    ReportError,
    check_extra,
    execute_notebooks,
    find_notebook,
    import_extra,
)
from hookbench.report.telling import SilentTelling, Telling
from hookbench.results.store import Manifest, write_aside

__all__ = ["REPORT_NAME", "ReportError", "render_report"]

REPORT_NAME = "report.html"
_MANY_RUNS = 3


def render_report(
    runs: Sequence[Path],
    *,
    capacity: Path | None = None,
    simulation: Path | None = None,
    matrix: Path | None = None,
    growth: Path | None = None,
    notebooks: Sequence[str] = (),
    target: Path | None = None,
    telling: Telling | None = None,
) -> Path:
    """Execute the notebooks that make sense for runs; the path of the HTML file.

    It is written aside and renamed, so that a failure leaves the one that was there.

    Args:
        runs: their folders, the newest last.
        capacity: folder of answers of ``hookbench capacity``.
        simulation: folder of a search of ``hookbench sim``.
        matrix: folder of ``hookbench matrix``, for a model of it.
        growth: file of ``make growth``.
        notebooks: those that are wanted, see ``choose_parts``.
        target: where the file is written; by default ``report.html`` in the folder of the last run.
        telling: is told how far it is.

    Raises:
        ResultsError: a run, its tables, an answer, a search, a matrix or a growth cannot be read.
        SettingError: a notebook cannot be chosen.
        ReportError: the extra is not installed, a cell failed, or the file cannot be written.
    """
    check_extra()
    if capacity is not None:
        from hookbench.report.plots_knee import load_answers  # noqa: PLC0415 - it needs the extra

        load_answers(capacity)
    if simulation is not None:
        from hookbench.report.searches import load_search  # noqa: PLC0415 - likewise

        load_search(simulation)
    if matrix is not None:
        from hookbench.report.model_tables import load_model  # noqa: PLC0415 - likewise

        load_model([matrix])
    if growth is not None:
        from hookbench.report.growth import read_growth  # noqa: PLC0415 - likewise

        read_growth(growth)
    folders = [run.resolve() for run in runs]
    stored = [(folder, _readable(folder)) for folder in folders]
    parts = choose_parts(
        stored,
        capacity=capacity and capacity.resolve(),
        simulation=simulation and simulation.resolve(),
        matrix=matrix and matrix.resolve(),
        growth=growth and growth.resolve(),
        notebooks=notebooks,
    )
    executed = _execute(parts, telling or SilentTelling())
    named = zip(parts, executed, strict=True)
    sections = [_section(number, *item) for number, item in enumerate(named, 1)]
    path = target or folders[-1] / REPORT_NAME
    try:
        write_aside(path, _page(stored, parts, sections).encode())
    except OSError as error:
        raise ReportError(
            f"report {path}: {error.strerror}; choose another file with --to"
        ) from error
    return path


def _readable(folder: Path) -> Manifest:
    """The manifest of a run that can be read, samples and tables too: an error is told early."""
    from hookbench.results.run import load  # noqa: PLC0415 - it needs the extra
    from hookbench.results.samples import read_samples  # noqa: PLC0415 - beside it

    read_samples(folder)
    return load(folder).manifest


def _execute(parts: Sequence[Part], telling: Telling) -> list[Any]:
    def begins(notebook: int, cell: int, cells: int) -> None:
        part = parts[notebook - 1]
        telling.cell(notebook, len(parts), f"{part.notebook} {part.title}", cell, cells)

    wanted = [(find_notebook(part.notebook), part.parameters) for part in parts]
    try:
        return execute_notebooks(wanted, begins=begins)
    finally:
        telling.close()


def _section(number: int, part: Part, executed: Any) -> str:
    # The ids are those of one notebook: in a page of several they are made its own.
    body = re.sub(r'(<[a-z][a-z0-9]*\b[^<>]*?\sid=")', rf"\g<1>part{number}-", _as_cells(executed))

    def heading(found: re.Match[str]) -> str:
        """That of a notebook on one run says which."""
        begin, text, end = found.groups()
        said = part.title if part.title.startswith(f"{text}: ") else text
        return f"{begin}{html.escape(said) if said != text else text}{end}"

    return re.sub(r"(<h1\b[^<>]*>)([^<>]*)(</h1>)", heading, body, count=1)


def _as_cells(executed: Any) -> str:
    """The outputs and texts, without code.

    nbconvert's own page loads MathJax and more from the network, hence only its cells are taken.
    """
    try:
        exporter = import_extra()["nbconvert"].HTMLExporter(
            template_name="basic",
            exclude_input=True,
            exclude_input_prompt=True,
            exclude_output_prompt=True,
            exclude_anchor_links=True,
        )
        body, _resources = exporter.from_notebook_node(executed)
    except ValueError as error:  # its templates are data files beside the environment
        raise ReportError(f"nbconvert cannot make a page, install it anew: {error}") from error
    return str(body)


def _page(
    stored: Sequence[tuple[Path, Manifest]], parts: Sequence[Part], sections: Sequence[str]
) -> str:
    names = [f"{manifest.design} {manifest.verdict} ({manifest.run})" for _, manifest in stored]
    what = ", ".join(names) if len(names) <= _MANY_RUNS else f"{len(names)} runs"
    links = [
        f'<li><a href="#part{number}">{html.escape(part.title)}</a></li>'
        for number, part in enumerate(parts, 1)
    ]
    bodies = [
        f'<section id="part{number}">\n{body}\n</section>'
        for number, body in enumerate(sections, 1)
    ]
    page = (resources.files("hookbench.report") / "page.html").read_text(encoding="utf-8")
    from hookbench.report.verdict import answer_of_run  # noqa: PLC0415 - it needs the extra

    answers = [answer_of_run(manifest) for _folder, manifest in stored]
    lines = [f"<li>{html.escape(text[0].upper() + text[1:])}.</li>" for text in answers]
    return (
        page.replace("@TITLE@", html.escape(f"hookbench: {what}"))
        .replace("@ANSWER@", "\n".join(lines))
        .replace("@CONTENTS@", "\n".join(links))
        .replace("@BODY@", "\n".join(bodies))
    )
