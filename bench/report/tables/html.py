"""Tables as HTML for notebooks; the page of ``bench report`` has its own, which sort."""

from __future__ import annotations

import itertools

import jinja2

from bench.report.tables import text
from bench.report.tables.model import Table

# Styles stand at the elements: notebooks, and the sites that show them, drop style sheets.
_TEMPLATE = """\
<div style="margin-top: 1em"><b>{{ table.heading|clean }}</b></div>
<table style="border-collapse: collapse; margin: 0.5em 0">
<thead>
{% if table.columns|selectattr("group")|list %}
<tr>
  <th colspan="{{ table.stub|length }}"></th>
  {% for name, columns in groups %}
  <th colspan="{{ columns|length }}" style="text-align: center">{{ name|clean }}</th>
  {% endfor %}
</tr>
{% endif %}
<tr>
  {% for head in table.stub %}
  <th style="text-align: left">{{ head|clean }}</th>
  {% endfor %}
  {% for column in table.columns %}
  <th style="text-align: right; padding: 0.2em 0.8em">{{ column.head|clean }}{{ column.mark }}</th>
  {% endfor %}
</tr>
</thead>
<tbody>
{% for row in table.rows %}
{% if row.section and (loop.first or row.section != loop.previtem.section) %}
<tr>
  <th colspan="{{ row.heads|length + row.cells|length }}" style="text-align: left">{{ row.section|clean }}</th>
</tr>
{% endif %}
<tr{% if row.average or loop.first %} style="border-top: 1px solid"{% endif %}>
  {% for head in row.heads %}
  <th style="text-align: left{% if not row.average %}; font-weight: normal{% endif %}">{{ head|clean }}</th>
  {% endfor %}
  {% for cell in row.cells %}
  <td style="text-align: right; white-space: nowrap; padding: 0.2em 0.8em">
    {%- if cell.best %}<b>{{ cell|number(table) }}</b>
    {%- elif table.is_second(cell) %}<u>{{ cell|number(table) }}</u>
    {%- else %}{{ cell|number(table) }}
    {%- endif %}
    {%- if cell|deviation(table) %} <small>± {{ cell|deviation(table) }}</small>{% endif %}
    {%- for mark in cell.marks %}<sup>{{ mark }}</sup>{% endfor -%}
  </td>
  {% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
{% for note in table.footnotes() %}
<div><small>{% if note.mark %}<sup>{{ note.mark }}</sup> {% endif %}{{ note.text|clean }}</small></div>
{% endfor %}
"""


def render(table: Table) -> str:
    """The heading, the table and its footnotes; whatever comes from a study is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": text.number, "deviation": text.deviation, "clean": text.clean}
    grouped = itertools.groupby(table.columns, lambda column: column.group)
    groups = [(name, list(columns)) for name, columns in grouped]
    return environment.from_string(_TEMPLATE).render(table=table, groups=groups)
