"""Reports: Markdown from jinja2 templates, tables, and a page of HTML that needs no other file.

What stands in a report comes from runs, folders and servers, so every value is data: what Markdown or HTML would read
as markup is escaped, unless it is ``Markdown`` that this package made.
"""

import base64
from collections.abc import Sequence
from functools import cache
from html import escape as escape_html
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt

_MARKUP = str.maketrans(
    {"\\": "\\\\", "|": "\\|", "`": "\\`", "[": "\\[", "]": "\\]", "<": "&lt;", ">": "&gt;", "&": "&amp;"}
)
"""Emphasis is let be: it changes how a name looks, and escaping it would make every ``_`` unreadable."""


class Markdown(str):
    """Text that is Markdown already, and not a value to be escaped."""


def escape(value: Any) -> Markdown:
    """A value as Markdown that shows it as it is, in one line."""
    if isinstance(value, Markdown):
        return value
    printable = "".join(c if c.isprintable() else " " for c in str(value))
    return Markdown(printable.translate(_MARKUP))


def render(package: str, template: str, **values: Any) -> Markdown:
    """Fill a template of ``package``'s folder ``templates``. Every value is escaped unless it is ``Markdown``."""
    return Markdown(_environment(package).get_template(template).render(**values))


@cache
def _environment(package: str) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        undefined=jinja2.StrictUndefined,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"line": _line, "count": "{:,}".format}
    return environment


def _line(text: str) -> Markdown:
    """For ``{% filter line %}``: rendered text of several lines as one."""
    return Markdown(" ".join(text.split()))


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, words: int = 1) -> Markdown:
    """A table. The first ``words`` columns hold words, to the left; the others hold numbers, to the right."""
    rule = [":---" if i < words else "---:" for i in range(len(headers))]
    lines = [map(escape, headers), rule, *(map(escape, row) for row in rows)]
    return Markdown("\n".join("| " + " | ".join(cells) + " |" for cells in lines))


def html_page(text: str, *, title: str, pictures: Sequence[Path] = ()) -> str:
    """Markdown as one page that needs no other file; HTML in it is shown, not obeyed.

    Args:
        text: Markdown.
        title: of the page.
        pictures: PNG files that the text shows by their names.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    for picture in pictures:
        data = base64.b64encode(picture.read_bytes()).decode()
        body = body.replace(f'src="{picture.name}"', f'src="data:image/png;base64,{data}"')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape_html(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
td[style*=left] { text-align: left; }
thead th { border-bottom: 2px solid #888; }
img { max-width: 100%; }
pre { background: #f4f4f4; padding: .7rem; overflow-x: auto; }
"""
