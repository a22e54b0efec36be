"""Equations as MathML, which browsers draw themselves: no script, no network."""

from docutils import nodes
from latex2mathml.converter import convert

REPLACED = {r"\operatorname": r"\mathrm", r"\,": " "}


def _mathml(text, display):
    for old, new in REPLACED.items():
        text = text.replace(old, new)
    return convert(text, display=display)


def inline(translator, node):
    """Write an equation within a line."""
    translator.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block(translator, node):
    """Write an equation that stands alone."""
    translator.body.append(f"<div class='math'>{_mathml(node.astext(), 'block')}</div>")
    raise nodes.SkipNode


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(inline, None), block_renderers=(block, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
