import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from transmodal.reporting.curves import Curve
from transmodal.reporting.html import render
from transmodal.reporting.page import Scored, Trained, compose

HOSTILE = "<script>alert(1)</script>\"'&"


class Reader(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(sheet_of, made):
    def build(case: str = "head", label: str = "unet") -> str:
        sheets = [sheet_of({case: 50.0, "b": 60.0, "c": None}, label), sheet_of({case: 40.0}, f"{label} 2")]
        scored = [Scored(sheet.label, sheet, made, unseen=[f"{case} is not shown"]) for sheet in sheets]
        run = Trained(label, {"loss": {"train": Curve((1.0, 2.0), (0.5, 0.4))}}, made)
        return render(compose(scored, [run], made))

    return build


def test_names_are_text_and_never_markup(page):
    harmless, hostile = Reader(page()), Reader(page(HOSTILE, HOSTILE))
    assert [tag for tag, _ in harmless.tags] == [tag for tag, _ in hostile.tags]
    assert HOSTILE in "".join(hostile.text)
    assert "<script>alert" not in page(HOSTILE, HOSTILE)


def test_nothing_is_fetched(page):
    reader = Reader(page())
    for tag, attributes in reader.tags:
        assert tag not in ("link", "iframe", "object", "embed", "form")
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert "style" not in attributes and not any(name.startswith("on") for name in attributes)


def test_the_policy_names_the_style_and_the_script_by_hash(page):
    text = page()
    (policy,) = [meta["content"] for meta in Reader(text).named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    for tag in ("style", "script"):  # without a case to look into there is one script
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_everything_has_a_name_for_those_who_do_not_see(page):
    reader = Reader(page())
    assert all(image["alt"] for image in reader.named("img"))
    assert all(header["scope"] in ("col", "row") for header in reader.named("th"))
    assert len(reader.named("caption")) == len(reader.named("table")) > 0
    assert reader.named("html") == [{"lang": "en"}]
    identifiers = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_numbers_come_with_their_protocol_mask_and_clip_range(page):
    text = "".join(Reader(page()).text)
    for part in ("SynthRAD 2023", "inside the mask", "[−1024, 3000] HU", "55.0 (7.1)", "best mean MAE: 40.0", "ab" * 32, "Seed"):
        assert part in text.replace("\u00a0", " ")


def test_a_run_alone_has_a_page(made):
    text = render(compose([], [Trained("run", {}, None)], made))
    assert "Training of run" in text and "No measurement" in text and "No record: run" in text


def test_pages_are_reproducible(page):
    assert page() == page()
