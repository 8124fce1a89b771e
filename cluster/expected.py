"""The base class of expected errors: something outside is missing, refuses or fails, and one line says what to do.

Something outside is missing, refuses or fails, and the line says what to do. A job ends in it, without a traceback
(`jobs.runtime.entry`); callers catch the classes below this one. Bad values are `ValueError`s, which end the same way.
"""


class ExpectedError(RuntimeError):
    """One line, free of patient data."""
