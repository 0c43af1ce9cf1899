"""The command line: one file a verb, and no family known by name.

Results go to stdout, talk and errors to stderr. An error that a person can mend is one line, ``mulligan: WHAT
(WHERE). WHY. DO: command``, and an exit code: 0 ok, 1 internal error or a failed check (verify), 2 usage, 3 data,
4 fit failed, 5 model file, 6 environment, 130 interrupted. A traceback is shown with ``--debug``
only. Nothing here imports JAX or NumPy before a verb needs it.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from mulligan.errors import MulliganError, UsageError

# verb -> (its file, one line for `mulligan --help`), in the order in which a newcomer meets them
VERBS: dict[str, tuple[str, str]] = {
    "look": ("look", "What a table holds and how it will be treated; nothing is trained."),
    "families": ("families", "The families of models, what they are good at, and their options."),
    "compare": ("compare", "Fit several families on equal terms and write a scorecard."),
    "fit": ("fit", "Fit one family and save it."),
    "sample": ("sample", "Draw new rows from a fitted model."),
    "log-prob": ("log_prob", "The log p of rows under a fitted model."),
    "impute": ("impute", "Fill the empty cells of a table, several times over, with intervals."),
    "predict": ("predict", "The distribution of one column given the others, for each row."),
    "anomaly": ("anomaly", "Unusual rows of a table: p-values, flags at a level, and the columns that made them so."),
    "sample-density": ("sample_density", "Draw from any log density by several samplers, each with its verdict."),
    "verify": ("verify", "The identities of the tutorial: left, right, difference, error, verdict."),
    "lab": ("lab", "The experiments of the tutorial, as pages that play, animations and numbers."),
    "show": ("show", "What a model folder holds and how it was made."),
    "doctor": ("doctor", "Versions, device, memory, write test: what this installation can do."),
}
# what people type for a verb of another name
_MEANT = {"score": "log-prob", "density": "log-prob", "train": "fit", "generate": "sample", "inspect": "look"}
_START = """\
mulligan fits every family of generative models to a table and compares them in honest numbers.
look     mulligan look FILE        (or a built-in name: mulligan look moons)
compare  mulligan compare FILE     (writes FILE-report/index.html)
help     mulligan --help           or  mulligan VERB --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on ``argv`` (the process's own arguments if None) and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        with _warnings_as_lines():
            code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except MulliganError as error:
        return _fail(str(error), error.exit_code, debug)
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted", 130, debug)
    except BrokenPipeError:
        # The reader left (`mulligan sample m | head`): nothing more can be said, also not at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        text = " ".join(str(error).split()) or "no text"
        what = f"internal error ({type(error).__name__}: {text}). This is a fault of mulligan, not yours."
        return _fail(f"{what} DO: run again with --debug and report it", 1, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    from mulligan.report.formatting import one_line

    if debug:
        import traceback

        traceback.print_exc()
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.write(f"mulligan: {one_line(message)}\n")
    return code


def _dispatch(arguments: list[str]) -> int:
    """Find the verb, let Typer read its flags, run it; returns its exit code."""
    if not arguments:
        sys.stdout.write(_START)
        return 0
    if arguments[0] == "help":
        arguments = [*arguments[1:2], "--help"]
    if arguments[0] in ("--version", "-V"):
        from mulligan import __version__

        sys.stdout.write(f"mulligan {__version__}\n")
        return 0
    if arguments[0] in ("--help", "-h"):
        sys.stdout.write(_overview())
        return 0
    verb = arguments[0]
    if verb.startswith("-"):
        raise UsageError(
            f"'{verb}' stands before the verb", do="mulligan VERB [FLAGS], for example mulligan compare FILE"
        )
    if verb not in VERBS:
        from mulligan.catalog import near

        hint = f". Did you mean {_MEANT[verb]}?" if verb in _MEANT else near(verb, VERBS)
        raise UsageError(f"no verb '{verb}'{hint}", do=f"verbs: {', '.join(VERBS)}")
    return run_verb(verb, arguments, shlex.join(["mulligan", *arguments]))


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}}  {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            "Usage: mulligan VERB [ARGUMENTS] [FLAGS]",
            "",
            "Every family of generative models behind one contract: fit, compare in honest numbers, sample, score.",
            "",
            *lines,
            "",
            "mulligan VERB --help lists the flags of a verb; mulligan --version prints the version.",
            "Exit codes: 0 ok, 1 internal error or check failed, 2 usage, 3 data, 4 fit failed, 5 model, "
            "6 environment, 130 Ctrl-C.",
            "",
        ]
    )


def command_of(verb: str) -> Any:
    """Typer's command of one verb (only this verb's file is imported)."""
    import typer

    file, text = VERBS[verb]
    module = importlib.import_module(f"mulligan.cli.{file}")
    app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
    app.command(verb, help=f"{text}\n\n{module.HELP}", context_settings=settings)(module.verb)
    return typer.main.get_command(app)


def run_verb(verb: str, arguments: list[str], typed: str) -> int:
    """Let Typer read the arguments, the verb first among them, and run it; ``typed`` is the command that is noted down."""
    import typer

    command = command_of(verb)
    try:
        # Not command.main(): it prints usage errors and answers Ctrl-C and broken pipes in its own way.
        with command.make_context(f"mulligan {verb}", arguments[1:], obj=typed) as context:
            return command.invoke(context) or 0
    except typer.Exit as leaving:
        return leaving.exit_code
    except typer.TyperException as error:
        raise _usage_error(verb, command, error) from error


def _usage_error(verb: str, command: Any, error: Any) -> UsageError:
    """Typer's complaint in our words, with the nearest flag."""
    from mulligan.catalog import near

    do = f"mulligan {verb} --help"
    flag = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and flag:
        flags = [name for parameter in command.params for name in parameter.opts + parameter.secondary_opts]
        return UsageError(f"{verb} has no flag '{flag}'{near(flag, flags)}", do=do)
    text = error.format_message().replace("Value error, ", "").replace("Input should be", "should be").rstrip(".")
    return UsageError(text[:1].lower() + text[1:], do=do)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Python warnings as one line each on stderr, without the source line that means nothing to a reader."""

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        sys.stderr.write(f"mulligan: warning: {' '.join(str(message).split())}\n")

    before = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
