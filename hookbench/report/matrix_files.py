"""The files of a matrix: matrix.json, matrix.md, matrix.parquet and its plots."""

import io
from pathlib import Path

import msgspec

from hookbench.errors import ResultsError
from hookbench.report.matrix import MatrixSummary, load_summary, trials_frame
from hookbench.report.matrix_fates import plot_matrix_redelivery
from hookbench.report.matrix_plots import plot_matrix_latency, plot_matrix_throughput
from hookbench.report.matrix_tables import as_markdown
from hookbench.report.style import figure_of
from hookbench.results.store import write_aside

__all__ = ["write_matrix_files"]

_PLOTS = {
    "throughput": plot_matrix_throughput,
    "latency": plot_matrix_latency,
    "redelivery": plot_matrix_redelivery,
}


def write_matrix_files(folder: Path) -> tuple[MatrixSummary, list[Path]]:
    """Write every file of the matrix in a folder, from its book.

    ``matrix.json`` (every cell), ``matrix.md`` (the tables), ``matrix.parquet`` (a row per trial,
    see ``trials_frame``), and of the kinds that it has ``throughput.png``, ``latency.png`` and
    ``redelivery.png``.

    Returns:
        What it came to, and the paths.

    Raises:
        ResultsError: there is no matrix, it is damaged, or no trial was made, or the folder
            cannot be written to.
    """
    summary, book = load_summary(folder)
    if not summary.made:
        raise ResultsError(f"matrix {folder}: no trial was made yet: hookbench matrix goes on")
    table = io.BytesIO()
    trials_frame(book).to_parquet(table, index=False)
    files = {
        "matrix.json": msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n",
        "matrix.md": as_markdown(summary).encode(),
        "matrix.parquet": table.getvalue(),
    }
    for kind in summary.plan.kinds:
        picture = io.BytesIO()
        figure_of(_PLOTS[kind](summary)).savefig(picture, format="png")
        files[f"{kind}.png"] = picture.getvalue()
    try:
        for name, data in files.items():
            write_aside(folder / name, data)
    except OSError as error:
        raise ResultsError(f"matrix {folder}: {error.strerror}") from error
    return summary, [folder / name for name in files]
