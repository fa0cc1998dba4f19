"""The report as one HTML file: everything inside, nothing fetched, every name escaped."""

import base64
import hashlib
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass, field

from transmodal.reporting.tables import Table
from transmodal.reporting.viewer import Viewer


@dataclass(frozen=True)
class Picture:
    """An image with its text alternative, as data URIs; `dark` replaces `light` on a dark page."""

    light: str
    alt: str
    caption: str = ""
    dark: str | None = None


@dataclass(frozen=True)
class Tile:
    """A headline number."""

    label: str
    value: str
    unit: str
    detail: str


@dataclass(frozen=True)
class Section:
    """A part of the page; what is empty is left out."""

    title: str
    paragraphs: Sequence[str] = field(default=())
    tables: Sequence[Table] = field(default=())
    charts: Sequence[Picture] = field(default=())
    pictures: Sequence[Picture] = field(default=())
    viewers: Sequence[Viewer] = field(default=())
    facts: Sequence[tuple[str, Sequence[tuple[str, str]]]] = field(default=())


@dataclass(frozen=True)
class Page:
    """A report: a title, the summary in words and numbers, what to be careful about, and the sections."""

    title: str
    lead: Sequence[str]
    tiles: Sequence[Tile]
    cautions: Sequence[str]
    sections: Sequence[Section]
    footer: str
    cautions_title: str = "What these numbers do not show"


def render(page: Page) -> str:
    """Write the page as HTML.

    The content security policy in it allows the inline style sheet and the scripts (one sorts tables; where there is something to view,
    the viewer and NiiVue) by their hashes, images inside the file, and nothing else.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style, scripts = _resource("templates", "report.css"), [_resource("templates", "sort.js")]
    if any(section.viewers for section in page.sections):
        scripts += [_resource("niivue", "niivue.umd.js"), _resource("templates", "viewer.js")]
    template = environment.from_string(_resource("templates", "report.html.j2"))
    sources = " ".join(f"'{_csp_hash(script)}'" for script in scripts)
    return template.render(page=page, style=style, scripts=scripts, style_hash=_csp_hash(style), script_sources=sources)


def data_uri(data: bytes, mime: str) -> str:
    """Make a URI that holds the bytes."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _resource(folder: str, name: str) -> str:
    return (importlib.resources.files("transmodal.reporting") / folder / name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
