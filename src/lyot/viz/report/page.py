"""The report as one HTML file: sections rendered by templates, with script and style inside."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from lyot.files.atomic import atomic_write
from lyot.viz.report import sections
from lyot.viz.report.blocks import Block, color_maps, in_base64
from lyot.viz.report.facts import RunFacts, read_facts


def write_report(
    folder: str | Path,
    /,
    *,
    command: list[str] | None = None,
    products: list[str] | None = None,
) -> str:
    """Write the report of a run, from its products and the results of analyses beside them.

    Parameters
    ----------
    folder : path
        The folder of the run.
    command : list of str, optional
        The command that made it; by default the one that the run recorded.
    products : list of str, optional
        Its products; by default those that the run recorded, so that products of an earlier run
        in the same folder are not shown.

    Returns
    -------
    str
        Path of the report, ``<product>_report.html``.

    Raises
    ------
    LyotError
        If the folder holds no combined image, or those of several associations.

    Examples
    --------
    >>> from lyot import Coron3Pipeline
    >>> image = Coron3Pipeline.call("asn.json", output_dir="reduced")
    >>> Path(write_report("reduced")).suffix
    '.html'
    """
    run = read_facts(Path(folder), command=command, products=products)
    text = render(run)
    path = Path(folder) / f"{run.name}_report.html"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return str(path)


def render(run: RunFacts, /) -> str:
    """Return the report of a run as one document that refers to nothing outside it."""
    return fill(
        name=run.name,
        title=sections.title(run),
        lead=sections.lead(run),
        warnings=sections.warnings(run),
        blocks={title: list(make(run)) for title, make in sections.SECTIONS.items()},
    )


def fill(
    *, name: str, title: str, lead: str, warnings: list[str], blocks: dict[str, list[Block]]
) -> str:
    """Fill the template; a section without blocks is left out."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("lyot.viz.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The names of exposures are long: they may be broken after an underscore.
    environment.filters["breakable"] = lambda text: Markup("_<wbr>").join(text.split("_"))
    environment.filters["base64"] = in_base64
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment.get_template("page.html").render(
        name=name,
        title=title,
        lead=lead,
        warnings=warnings,
        sections={heading: shown for heading, shown in blocks.items() if shown},
        style=_read("page.css"),
        script=_read("viewer.js"),
        color_maps=color_maps(),
    )


def _read(name: str) -> str:
    return files("lyot.viz.report").joinpath(name).read_text(encoding="utf-8")
