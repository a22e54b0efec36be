"""The exceptions of the package, and the boundary where libraries read files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MAX_REASON = 200
"""Characters of a library's message that ours repeats."""


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
    if not reason or any(word in reason for word in ("__init__()", "object", "0x")):
        return "it is damaged"
    return str(reason)[:MAX_REASON].rstrip(".")
