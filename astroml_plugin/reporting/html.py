"""A page as one HTML text: it loads nothing, runs only the two scripts within it, and holds no markup of others."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import numpy as np

from astroml_plugin.reporting import interactive, still
from astroml_plugin.reporting.charts import Areas, Bars, Chart, Grid, Line, Points, Sheet
from astroml_plugin.reporting.pages import Block, Commands, Download, Note, Page, Pictures, Section, Spots, Table
from astroml_plugin.reporting.words import escaped, number

_NUMBERS = 40
"""Rows of numbers that are shown below a chart."""

_LONGEST_CELL = 300
_LONGEST_WORD = 32
"""Letters of a word that is not broken in a table."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Policy of a page's content, without its scripts."""


def document(page: Page) -> str:
    """The text of a page.

    Its policy forbids all connections, and all scripts but plotly's and its own, which are named by their SHA-256.
    Without plotly, and on paper, each chart is a picture.
    """
    library = interactive.library() if any(isinstance(block, Chart) for block in _blocks(page)) else None
    scripts = [] if library is None else [library.replace("</script", "<\\/script"), _asset("page.js")]
    allowed = " ".join(map(_fingerprint, scripts)) or "'none'"
    policy = f"{_POLICY}; script-src {allowed}"
    title = escaped(page.title, 120)
    body = "".join(_sections(page, live=library is not None))
    links = "".join(f'<li><a href="#s{k}">{escaped(one.title)}</a></li>' for k, one in enumerate(page.sections))
    facts = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in page.facts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{_asset("page.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the sections</a>
<header class="top">
<p class="kind">{escaped(page.kind)}</p>
<h1>{title}</h1>
<p class="subject">{escaped(page.subject)}</p>
<dl class="facts">{facts}</dl>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main id="main" tabindex="-1">
{body}
</main>
<footer><p>{escaped(page.made_by)}</p></footer>
{"".join(f"<script>{text}</script>" for text in scripts)}
</body>
</html>
"""


def _asset(name: str) -> str:
    return files("astroml_plugin.reporting").joinpath("assets", name).read_text("utf-8")


def _fingerprint(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _blocks(page: Page) -> Iterator[Block]:
    for section in page.sections:
        yield from section.blocks


def _sections(page: Page, *, live: bool) -> Iterator[str]:
    for place, section in enumerate(page.sections):
        yield f'<section aria-labelledby="s{place}"><h2 id="s{place}">{escaped(section.title)}</h2>'
        yield from (f"<p>{_prose(text)}</p>" for text in section.text.split("\n\n") if text)
        yield from _content(section, place, live=live)
        if section.threshold:
            yield f'<p class="threshold">{_prose(section.threshold)}</p>'
        yield "</section>"
    if page.missing:
        rows = "".join(f"<li><b>{escaped(one.title)}</b>: {escaped(one.reason)}</li>" for one in page.missing)
        yield f'<section aria-labelledby="missing"><h2 id="missing">Not on this page</h2><ul>{rows}</ul></section>'


def _prose(text: str) -> str:
    """A paragraph; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped(text))


def _content(section: Section, place: int, *, live: bool) -> Iterator[str]:
    """Blocks in order; charts that follow one another stand side by side."""
    open_row = False
    for number_, block in enumerate(section.blocks):
        chart = isinstance(block, Chart)
        if chart != open_row:
            yield '<div class="charts">' if chart else "</div>"
            open_row = chart
        if isinstance(block, Chart):
            yield _chart(block, f"c{place}-{number_}", live=live)
        else:
            yield _WRITTEN[type(block)](block)
    if open_row:
        yield "</div>"


def _chart(chart: Chart, name: str, *, live: bool) -> str:
    alt = escaped(chart.alt or f"{chart.title}: {chart.y.label} against {chart.x.label}")
    data = json.dumps(interactive.figure(chart), allow_nan=False).replace("<", "\\u003c") if live else ""
    moving = "" if chart.sheet is None else _sheet(chart.sheet)
    moving += (
        f'<div class="live" role="img" aria-label="{alt}" style="height:{chart.height}px"></div>'
        f'<script type="application/json">{data}</script>'
    )
    return (
        f'<figure class="chart{"" if chart.half else " wide"}" aria-labelledby="{name}">'
        f'<figcaption id="{name}">{escaped(chart.title)}</figcaption>'
        f'<img class="still" alt="{alt}" src="{_data_url(still.png(chart))}">{moving if live else ""}'
        f"{_numbers(chart)}</figure>"
    )


def _sheet(sheet: Sheet) -> str:
    """The pictures of a chart's points, shown one by one to those who point at them."""
    source = _data_url(sheet.data, "image/jpeg")
    return f'<img class="sheet" alt="" hidden data-side="{sheet.side}" data-columns="{sheet.columns}" src="{source}">'


def _data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


# ---- numbers below a chart ---------------------------------------------------------------------------------------


def _numbers(chart: Chart) -> str:
    """The chart as a table that opens: for readers of screens, and for those who want the value."""
    rows = [row for series in chart.series for row in _values(series, chart)]
    if not rows:
        return ""
    places = any(isinstance(series, Areas) for series in chart.series)
    head = ("place and value" if places else chart.x.label or "x", chart.y.label or "y", "series", "interval")
    shown = Table(head, rows[:_NUMBERS], left_out=max(len(rows) - _NUMBERS, 0), folded=True, title="Numbers")
    return _table(shown)


def _values(series: Any, chart: Chart) -> Iterator[tuple[str, str, str, str]]:
    if isinstance(series, Areas):
        for text in series.texts[: _NUMBERS + 1]:
            yield text, "", "", ""
    elif isinstance(series, Grid):
        for row, cells in enumerate(series.values.tolist()):
            for column, value in enumerate(cells):
                yield _tick(chart.x.ticks, column), _tick(chart.y.ticks, row), number(value), ""
    elif isinstance(series, Bars | Line | Points) and (series.name or isinstance(series, Bars)):
        if getattr(series, "hidden", False):
            return
        names = chart.y.ticks if getattr(series, "sideways", False) else chart.x.ticks
        low, high = series.low, series.high
        for place in range(len(series.x)):
            if np.isfinite(series.y[place]):
                ends = "" if low is None or high is None else f"{number(low[place])} to {number(high[place])}"
                x = _tick(names, series.x[place]) if names else number(float(series.x[place]))
                yield x, number(float(series.y[place])), series.name, ends


def _tick(ticks: Any, place: float) -> str:
    whole = int(place)
    return str(ticks[whole]) if whole == place and 0 <= whole < len(ticks) else number(float(place))


# ---- other blocks ------------------------------------------------------------------------------------------------


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    numeric = [all(_is_number(row[k]) for row in table.rows) for k in range(len(table.columns))]
    used = [k for k in range(len(table.columns)) if any(row[k] for row in table.rows)]
    head = "".join(f'<th scope="col">{escaped(table.columns[k] or "value")}</th>' for k in used)
    body = "".join(
        f"<tr{f' id=row{place}' if table.numbered else ''}>"
        + "".join(f"<td{_kind(row[k], numeric[k])}>{escaped(row[k], _LONGEST_CELL)}</td>" for k in used)
        + "</tr>"
        for place, row in enumerate(table.rows)
    )
    more = f"<p>… and {table.left_out:,} more.</p>" if table.left_out else ""
    caption = f"<caption>{escaped(table.title)}</caption>" if table.title and not table.folded else ""
    name = escaped(table.title or "Table")
    text = (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{name}"><table>{caption}<thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>{more}"
    )
    return f"<details><summary>{name}</summary>{text}</details>" if table.folded else text


def _kind(text: str, numeric: bool) -> str:
    """Class of a cell: numbers stand right and whole, words stay whole, and only what is longer than a name breaks."""
    long = any(len(word) > _LONGEST_WORD for word in text.split())
    return " class=n" if numeric else " class=long" if long else ""


def _is_number(text: str) -> bool:
    plain = text.replace(",", "").removesuffix("%").rstrip()
    if plain in ("", "–"):
        return True
    try:
        float(plain)
    except ValueError:
        return False
    return True


def _pictures(block: Pictures) -> str:
    items = []
    for one in block.pictures:
        lines = "<br>".join(escaped(line, 200) for line in one.caption)
        alt = "" if [one.alt] == [*one.caption] else escaped(one.alt)  # the words below are not read out twice
        items.append(f'<li><img alt="{alt}" src="{_data_url(one.data)}"><p>{lines}</p></li>')
    title = f"<h3>{escaped(block.title)}</h3>" if block.title else ""
    return f'{title}<ul class="stamps{" wide" if block.wide else ""}">{"".join(items)}</ul>'


def _spots(block: Spots) -> str:
    """An SVG over the picture; each place is a link to its row."""
    width, height = block.size
    marks = "".join(
        f'<a href="#row{place}" aria-label="{escaped(text)}">'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{max(radius, 7):.1f}">'
        f"<title>{escaped(text)}</title></circle></a>"
        for place, (x, y, radius, text) in enumerate(block.places)
    )
    image = f'<image width="{width}" height="{height}" href="{_data_url(block.picture.data)}"></image>'
    alt = escaped(block.picture.alt)
    return f'<svg class="spots" viewBox="0 0 {width} {height}" role="group" aria-label="{alt}">{image}{marks}</svg>'


def _note(note: Note) -> str:
    return f'<p class="note{" bad" if note.bad else ""}">{_prose(note.text)}</p>'


def _commands(commands: Commands) -> str:
    return "".join(
        f'<p class="what">{escaped(what)}</p><pre tabindex="0">{escaped(line)}</pre>' for what, line in commands.lines
    )


def _download(block: Download) -> str:
    href = _data_url(block.data, "application/octet-stream")
    return f'<p><a download="{escaped(block.name)}" href="{href}">{escaped(block.text)}</a></p>'


_WRITTEN: dict[type, Callable[[Any], str]] = {
    Table: _table,
    Pictures: _pictures,
    Spots: _spots,
    Note: _note,
    Commands: _commands,
    Download: _download,
}
