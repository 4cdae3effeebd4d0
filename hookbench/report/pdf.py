"""A report as PDF, printed by a Chromium that is on the machine."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from hookbench.errors import SettingError
from hookbench.report.execute import ReportError

__all__ = ["CHROMIUM_VARIABLE", "find_chromium", "print_pdf"]

CHROMIUM_VARIABLE = "HOOKBENCH_CHROMIUM"
_BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
)
_TIMEOUT_S = 180.0


def find_chromium() -> str | None:
    """The browser that the variable names, else one on PATH; ``None`` where there is none.

    Raises:
        SettingError: the variable names one that is not there.
    """
    named = os.environ.get(CHROMIUM_VARIABLE)
    if not named:
        return next(filter(None, map(shutil.which, _BROWSERS)), None)
    found = shutil.which(named)
    if found is None:
        raise SettingError(
            f"{CHROMIUM_VARIABLE} {named!r}: no such program; name a Chromium, or unset it"
        )
    return found


def print_pdf(page: Path, browser: str) -> Path:
    """Print a page beside itself; the path of the PDF.

    Raises:
        ReportError: the browser did not print it.
    """
    path = page.with_suffix(".pdf")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory(prefix="hookbench-chromium-") as profile:
            command = [
                browser,
                "--headless",
                "--disable-gpu",
                f"--user-data-dir={profile}",
                "--no-pdf-header-footer",
                f"--print-to-pdf={aside.resolve()}",
                page.resolve().as_uri(),
            ]
            if hasattr(os, "geteuid") and os.geteuid() == 0:
                command.insert(1, "--no-sandbox")  # it refuses to run as root otherwise
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        if done.returncode != 0 or not aside.is_file():
            said = done.stderr.strip().splitlines()
            raise ReportError(
                f"PDF {path}: {browser} ended with {done.returncode}"
                f" ({said[-1] if said else 'it said nothing'}); the page is {page}"
            )
        aside.replace(path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReportError(f"PDF {path}: {error}; the page is {page}") from error
    finally:
        aside.unlink(missing_ok=True)
    return path
