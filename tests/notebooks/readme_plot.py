"""README's first picture: ``python -m tests.notebooks.readme_plot``.

Both designs through the whole migration, from the small runs that are committed for the notebooks.
"""

from pathlib import Path

from hookbench.report.findings import throughput_finding
from hookbench.report.plots import plot_throughput
from hookbench.report.style import figure_of, new_panels
from hookbench.results.run import load

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "images" / "migration.png"
DESIGNS = ("guide", "hardened")
_PANEL_INCHES = 3.2


def runs():
    """The committed run of each design."""
    return {name: load(ROOT / "notebooks" / "data" / name) for name in DESIGNS}


def described(stored):
    """The picture in words: what its titles say."""
    return "; ".join(f"{name}: {throughput_finding(run)}" for name, run in stored.items())


def draw(path):
    """Draw it; what it says."""
    stored = runs()
    panels = new_panels([_PANEL_INCHES] * len(stored))
    for axes, (name, run) in zip(panels, stored.items(), strict=True):
        plot_throughput(run, axes)
        axes.set_ylabel(f"{name}: {axes.get_ylabel()}")
    highest = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(top=highest)
    path.parent.mkdir(exist_ok=True)
    figure_of(panels[0]).savefig(path)
    return described(stored)


if __name__ == "__main__":
    print(draw(PICTURE))  # noqa: T201 - a command of its own
