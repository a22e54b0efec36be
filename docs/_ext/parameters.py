"""Tables of parameters, from the classes of parameters: the one place where they are declared."""

from docutils import nodes
from docutils.parsers.rst import Directive

from lyot.parameters import COMMANDS, STEPS, parameters_of

HEADER = ("parameter", "type", "default", "description")


def row_of(parameter):
    """Return name, type, default and description of a parameter."""
    text = parameter.description
    if parameter.allowed:
        text += f" ({parameter.allowed})"
    default = parameter.default
    if isinstance(default, tuple):
        default = ", ".join(map(str, default))
    return parameter.step, parameter.kind, "" if default is None else str(default), text


def rows_of(name):
    """Return a row for each parameter of a step or of an analysis command."""
    kinds = STEPS[name] if name in STEPS else COMMANDS[name]
    return [row_of(each) for kind in kinds for each in parameters_of(kind)]


class Parameters(Directive):
    """A table of the parameters of a step or of an analysis command."""

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
        for where, rows in ((head, [HEADER]), (body, rows_of(self.arguments[0]))):
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
