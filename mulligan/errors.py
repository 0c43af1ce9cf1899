"""Every error that a person can meet: WHAT (WHERE). WHY. DO: the corrected call.

The library raises these, the command line prints the same text after ``mulligan: `` and leaves with ``exit_code``.
Standard library only, so that ``mulligan --help`` stays light.
"""

from __future__ import annotations

from typing import Any


class MulliganError(Exception):
    """Base of all errors that are the reader's to mend.

    ``what`` is the finding, ``where`` the place (file, row, column, option), ``why`` what follows from it, and ``do``
    the command or call that mends it. Only ``what`` is compulsory.

    >>> str(DataError("'age' has 3 empty cells", "rows 4, 9, 12", "Densities need complete rows", "--missing drop"))
    "'age' has 3 empty cells (rows 4, 9, 12). Densities need complete rows. DO: --missing drop"
    """

    exit_code = 1

    def __init__(self, what: str, where: str = "", why: str = "", do: str = ""):
        self.what, self.where, self.why, self.do = what, where, why, do
        head = f"{what} ({where})" if where else what
        sentences = [part if part[-1] in "?!" else part.rstrip(".") + "." for part in (head, why) if part]
        text = " ".join(sentences)
        super().__init__(f"{text} DO: {do}" if do else text)


class UsageError(MulliganError):
    """The call itself is wrong: an unknown name, an option out of its range."""

    exit_code = 2


class NoDensity(UsageError):
    """The model has no log density (a GAN, or the ``resample`` baseline): rows cannot be scored with it."""


class DataError(MulliganError):
    """The rows cannot be modelled as they are."""

    exit_code = 3


class FitError(MulliganError):
    """Fitting failed; where there was one, ``fitted`` is the model in its last healthy state."""

    exit_code = 4
    fitted: Any = None


class FormatError(MulliganError):
    """A model folder is broken, foreign, or newer than this version."""

    exit_code = 5


class SetupError(MulliganError):
    """The environment does not allow it: no room, no write permission, a missing extra."""

    exit_code = 6
