"""The status page: one plain HTML page from the same mapping that ``/status.json`` shows.

The page knows no room of the daemon.  It draws whatever the mapping holds: plain values as a list, a list of mappings
as a table.  So a new fact in the status needs no change here.  All values are escaped; a page is bounded however large
the cluster is, because nobody reads ten thousand rows.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import Environment

ROWS_SHOWN: Final = 200

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1d2430; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .25rem 1rem .25rem 0; vertical-align: top; }
th { font-weight: 600; } thead th { border-bottom: 1px solid #9aa4b2; } td { font-family: ui-monospace, monospace; }
.ready { color: #14632b; } .not-ready { color: #9c1c1c; } .more { color: #5b6675; } footer { margin-top: 3rem; }
@media (prefers-color-scheme: dark) {
  body { background: #14181f; color: #dbe1ea; } a { color: #8db9ff; }
  .ready { color: #6fd08c; } .not-ready { color: #ff8d8d; } .more { color: #9aa4b2; }
}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>spanlan on {{ host }}</title><style>{{ style|safe }}</style></head>
<body>
<h1>spanlan on {{ host }}: {% if ready -%}
<span class="ready">ready</span>{% else %}<span class="not-ready">not ready</span>{% endif %}</h1>
<table>{% for name, value in facts %}
<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}
</table>
{% for table in tables %}
<h2>{{ table.title }}</h2>
{% if table.rows %}<table>
<thead><tr>{% for column in table.columns %}<th scope="col">{{ column }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table>
{% if table.left_out %}
<p class="more">and {{ table.left_out }} more: see <a href="status.json">status.json</a></p>{% endif %}
{% else %}<p class="more">none</p>{% endif %}
{% endfor %}
<footer><a href="status.json">status.json</a> · <a href="metrics">metrics</a> · <a href="readyz">readyz</a></footer>
</body></html>
"""

_template = Environment(autoescape=True).from_string(_PAGE)

STYLE_HASH: Final = "sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
"""What a Content-Security-Policy has to allow for the page's one style sheet."""


@dataclass(frozen=True, slots=True)
class _Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left_out: int


def render(status: Mapping[str, Any]) -> str:
    """The page for ``status``; keys ``host`` and ``ready`` make its heading."""
    facts: list[tuple[str, str]] = []
    tables: list[_Table] = []
    for key, value in status.items():
        if _is_table(value):
            tables.append(_table(key, value))
        elif isinstance(value, Mapping):
            facts += [(f"{_words(key)}: {_words(str(name))}", _text(one)) for name, one in value.items()]
        elif key not in {"host", "ready"}:
            facts.append((_words(key), _text(value)))
    return _template.render(
        host=status.get("host", "this host"),
        ready=status.get("ready") is True,
        facts=facts,
        tables=tables,
        style=_STYLE,
    )


def _is_table(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(row, Mapping) for row in value)


def _table(key: str, rows: Sequence[Mapping[str, Any]]) -> _Table:
    shown = rows[:ROWS_SHOWN]
    columns = list(dict.fromkeys(str(column) for row in shown for column in row))
    return _Table(
        title=_words(key),
        columns=[_words(column) for column in columns],
        rows=[[_text(row.get(column)) for column in columns] for row in shown],
        left_out=len(rows) - len(shown),
    )


def _words(key: str) -> str:
    return key.replace("_", " ")


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(_text(one) for one in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(one)}" for name, one in value.items())
    return str(value)
