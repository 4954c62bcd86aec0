"""What `inspect` shows is what is trained, its numbers are the index's and the plan's, and its page is safe to open."""

import re
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from theworld.data.indexing.build import build_index
from theworld.data.inspection.findings import inspect_source, print_findings, write_findings
from theworld.data.packing.plan import plan
from theworld.data.rows.osd import OSDFormat
from theworld.data.samples import OSDSamples
from theworld.data.stores import FolderStore

HOSTILE = "<script>alert('x')</script> & <b>\"bold\"</b> \u202eturned"


def _rows(make_row):
    rows = [make_row(number, turns=1 + number % 3) for number in range(8)]
    rows[2]["conversations"][0]["value"] = f"<image>\nIs <mask> <depth> left of <mask> <depth>? {HOSTILE}"
    rows.insert(5, make_row(70, bbox=[[2, 3, 12, 20]]))
    rows.append(make_row(71, bbox=[[2, 3, 12, 20]]))
    rows.append(make_row(72, filename="absent"))
    return rows


@pytest.fixture
def source(open_osd, make_row, processor):
    rows = open_osd(_rows(make_row))
    index = build_index(rows, processor, max_seq_length=150, name="train", skip_malformed=True)
    return FolderStore(index, rows_path=rows.path, image_folder=rows.images.folder), index


@pytest.fixture
def inspect(source):
    def run(**settings):
        return inspect_source(*source, **({"row_format": OSDFormat(), "token_budget": 450, "samples": 12} | settings))

    return run


class _Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.addresses, self.text = set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.text += data


def test_the_pictures_and_texts_are_those_that_are_trained(source, inspect, processor):
    store, index = source
    samples = OSDSamples(store, index=index, processor=processor)
    findings = inspect()
    assert len(findings.cards) == len(index) == 8
    for number, card in enumerate(findings.cards):
        sample = samples[number]
        assert card.title == sample.id
        assert torch.equal(processor.pixels(card.image), sample.pixel_values)
        encoded = processor.encode(card.turns, card.image, card.title, max_seq_length=150)
        assert torch.equal(encoded.input_ids, sample.input_ids)
    undrawn = Image.open(store.images.folder / "img0.png").convert("RGB")
    assert not torch.equal(processor.pixels(undrawn), samples[0].pixel_values)  # control: without regions it differs


def test_counts_are_the_index_s_and_the_plan_s(source, inspect):
    _, index = source
    findings = inspect()
    facts = dict(findings.facts)
    lengths = index.lengths[index.eligible]
    packed = plan(lengths, seed=0, epoch=0, budget=450, micro_batches_per_step=1)
    assert facts["rows"] == "11"
    assert facts["samples"] == "8"
    assert facts["tokens"] == f"{lengths.sum():,}"
    assert facts["filled"] == f"{lengths.sum() / (450 * packed.num_steps):.2%}"
    assert facts["packed rows an epoch"] == f"{packed.num_steps} of 450 tokens, any number of images"
    assert facts["padding"].startswith(f"{450 * packed.num_steps - lengths.sum():,} of {450 * packed.num_steps:,} ")
    assert [(code, count) for code, count, _ in findings.verdicts] == [
        ("ok", 8),
        ("mask count", 2),
        ("missing image", 1),
    ]
    examples = findings.verdicts[1][2]
    assert len(examples) == 2
    assert "row 5" in examples[0]
    assert "id 'row-70'" in examples[0]
    assert np.array_equal(findings.columns["Tokens a sample"], lengths)


def test_dropped_turns_are_told(source, inspect):
    _, index = source
    cut = np.flatnonzero((index.kept_turns < index.num_turns) & (index.kept_turns > 0))
    assert len(cut)  # control: there is something to tell
    told = [card for card in inspect().cards if any("dropped" in note for note in card.notes)]
    assert len(told) == len(cut)
    for card, row in zip(told, cut, strict=True):
        assert len(card.turns) == index.kept_turns[row]
        dropped = index.num_turns[row] - index.kept_turns[row]
        assert f"{dropped} trailing turn" in card.notes[-1]


def test_a_cap_on_images_costs_rows(inspect):
    free, capped = dict(inspect().facts), dict(inspect(max_images=1).facts)
    assert capped["packed rows an epoch"] == "8 of 450 tokens, at most 1 image"
    assert float(capped["samples a row"]) == 1
    assert float(free["samples a row"]) > 1


def test_the_choice_follows_the_seed(inspect):
    def titles(**settings):
        return [card.title for card in inspect(samples=4, **settings).cards]

    assert titles(seed=1) == titles(seed=1)
    assert len({tuple(titles(seed=seed)) for seed in range(6)}) > 1
    assert len(set(titles())) == 4


def test_the_page_is_whole_self_contained_and_escaped(inspect, tmp_path):
    findings = inspect()
    page_path, *pictures = write_findings(findings, tmp_path / "look", title="train <b>bold</b>")
    assert [path.name for path in pictures] == ["histograms.png", "contact_sheet.png"]
    page = page_path.read_text(encoding="utf-8")
    parsed = _Page(page)
    assert not parsed.tags & {"script", "b" * 2, "iframe", "link", "object"}
    assert "<script" not in page
    assert len(parsed.addresses) == 9
    assert all(re.match(r"data:image/(png|jpeg);base64,", address) for address in parsed.addresses)
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page))
    assert "default-src 'none'" in page
    assert "\u202e" not in page
    for card in findings.cards:
        for text in (*card.turns[0], *card.turns[-1], *card.notes):
            assert text.replace("\u202e", "<U+202E>") in parsed.text
    assert "train <b>bold</b>" in parsed.text
    assert "alert('x')" in parsed.text
    for _, _, examples in findings.verdicts:
        assert all(example in parsed.text for example in examples)


def test_a_sample_that_cannot_be_read_is_told_and_the_others_are_shown(source, inspect, tmp_path, capsys):
    store, _ = source
    Image.new("RGB", (40, 30)).save(store.images.folder / "img3.png")
    findings = inspect()
    assert len(findings.cards) == 7
    assert len(findings.failures) == 1
    assert "id 'row-3'" in findings.failures[0]
    page = write_findings(findings, tmp_path, title="t")[0].read_text(encoding="utf-8")
    assert "Could not be shown" in page
    assert "row-3" in page
    console = Console(file=StringIO(), width=200)
    print_findings(findings, title="[bold]t", console=console)
    printed = console.file.getvalue()
    assert "could not be shown: " in printed
    assert "[bold]t" in printed  # no markup in what comes from data
    assert "mask count" in printed


def test_an_index_without_samples_is_told(source, tmp_path):
    store, index = source
    table = index.table.slice(5, 1)
    empty = type(index)(name="none", header=index.header, table=table)
    findings = inspect_source(store, empty, row_format=OSDFormat(), token_budget=450)
    assert findings.cards == ()
    assert [path.name for path in write_findings(findings, tmp_path, title="t")] == ["inspect.html"]
    assert "mask count" in (tmp_path / "inspect.html").read_text(encoding="utf-8")
