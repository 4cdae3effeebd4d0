"""Every link of a document to another file of the repository leads somewhere."""

import re

from tests.documented import PAGES, ROOT

LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page):
    """As a forge makes them of headings: small letters, hyphens, no punctuation."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text))
    return {word.strip().replace(" ", "-") for word in words}


def broken(page):
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        path, _hash, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        known = anchors(target) if target.suffix == ".md" and target.exists() else set()
        if not target.exists() or (anchor and anchor not in known):
            yield link


def test_every_link_leads_somewhere():
    found = {
        page.relative_to(ROOT).as_posix(): links for page in PAGES if (links := list(broken(page)))
    }
    assert found == {}
    assert sum(len(LINK.findall(page.read_text())) for page in PAGES) > 100


def test_a_wrong_link_is_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("# A title\n\n[here](#a-title), [there](b.md), [nowhere](#another)\n")
    assert list(broken(page)) == ["b.md", "#another"]
