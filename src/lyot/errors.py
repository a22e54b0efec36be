"""The exceptions of the package, and its boundaries: around what libraries read, and commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

WORDS_OF_PYTHON = ("__init__()", "object", "0x", "<class", "NoneType")
"""What a reason must not hold to be shown."""
MAX_REASON = 200
"""Characters of a library's message that ours repeats."""
INTERRUPTED, INTERNAL = 130, 70
"""Exit statuses: after Ctrl-C, and of an error of the package itself, EX_SOFTWARE of sysexits.h."""


class LyotError(ValueError):
    """Something is wrong with the data or the request.

    Its text is one sentence that says what is wrong, where, and what to do, in the words of a
    Python user. It is a `ValueError`, so code that guards against bad values catches it.

    Parameters
    ----------
    text : str
        The sentence.
    parameter : str, optional
        Name of the parameter to change; the command line adds the option that sets it.
    function : str, optional
        Name of the public function to call; the command line adds the command that does.

    Examples
    --------
    >>> from lyot.parameters import OutlierRecipe
    >>> try:
    ...     OutlierRecipe(n_sigma=0.5)
    ... except LyotError as err:
    ...     print(err.parameter, "|", err)
    n_sigma | n_sigma is 0.5; it must be at least 1.
    """

    def __init__(self, text: str, /, *, parameter: str = "", function: str = "") -> None:
        super().__init__(text)
        self.parameter = parameter
        self.function = function


@contextmanager
def readable(what: object, remedy: str = "fetch it again", /) -> Iterator[None]:
    """Turn whatever a library raises while it reads a file into one sentence about the file."""
    try:
        yield
    except LyotError:
        raise
    except Exception as err:
        if type(err) is FileNotFoundError:
            raise LyotError(f"{what} does not exist; check the path.") from None
        raise LyotError(f"{what} cannot be read ({reason_of(err)}); {remedy}.") from err


def reason_of(error: Exception, /) -> str:
    """Say in the words of a library why it failed, where they are words for a user."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not text"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
    if not reason or any(word in reason for word in WORDS_OF_PYTHON):
        return "it is damaged"
    return str(reason)[:MAX_REASON].rstrip(".")


def last_words(error: BaseException, /) -> tuple[str, int]:
    """Say in one sentence what ends a command, with its exit status.

    The traceback of an error that is neither of the input nor of the system goes to a file.
    """
    import sys
    import tempfile
    import traceback
    from pathlib import Path

    from lyot._version import __version__

    if isinstance(error, LyotError):
        return str(error), 1
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted; the products that were finished are complete.", INTERRUPTED
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{where}.", 1
    own = [f for f in traceback.extract_tb(error.__traceback__) if "lyot" in f.filename]
    place = f" in {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
    with tempfile.NamedTemporaryFile(
        "w", prefix="lyot-error-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write(f"lyot {__version__}: {' '.join(sys.argv)}\n\n")
        traceback.print_exception(error, file=log)
    return (
        f"This is an error of lyot itself: {type(error).__name__}{place}; please report it with "
        f"{log.name}."
    ), INTERNAL
