"""The command ``cocoon``: its tree, and the border where every failure becomes an exit code.

Nothing above this module sees an exception: typed errors are told with their
remedy, anything else is told as one line with the code ``cocoon``.

Purity: shell. Spec: docs/reference/cli.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from cocoon import __version__
from cocoon.cli import demo, devnet, doctor, embed, generate, market, models, peer, receipts, run, sim, wallet
from cocoon.cli.output import forget_reader, report
from cocoon.core.errors import CocoonError, Corrupt, StorageFull, Unavailable, UsageError

INTERRUPTED = 130
BROKEN_PIPE = 141
_FRAMES_SHOWN = 3
_COMPLETION = "_COCOON_COMPLETE"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every command takes --json. Exit codes: docs/reference/cli.md.",
)
@click.version_option(__version__, prog_name="cocoon")
def cocoon() -> None:
    """Cocoon: a market for AI computation without a middleman.

    Start a peer with `cocoon up`, then run a model with `cocoon run`.
    """


for _command in (
    peer.up, peer.stop, peer.pause, peer.resume, peer.status, peer.offers, peer.quote, market.market, run.run,
    generate.generate, embed.embed, receipts.receipts, models.models, wallet.wallet, wallet.earnings, wallet.ledger,
    doctor.doctor, doctor.config, demo.demo, devnet.devnet, sim.sim,
):
    cocoon.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises."""
    # No command multiplies matrices itself; without this numpy starts a thread a core, a tenth of a second of each.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # File names need not be text; a name that is none is shown escaped.
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(arguments, as_json)
    except BrokenPipeError:
        forget_reader()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(arguments: list[str], as_json: bool) -> int:
    try:
        return _dispatch(arguments)
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except CocoonError as error:
        failure: CocoonError = error
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    except click.ClickException as error:
        failure = UsageError(error.format_message())
    except OSError as error:
        failure = _of_system(error)
    except Exception as error:  # the border of the process: one line, no traceback
        leaf = _first(error)
        failure = CocoonError(f"internal error: {type(leaf).__name__} at {_place(leaf)}: {leaf}"[:512])
    report(failure, as_json)
    return failure.exit_code


def _dispatch(arguments: list[str]) -> int:
    if _COMPLETION in os.environ:
        cocoon.main(arguments, prog_name="cocoon")  # the shell asks for completions
    try:
        # Not through click's own main: it turns a closed pipe into exit code 1.
        with cocoon.make_context("cocoon", arguments) as context:
            code = cocoon.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return code if isinstance(code, int) else 0


def _of_system(error: OSError) -> CocoonError:
    import errno

    where = f" ({os.fsdecode(error.filename)!r})" if error.filename else ""
    text = f"{error.strerror or error}{where}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(text)
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return Unavailable(text)
    return Corrupt(text) if error.errno == errno.EIO else UsageError(text)


def _first(error: Exception) -> Exception:
    """The first cause in the groups that a nursery raises."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _place(error: BaseException) -> str:
    """Where it happened, innermost first, as file:line pairs without contents."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_SHOWN:]
    return " < ".join(f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in reversed(frames))
