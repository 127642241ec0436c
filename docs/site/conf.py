"""Sphinx's settings for `make site`. build.py copies this file beside the pages that it gathers."""

from docutils import nodes

from debiaslib.report.notebook_html import to_mathml
from docs.site.docstrings import to_html

project = "debiaslib"
author = "the authors of debiaslib"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_title = "debiaslib"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_theme_options = {
    "description": "Does weighting a diffusion model's loss by 1/sqrt(SNR) mend its bias?",
    "page_width": "1160px",
    "sidebar_width": "250px",
    "show_powered_by": False,
    "show_relbars": True,
}
html_math_renderer = "mathml"

# Pages are shown as they were executed, and load nothing.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_render_markdown_format = "myst"
nb_output_stderr = "remove"
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_dmath_double_inline = True
myst_update_mathjax = False
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "bysource"
add_module_names = False
suppress_warnings = ["mystnb.lexer", "myst.header", "misc.highlighting_failure"]


def _inline(self, node):
    self.body.append(to_mathml(node.astext()))
    raise nodes.SkipNode


def _display(self, node):
    text = node.astext()
    if "\\\\" in text and "\\begin" not in text:
        text = rf"\begin{{align*}}{text}\end{{align*}}"
    self.body.append(f'<div class="formula">{to_mathml(text, display=True)}</div>')
    raise nodes.SkipNode


def _docstring(app, what, name, thing, options, lines):
    """Our docstrings are plain text and not reStructuredText."""
    if any(lines):
        lines[:] = [".. raw:: html", "", *("   " + line for line in to_html(lines).split("\n")), ""]


def _skip(app, what, name, thing, skip, options):
    """The fields of a NamedTuple, whose own docstrings say only "Alias for field number 0"."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def setup(app):
    """Formulas become MathML while the site is built, so that no page needs a script for them."""
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-skip-member", _skip)
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
