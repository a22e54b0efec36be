"""The page of a report: escaped, whole, and with nothing outside it."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest

from lyot.viz.report import sections
from lyot.viz.report.facts import read_facts
from lyot.viz.report.page import render, write_report


@pytest.fixture(scope="module")
def facts(demo):
    return read_facts(demo.folder, command=["lyot", "run", "<script>"], products=None)


class Reader(HTMLParser):
    """Collect the names within a page, the links to them, and the tags that are not closed."""

    VOID = ("meta", "link", "img", "wbr", "br")

    def __init__(self, text):
        super().__init__()
        self.names, self.links, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.names += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if tag == "a" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_links_lead_to_names_that_occur_once(facts):
    page = Reader(render(facts))
    assert page.open == []
    assert page.links
    assert {link.removeprefix("#") for link in page.links} <= set(page.names)
    assert len(page.names) == len(set(page.names))


def test_text_from_files_and_commands_is_escaped(facts):
    image = facts.images[0]
    info = replace(image.view.info, target="<b>A & B</b>")
    named = replace(facts, images=[replace(image, view=replace(image.view, info=info))])
    text = render(named)
    assert "<b>A" not in text
    assert "&lt;b&gt;A &amp; B&lt;/b&gt;" in text
    assert "lyot run &#39;&lt;script&gt;&#39;" in text


def test_a_page_of_the_same_facts_is_the_same(facts):
    assert render(facts) == render(facts)


def test_the_color_maps_are_those_of_matplotlib(facts):
    found = re.search(r'id="color-maps">(.*?)</script>', render(facts)).group(1)
    names = {"inferno": "inferno", "gray": "gray", "viridis": "viridis", "diverging": "RdBu_r"}
    assert list(json.loads(found)) == list(names)
    for name, text in json.loads(found).items():
        colors = np.frombuffer(base64.b64decode(text), np.uint8).reshape(-1, 3)
        wanted = matplotlib.colormaps[names[name]](np.linspace(0.0, 1.0, len(colors)))[:, :3]
        assert np.abs(colors - 255 * wanted).max() <= 0.5


def test_an_error_of_the_report_is_not_taken_for_one_of_the_data(demo, monkeypatch):
    def broken(run):
        raise KeyError("a bug")

    monkeypatch.setitem(sections.SECTIONS, "Alignment", broken)
    with pytest.raises(KeyError, match="a bug"):
        write_report(demo.folder)
