"""Pieces of a page: every text that is put into one goes through here and is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from stepwise_tui.text import clean, clean_lines


class Markup(str):
    """Text that is HTML already. Whatever else is a `str` is text to be escaped."""

    __slots__ = ()


def text(value: str) -> Markup:
    """A text on one line, without what would change the direction of writing or is markup."""
    return value if isinstance(value, Markup) else Markup(escape(clean(value)))


def lines(value: str) -> Markup:
    """The same in as many lines as it has."""
    return Markup(f"<pre>{escape(clean_lines(value))}</pre>")


def element(name: str, content: str, kind: str = "") -> Markup:
    attribute = f' class="{escape(kind)}"' if kind else ""
    return Markup(f"<{name}{attribute}>{text(content)}</{name}>")


def joined(parts: Iterable[str]) -> Markup:
    return Markup("\n".join(text(part) for part in parts))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table that scrolls by itself where it is too wide."""
    heads = joined(element("th", cell) for cell in head)
    body = joined(element("tr", joined(element("td", cell) for cell in row)) for row in rows)
    inner = joined([element("thead", element("tr", heads)), element("tbody", body)])
    return element("div", element("table", inner), "wide")


def pairs(values: Mapping[str, str]) -> Markup:
    """Names and what is said of them."""
    rows = (joined([element("dt", name), element("dd", said)]) for name, said in values.items())
    return element("dl", joined(rows))


def folded(summary: str, content: Markup) -> Markup:
    """What is seen when it is asked for."""
    return element("details", joined([element("summary", summary), content]))


def section(title: str, content: Markup) -> Markup:
    return element("section", joined([element("h2", title), content]))


def figure(svg: str, caption: str) -> Markup:
    """svg: an element that we drew. caption: also what is said in its place."""
    said = escape(clean(caption))
    named = svg.replace("<svg", f'<svg role="img" aria-label="{said}"', 1)
    return element("figure", joined([Markup(named), element("figcaption", caption)]))


def page(title: str, content: Markup) -> str:
    """The whole document. Its policy forbids it to load or run anything, whatever it says."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{content}
</main>
</body>
</html>
"""


STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --back: #ffffff; --faint: #5c5c5c; --grid: #e2e2e2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e4; --back: #16181b; --faint: #a3a3a3; --grid: #34383d; }
}
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { margin: 0; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .75rem; padding-bottom: .25rem; font-size: 1.2rem;
  border-bottom: 1px solid var(--grid); }
p { overflow-wrap: anywhere; }
.faint, figcaption, dt, th { color: var(--faint); }
.figures { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; margin: 1rem 0; padding: 0; }
.figures b { display: block; font-size: 1.8rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--grid); text-align: left;
  vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
td { overflow-wrap: break-word; max-width: 32rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0 0 1.5rem; }
svg { width: 100%; height: auto; max-width: 50rem; }
svg * { stroke-linejoin: round; }
pre { overflow-x: auto; font-size: .85rem; }
summary { cursor: pointer; margin: .75rem 0; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; } }
@media print { main { max-width: none; } }
"""
