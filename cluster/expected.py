"""The base class of expected errors: something outside is missing, refuses or fails, and one line says what to do.

A job ends in it, without a traceback (`jobs.runtime.entry`); callers catch its subclasses. Bad values are
`ValueError`s, which end the same way.
"""


class ExpectedError(RuntimeError):
    """One line, free of patient data."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something; the error's class where there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
