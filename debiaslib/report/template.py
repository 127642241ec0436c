"""The body of the report as a jinja2 template; all that is filled in is escaped, but for captions, which are HTML."""

import jinja2

_SOURCE = """\
{% macro table(one, number=0, numeric=true) %}
<div class="table">
<p class="caption"><b>{{ "Table %d. " % number if number }}{{ one.title }}.</b> {{ one.caption }}</p>
<div class="scroll"><table aria-label="{{ one.title }}">
<thead><tr>
{%- for name in one.head -%}
<th scope="col"{% if numeric and not loop.first %} class="number"{% endif %}>{{ name }}</th>
{%- endfor -%}
</tr></thead>
<tbody>
{% for first, cells in one.rows %}
<tr{% if first == one.last %} class="last"{% endif %}><th scope="row">{{ first }}</th>
{%- for cell in cells -%}
{%- if cells|length == 1 and one.head|length > 2 -%}
<td class="spread" colspan="{{ one.head|length - 1 }}">{{ cell }}</td>
{%- else -%}
<td{% if numeric %} class="number"{% endif %}>{{ cell }}</td>
{%- endif -%}
{%- endfor -%}
</tr>
{% endfor %}
</tbody>
</table></div>
</div>
{% endmacro %}

<h1>{{ title }}</h1>
<p class="record">{{ record }}</p>
<p>{{ statement }}</p>

{% if notebooks %}
<nav><b>The notebooks, executed:</b>
{% for name, heading in notebooks %}
<a href="{{ name }}">{{ heading }}</a>{{ " · " if not loop.last }}
{% endfor %}</nav>
{% endif %}

{% if missing_runs or missing_figures or missing_tables or missing_notebooks %}
<div class="missing">
<p><b>Not complete.</b> What is missing below has not been made yet, or could not be:</p>
<ul>
{% for name in missing_runs %}
<li>training not complete: {{ name }}</li>
{% endfor %}
{% for name, heading, notebook in missing_figures %}
<li>figure missing: {{ heading }} (<code>{{ name }}</code>), which notebook {{ notebook }} draws</li>
{% endfor %}
{% for name in missing_notebooks %}
<li>notebook not executed: {{ name }}</li>
{% endfor %}
{% for name in missing_tables %}
<li>table missing: <code>{{ name }}</code></li>
{% endfor %}
</ul>
</div>
{% endif %}

<h2>Figures</h2>
{% for figure in figures %}
<figure id="{{ figure.name }}">
<img src="data:image/png;base64,{{ figure.png }}" alt="{{ figure.title }}">
<figcaption><b>Figure {{ loop.index }}. {{ figure.title }}.</b> {{ figure.caption | safe }}
{% for text, address in figure.links %}{{ " · " if not loop.first }}<a href="{{ address }}">{{ text }}</a>{% endfor %}
</figcaption>
</figure>
{% else %}
<p>None has been drawn yet.</p>
{% endfor %}

<h2>Tables</h2>
{% for one in tables %}
{{ table(one, loop.index) }}
{% else %}
<p>None has been made yet.</p>
{% endfor %}

<h2>What was run</h2>
{{ table(times) }}
{{ table(provenance, numeric=false) }}
<details><summary>All settings of the experiment</summary>
{{ table(settings, numeric=false) }}
</details>

<h2>Files</h2>
{% for folder, entries in files %}
<p class="small"><b>{{ folder }}/</b></p>
<ul class="files">
{% for name, links in entries %}
<li>{{ name }}{% for text, address in links %} <a href="{{ address }}">{{ text }}</a>{% endfor %}</li>
{% endfor %}
</ul>
{% endfor %}
"""

TEMPLATE = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
).from_string(_SOURCE)  # fmt: skip
