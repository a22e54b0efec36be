"""Commands that make and show products: demo, asn, run, report, info."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lyot.cli.main import fail, main, shown_warnings
from lyot.cli.options import AS_JSON, SCHEDULER, output_dir, parameter_options, taken, typed_steps
from lyot.errors import LyotError
from lyot.progress import Progress, show_progress

if TYPE_CHECKING:
    from lyot.survey import Finished, Job


@main.command()
@output_dir("Folder of the simulated files and the products.", "lyot-demo")
@click.option("--seed", default=1, show_default=True, help="Seed of the random numbers.")
def demo(output_dir: str, seed: int) -> None:
    """Simulate a small NIRCam observation and reduce it."""
    from lyot.simulate import simulate_observation

    folder = Path(output_dir)
    click.echo(f"Simulating an observation of a star with a disc and two companions in {folder}/")
    association = simulate_observation(folder / "exposures", seed=seed)
    click.echo(f"Reducing {association}")
    reduce_all([str(association)], str(folder / "products"), {"rerun": True})
    click.echo(f"\nProducts: {folder / 'products'}")
    click.echo(f"Truth:    {folder / 'exposures' / 'truth.json'}")


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="The association file; a folder where there are several.  [default: PRODUCT_asn.json]",
)
def asn(files: tuple[str, ...], output: str | None) -> None:
    """Sort exposures into associations by their headers.

    FILES are exposures, or folders with exposures. There is one association for each science
    target and mode: instrument, detector, filter, pupil, mask, subarray, aperture. References
    have IS_PSF; dedicated backgrounds BKGDTARG, a dither pattern or a target name of
    backgrounds; target acquisitions are recognized by EXP_TYPE.
    """
    from lyot.files.association import FOLDER_KEY
    from lyot.files.atomic import write_json
    from lyot.files.sorting import sort_exposures

    associations, unused = sort_exposures(list(files))
    for content in associations:
        name = f"{content['products'][0]['name']}_asn.json"
        path = Path(output) if output else Path(name)
        if output and (path.is_dir() or len(associations) > 1):
            path = path / name
        if str(path.resolve().parent) == content[FOLDER_KEY]:
            del content[FOLDER_KEY]
        write_json(content, path)
        kinds = Counter(m["exptype"] for m in content["products"][0]["members"])
        click.echo(f"{path}: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}")
    for exposure, reason in unused:
        click.echo(f"{exposure.name} is not used: {reason}.")


@main.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@output_dir("Folder of the products.", ".")
@click.option("--input-dir", metavar="DIR", help="Folder of the members of the associations.")
@parameter_options(lambda p: dict.fromkeys(chain(*p.STEPS.values())), attrgetter("option"))
@click.option(
    "--star",
    nargs=2,
    type=float,
    metavar="X Y",
    help="Position of the star in the science exposures [pixel, 0-based]; measured by default.",
)
@click.option("--no-psfalign", is_flag=True, help="Do not write the aligned references.")
@click.option(
    "--only-final",
    is_flag=True,
    help="Write only the combined image, SNR image and contrast curve.",
)
@click.option(
    "--measure",
    is_flag=True,
    help="Measure the candidates that are points: position and flux, with their error budget.",
)
@click.option("--no-search", is_flag=True, help="Do not search for companions.")
@click.option("--no-report", is_flag=True, help="Do not write the report.")
@parameter_options(lambda p: [p.ObservationParameters, p.MassParameters], attrgetter("option"))
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="STEP.NAME=VALUE",
    help="Set any parameter of any step; the documentation of the steps lists them.",
)
@SCHEDULER
@click.option(
    "--plan",
    "only_plan",
    is_flag=True,
    help="Print what would be done, without doing it: references, products, disk space.",
)
@click.option("--rerun", is_flag=True, help="Re-run even if up to date.")
@AS_JSON
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def run(sources: tuple[str, ...], output_dir: str, **options: Any) -> None:
    """Reduce exposures: images, candidates and a report.

    A SOURCE is a folder of exposures, an exposure, or an association. Exposures are sorted by
    their headers into an association for each science target and mode, as by `lyot asn`, which
    is written beside the products. A folder with associations stands for them. An association
    whose inputs, parameters and products are unchanged is skipped. Each of several associations
    gets a folder of its own in DIR, and one that fails does not stop the others. A run ends
    with a search for companions and, with the brightness of the star, with contrast limits;
    with age, distance and a table of models these are in Jupiter masses too.
    """
    reduce_all(sources, output_dir, options)


def _steps(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the values of parameters that options give, by step and name."""
    from lyot.parameters import PIPELINE, STEPS, SaveParameters, StarParameters, parameters_of

    steps = typed_steps(options)
    if options.get("star"):
        x, y = options["star"]
        for step in (s for s, kinds in STEPS.items() if StarParameters in kinds):
            steps.setdefault(step, {}).update(star_x=x, star_y=y)
    unsaved = ["save_psfalign"] if options.get("no_psfalign") else []
    if options.get("only_final"):
        unsaved = [each.name for each in parameters_of(SaveParameters)]
    if unsaved:
        steps.setdefault(PIPELINE, {}).update(dict.fromkeys(unsaved, False))
    for text in options.get("settings") or ():
        key, separator, value = text.partition("=")
        step, dot, name = key.removeprefix("steps.").partition(".")
        if not (separator and dot and name):
            raise LyotError(f"--set {text!r} is not STEP.NAME=VALUE, such as klip.truncate=20.")
        steps.setdefault(step, {})[name] = value
    return steps


def _job(output_dir: str, options: Mapping[str, Any]) -> Job:
    """Make a job of the options, for any association."""
    from lyot.parameters import MassParameters, ObservationParameters, parameters_of, read_steps
    from lyot.survey import Job

    star = {e.step: options.get(e.step) for e in parameters_of(ObservationParameters) if e.option}
    observation, masses = taken(ObservationParameters, star), taken(MassParameters, options)
    has_star = observation != ObservationParameters()
    if masses.is_given and not has_star:
        raise LyotError(
            "Limits in mass need the brightness of the star too.", parameter="star_magnitude"
        )
    if options.get("measure") and options.get("no_search"):
        raise LyotError("--measure needs the search that --no-search leaves out; give one of them.")
    if has_star and (options.get("only_final") or options.get("no_psfalign")):
        raise LyotError(
            "Contrast limits need the products that --only-final and --no-psfalign leave out; "
            "give either these or the brightness of the star."
        )
    # Nothing was typed outside of a command.
    context = click.get_current_context(silent=True)
    return Job(
        association="",
        output_dir=str(output_dir),
        parameters=read_steps(_steps(options)),
        input_dir=options.get("input_dir") or "",
        observation=observation if has_star else None,
        masses=masses,
        measure=bool(options.get("measure")),
        search=not options.get("no_search"),
        report=not options.get("no_report"),
        rerun=bool(options.get("rerun")),
        command=() if context is None else ("lyot", *sys.argv[1:]),
    )


def reduce_all(sources: Sequence[str], output_dir: str, options: Mapping[str, Any]) -> None:
    """Reduce exposures or associations, and print what was made."""
    from lyot import survey
    from lyot.cli.tables import print_comparison

    page, compared = "", list[dict[str, Any]]()
    with shown_warnings():
        jobs = survey.plan(_job(output_dir, options), survey.expand(sources))
    if options.get("only_plan"):
        plans = [survey.plan_of(job) for job in jobs]
        as_json = json.dumps([plan.to_dict() for plan in plans], indent=2)
        click.echo(as_json if options.get("as_json") else "\n\n".join(map(str, plans)))
        return
    with shown_warnings(), show_progress(quiet=bool(options.get("quiet"))) as progress:
        if len(jobs) == 1 and not options.get("scheduler"):
            finished = [survey.reduce(jobs[0], progress=progress)]
        else:
            finished = _survey(jobs, options.get("scheduler"), progress)
        if len(jobs) > 1:
            from lyot.comparison import compare

            compared = compare(finished, output_dir, progress=progress)
            page = survey.write_summary(finished, output_dir, report=not options.get("no_report"))
    _print_finished(finished, output_dir, page, as_json=bool(options.get("as_json")))
    if compared and not options.get("as_json"):
        print_comparison(compared)
    n_failed = sum(each.state == survey.FAILED for each in finished)
    if n_failed:
        fail(f"{n_failed} of {len(finished)} associations failed; the table says why.", 1)


def _print_finished(
    finished: Sequence[Finished], output_dir: str, page: str, *, as_json: bool
) -> None:
    from lyot.cli.tables import print_run, print_survey

    if as_json:
        click.echo(json.dumps([asdict(each) for each in finished], indent=2))
    elif len(finished) == 1 and finished[0].state != "failed":
        click.echo("\n".join(finished[0].products))
        print_run(finished[0])
    else:
        print_survey(finished, output_dir)
        if page:
            click.echo(f"Report: {page}")


def _survey(jobs: Sequence[Job], scheduler: str | None, progress: Progress) -> list[Finished]:
    """Reduce several associations, and return what became of them in their order."""
    from lyot import survey
    from lyot.compute.cluster import tasks

    place = {job.association: number for number, job in enumerate(jobs)}
    finished: list[Finished] = []
    with tasks(scheduler) as where:
        progress("associations", 0, len(jobs))
        for each in survey.run(jobs, where):
            finished.append(each)
            progress("associations", len(finished), len(jobs))
    return sorted(finished, key=lambda each: place[each.association])


@main.command()
@click.argument("run", metavar="RUN")
def report(run: str) -> None:
    """Write the report of a finished run or survey again.

    RUN is its folder. The report shows the analyses that lie in it.
    """
    from lyot.files.results import SURVEY_SUMMARY
    from lyot.viz.report import write_report, write_survey_report

    is_survey = (Path(run) / SURVEY_SUMMARY).is_file()
    click.echo(write_survey_report(run) if is_survey else write_report(run))


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@AS_JSON
def info(files: tuple[str, ...], as_json: bool) -> None:
    """Describe files: exposures or products."""
    from lyot.cli.tables import print_files
    from lyot.files.view import describe

    print_files([describe(path) for path in files], as_json=as_json)
