"""The exceptions of the package."""


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
