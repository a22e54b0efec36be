"""The parameters of a step, from its spec: the one place where they are said."""

import re
from importlib import import_module

from docutils import nodes
from docutils.parsers.rst import Directive

from lyot.stpipe_steps import get_steps

LINE = re.compile(r"^\s*(\w+) = (\w+)\((.*)\)\s*#\s*(.*)$")


def rows_of(alias):
    """Return name, type, default and description of each parameter of a step."""
    [name] = [n for n, a, _ in get_steps() if a == alias]
    module, _, cls = name.rpartition(".")
    spec = getattr(import_module(module), cls).spec
    rows = []
    for line in spec.splitlines():
        if not line.strip():
            continue
        found = LINE.match(line)
        if not found:
            raise ValueError(f"{alias}: {line.strip()!r} is no parameter with a description.")
        parameter, kind, options, text = found.groups()
        default = re.search(r"default=(?:list\((.*?)\)|'(.*?)'|([^,)]+))", options)
        value = next((g for g in default.groups() if g is not None), "") if default else ""
        values = re.findall(r"'([^']+)'", options.split("default")[0]) if kind == "option" else []
        if values:
            text += f" ({', '.join(values)})"
        rows.append((parameter, kind.replace("force_list", "list"), value, text))
    return rows


class Parameters(Directive):
    """A table of them."""

    required_arguments = 1

    def run(self):
        """Make the table."""
        table = nodes.table(classes=["parameters"])
        group = nodes.tgroup(cols=4)
        table += group
        for width in (22, 10, 14, 54):
            group += nodes.colspec(colwidth=width)
        head, body = nodes.thead(), nodes.tbody()
        group += [head, body]
        for where, rows in (
            (head, [("parameter", "type", "default", "what")]),
            (body, rows_of(self.arguments[0])),
        ):
            for row in rows:
                line = nodes.row()
                where += line
                for k, text in enumerate(row):
                    entry, paragraph = nodes.entry(), nodes.paragraph()
                    literal = k == 0 and where is body
                    paragraph += nodes.literal(text, text) if literal else nodes.Text(text)
                    entry += paragraph
                    line += entry
        return [table]


def setup(app):
    """Register the directive."""
    app.add_directive("parameters", Parameters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
