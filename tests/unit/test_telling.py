"""How far a report is: plain lines, not too many; a bar on a terminal."""

import io

from rich.console import Console

from hookbench.report.telling import LiveTelling, PlainTelling, open_telling

S = 1_000_000_000


class Ticks:
    now_ns = 10 * S

    def monotonic_ns(self):
        return self.now_ns


def test_plain_lines_for_each_notebook_and_every_two_seconds():
    clock, file = Ticks(), io.StringIO()
    telling = open_telling(Console(file=file, width=40), clock)
    assert isinstance(telling, PlainTelling)
    for seconds, notebook, cell in (
        (0, 1, 1), (0.5, 1, 2), (2.1, 1, 3), (2.2, 2, 1), (2.3, 2, 2),
    ):  # fmt: skip
        clock.now_ns = 10 * S + int(seconds * S)
        telling.cell(notebook, 2, "05_verdict Verdict [a title that is long]", cell, 3)
    telling.close()
    title = "05_verdict Verdict [a title that is long]"
    assert file.getvalue().splitlines() == [
        f"report    notebook 1 of 2, cell 1 of 3: {title}",
        f"report    notebook 1 of 2, cell 3 of 3: {title}",
        f"report    notebook 2 of 2, cell 1 of 3: {title}",
    ]


def test_a_bar_on_a_terminal_that_is_gone_at_the_end():
    file = io.StringIO()
    telling = open_telling(Console(file=file, width=100, force_terminal=True), Ticks())
    assert isinstance(telling, LiveTelling)
    telling.cell(2, 6, "02_phases Phases", 4, 13)
    telling.close()
    text = file.getvalue()
    for said in ("notebook 2 of 6", "cell 4 of 13", "02_phases Phases"):
        assert said in text
    assert text.endswith("\x1b[2K"), "the line is cleared"
