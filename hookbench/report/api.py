"""Everything that a notebook calls, in one place: texts, tables, plots, and how they are shown."""

from collections.abc import Sequence

from hookbench.report.capacity_tables import capacity_table, identify_answers, trials_table
from hookbench.report.fault_tables import (
    causes_table,
    crashes_table,
    faults_table,
    unavailable_table,
)
from hookbench.report.growth import growth_table, identify_growth, plot_growth, read_growth
from hookbench.report.method import (
    broker_settings_table,
    describe_runs,
    identify_runs,
    rules_table,
    timeline_table,
)
from hookbench.report.model_plots import plot_day, plot_predicted
from hookbench.report.model_tables import (
    check_model,
    errors_table,
    held_out_frame,
    identify_matrices,
    load_model,
    outages_table,
    plan_of_site,
    plan_table,
    plan_text,
    site_day,
    strikes_table,
)
from hookbench.report.plots import plot_depths, plot_latency, plot_repeats, plot_throughput
from hookbench.report.plots_cost import load_prices, plot_cost, plot_resources
from hookbench.report.plots_designs import plot_designs
from hookbench.report.plots_faults import plot_recovery, plot_redeliveries, plot_stuck
from hookbench.report.plots_knee import load_answers, plot_knee
from hookbench.report.plots_latency import plot_ecdf, plot_percentiles
from hookbench.report.plots_over_time import plot_latency_over_time
from hookbench.report.price import find_pair, price_table, price_text
from hookbench.report.queues import comparable_runs, comparison_text, queues_table
from hookbench.report.search_plots import plot_causes, plot_coverage
from hookbench.report.searches import (
    conformance_table,
    found_table,
    identify_search,
    load_search,
    searches_table,
    story_text,
)
from hookbench.report.show import show_plot, show_table
from hookbench.report.site_plots import plot_site
from hookbench.report.summary import (
    describe_run,
    findings_table,
    if_checked,
    invariants_table,
    no_findings_text,
    verdict_table,
    verdict_text,
)
from hookbench.report.verdict import (
    answer_text,
    gates_table,
    harms_table,
    no_gates_text,
    no_harms_text,
    phases_table,
    transitions_table,
)
from hookbench.results.run import Run, load

__all__ = [
    "answer_text",
    "broker_settings_table",
    "capacity_table",
    "causes_table",
    "check_model",
    "comparable_runs",
    "comparison_text",
    "conformance_table",
    "crashes_table",
    "describe_run",
    "describe_runs",
    "errors_table",
    "faults_table",
    "find_pair",
    "findings_table",
    "found_table",
    "gates_table",
    "growth_table",
    "harms_table",
    "held_out_frame",
    "identify_answers",
    "identify_growth",
    "identify_matrices",
    "identify_runs",
    "identify_search",
    "if_checked",
    "invariants_table",
    "load_answers",
    "load_model",
    "load_prices",
    "load_runs",
    "load_search",
    "no_findings_text",
    "no_gates_text",
    "no_harms_text",
    "outages_table",
    "phases_table",
    "plan_of_site",
    "plan_table",
    "plan_text",
    "plot_causes",
    "plot_cost",
    "plot_coverage",
    "plot_day",
    "plot_depths",
    "plot_designs",
    "plot_ecdf",
    "plot_growth",
    "plot_knee",
    "plot_latency",
    "plot_latency_over_time",
    "plot_percentiles",
    "plot_predicted",
    "plot_recovery",
    "plot_redeliveries",
    "plot_repeats",
    "plot_resources",
    "plot_site",
    "plot_stuck",
    "plot_throughput",
    "price_table",
    "price_text",
    "queues_table",
    "read_growth",
    "rules_table",
    "searches_table",
    "show_plot",
    "show_price",
    "show_table",
    "site_day",
    "story_text",
    "strikes_table",
    "timeline_table",
    "transitions_table",
    "trials_table",
    "unavailable_table",
    "verdict_table",
    "verdict_text",
]


def load_runs(runs: Sequence[str], results: str) -> list[Run]:
    """Stored runs, each given as to ``hookbench.load``.

    Raises:
        ResultsError: see ``hookbench.load``.
    """
    return [load(run, results) for run in runs]


def show_price(runs: Sequence[Run]) -> None:
    """Display guide beside hardened, of the runs that ``price_table`` compares; else nothing."""
    pair = find_pair(runs)
    if pair is not None:
        show_plot(plot_designs(*pair))
