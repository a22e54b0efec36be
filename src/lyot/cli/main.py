"""The group of all commands, what they share, and how errors are printed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from lyot._version import __version__
from lyot.cli.options import ParameterOptions, option_of
from lyot.errors import LyotError, last_words

MAX_MESSAGE = 300
"""Characters of a message that may repeat what was given, from its beginning and its end."""
_COMMAND_OF = {
    "Coron3Pipeline": "lyot run ASN",
    "lyot.references.library.build": "lyot library build LIB FILES",
    "lyot.references.library.add": "lyot library add LIB FILES",
}
"""The commands that do what the functions do which an error names."""


class Command(click.Command):
    """A command that ends with one sentence and a non-zero status on bad input."""

    _params: list[click.Parameter]

    @property
    def params(self) -> list[click.Parameter]:
        """Its arguments and options."""
        if any(isinstance(each, ParameterOptions) for each in self._params):
            self._params = [
                param
                for each in self._params
                for param in (each.options() if isinstance(each, ParameterOptions) else [each])
            ]
        return self._params

    @params.setter
    def params(self, params: list[click.Parameter]) -> None:
        self._params = params

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as err:
            if len(err.message or "") <= MAX_MESSAGE:
                raise
            raise click.UsageError(f"{err.message[:MAX_MESSAGE]} ...", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        from lyot.compute import process

        try:
            process.check_address_space()
            return super().invoke(ctx)
        except LyotError as err:
            fail(self._sentence(err), 1)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as err:
            fail(*last_words(err))

    def _sentence(self, error: LyotError) -> str:
        """Add to an error the option or the command that mends it."""
        option = option_of(self, error.parameter) if error.parameter else ""
        command = _COMMAND_OF.get(error.function, "")
        hint = f" (option {option})" if option else f" (`{command}`)" if command else ""
        text = str(error)
        return f"{text[:-1]}{hint}." if hint and text.endswith(".") else text + hint


class Commands(click.Group):
    """A group that lists its commands in the order in which they are used."""

    command_class = Command
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lyot")
def main() -> None:
    """JWST coronagraphy: from calibrated exposures to PSF-subtracted images.

    `lyot demo` simulates a small observation and reduces it. With files of your own, `lyot run
    FOLDER -o DIR` sorts and reduces the exposures of a folder and searches for companions; `lyot
    contrast DIR`, `lyot detect DIR` and `lyot companion DIR` measure more. Each command explains
    itself with --help.
    """
    from lyot.compute import process

    process.own()


def fail(text: str, status: int) -> None:
    """End the process with a sentence on standard error."""
    if len(text) > 2 * MAX_MESSAGE:  # a value that was given may have any length
        text = f"{text[:MAX_MESSAGE]} ... {text[-MAX_MESSAGE:]}"
    click.echo(f"lyot: error: {text}", err=True)
    sys.exit(status)


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Show warnings of the package on standard error; keep the libraries quiet."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("lyot: %(levelname)s: %(message)s"))
    logger = logging.getLogger("lyot")
    logging.getLogger("stpipe").setLevel(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
