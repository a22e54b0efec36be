"""The exceptions of the package."""


class LyotError(ValueError):
    """Something is wrong with the data or the request.

    Its text is one sentence that says what is wrong, where, and what to do. It is a
    `ValueError`, so code that guards against bad values catches it.
    """
