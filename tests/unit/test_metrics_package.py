"""Dashboard, alert rules and document ask for metrics that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import hookbench.metrics
from hookbench.metrics.families import ENDS, METRICS, PUTS, SENDS
from hookbench.migration.phases import Phase

PACKAGE = Path(hookbench.metrics.__file__).parent
DASHBOARD = PACKAGE / "grafana" / "hookbench.json"
ALERTS = PACKAGE / "prometheus" / "alerts.yml"
CONFIG = PACKAGE / "prometheus" / "prometheus.yml"
RULE_TESTS = Path(__file__).parent / "data" / "alerts" / "alerts_test.yml"
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"

NAME = re.compile(r"\b(?:hook_task|hookbench|process)_[a-z_]+\b")
SELECTOR = re.compile(r"\b([a-z_]+)\{([^}]*)\}")
MATCHER = re.compile(r'([a-z_]+)(=|!=|=~|!~)"([^"]*)"')
OF_PROMETHEUS = {"job", "instance", "le"}
VALUES = {
    "outcome": {*SENDS, *PUTS, *ENDS},
    "phase": {phase.label for phase in Phase},
    "state": {"pending", "in_work", "ack_pending", "dead", "stream"},
    "queue": {"redis_list", "redis_stream", "jetstream"},
    "job": {"hookbench"},
}


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


def rules():
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions():
    """Every query of the dashboard and of the rules."""
    dashboard = json.loads(DASHBOARD.read_text())
    notes = [item["expr"] for item in dashboard["annotations"]["list"]]
    targets = [target["expr"] for panel in panels() for target in panel["targets"]]
    return notes + targets + [rule["expr"] for rule in rules()]


def used_names():
    """The metrics that they ask for, without the suffixes of histograms."""
    names = {name for text in expressions() for name in NAME.findall(text)}
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


def test_queries_ask_for_metrics_that_there_are():
    known = {item.name for item in METRICS} | {"process_cpu_seconds_total"}
    assert used_names() <= known
    unseen = {item.name for item in METRICS} - used_names()
    assert unseen == set()  # what no panel and no rule shows is of no use


def test_queries_select_by_labels_and_values_that_there_are():
    labels = {item.name: {*item.labels} | OF_PROMETHEUS for item in METRICS}
    found = [
        (re.sub(r"_bucket$", "", name), *matcher)
        for text in expressions()
        for name, inside in SELECTOR.findall(text)
        for matcher in MATCHER.findall(inside)
    ]
    assert len(found) > 5
    for name, label, _how, value in found:
        assert label in labels.get(name, OF_PROMETHEUS), (name, label)
        assert value in VALUES[label], (name, label, value)


def test_histograms_are_asked_by_bucket():
    kinds = {item.name: item.kind for item in METRICS}
    for text in expressions():
        for name in NAME.findall(text):
            if name.endswith("_bucket"):
                assert kinds[name.removesuffix("_bucket")] == "histogram"
            else:
                assert kinds.get(name) != "histogram", text


def test_every_rule_says_what_is_wrong_and_how_badly():
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) >= 8
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
    (job,) = yaml.safe_load(CONFIG.read_text())["scrape_configs"]
    assert job["job_name"] == "hookbench"
    assert yaml.safe_load(CONFIG.read_text())["rule_files"] == [ALERTS.name]


def test_panels_have_numbers_and_places_of_their_own():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places) > 10
    assert [panel["id"] for panel in panels()] == list(range(1, len(places) + 1))


def test_panels_have_the_options_that_grafana_requires():
    """Of the panels' own schemas; what lacks them is filled in by some versions, and not by all."""
    for panel in panels():
        options = panel["options"]
        if panel["type"] == "timeseries":
            assert {"displayMode", "placement", "showLegend", "calcs"} <= set(options["legend"])
            assert {"mode", "sort"} <= set(options["tooltip"])
        else:
            assert panel["type"] == "stat"
            assert options["reduceOptions"]["calcs"]
            assert {"graphMode", "colorMode", "textMode", "orientation"} <= set(options)


def test_the_document_lists_the_metrics():
    rows = {}
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `hook"):
            rows[cells[0].strip("`")] = cells[1:]
    wanted = {
        item.name: [
            item.kind,
            ", ".join(f"`{label}`" for label in item.labels) or "-",
            " and ".join(item.roles),
            item.text,
        ]
        for item in METRICS
    }
    assert rows == wanted


@pytest.fixture
def promtool():
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool on PATH, it comes with Prometheus: rules are only looked at above")

    def run(*arguments, folder=None):
        return subprocess.run(
            [found, *arguments], capture_output=True, text=True, check=False, timeout=60, cwd=folder
        )

    return run


def test_promtool_takes_rules_and_configuration(promtool):
    done = promtool("check", "config", str(CONFIG))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_promtool_sees_the_alerts_fire_when_they_are_to(promtool, tmp_path):
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(RULE_TESTS, tmp_path)
    done = promtool("test", "rules", RULE_TESTS.name, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_is_too_lax_is_found(promtool, tmp_path):
    text = ALERTS.read_text()
    lax = text.replace("_oldest_seconds) > 300", "_oldest_seconds) > 3000")
    assert lax != text
    (tmp_path / ALERTS.name).write_text(lax)
    shutil.copy(RULE_TESTS, tmp_path)
    done = promtool("test", "rules", RULE_TESTS.name, folder=tmp_path)
    assert done.returncode != 0
    assert "HookbenchTaskOld" in done.stdout + done.stderr
