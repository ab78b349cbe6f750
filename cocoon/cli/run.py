"""``cocoon run``: a model, its inputs in npz files, and the answers with their receipts.

Inputs are read one by one while the task runs, outputs are written as they
come, and nothing is replaced without being told so. A failed unit does not take
the others with it; the exit code is then that of the first failure.

Purity: shell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cocoon.cli.options import common
from cocoon.cli.output import Printer, error_object
from cocoon.core import limits
from cocoon.core.errors import CocoonError, NotFound, UsageError
from cocoon.core.units import format_bytes, format_nanoton
from cocoon.core.values import Value

if TYPE_CHECKING:
    from cocoon.sdk.results import Result

_PREVIEW_CHARS = 60


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--input", "inputs", metavar="NPZ", multiple=True, required=True,
              help="File whose keys are the model's input names; one file is one run; repeatable.")
@click.option("--output", metavar="NPZ|DIR", default=None,
              help="Where the outputs go; a directory for several inputs.")
@click.option("--force", is_flag=True, help="Replace existing output files.")
@click.option("--max-price", "max_price_nanoton", metavar="NANOTON", type=click.IntRange(0, (1 << 64) - 1),
              default=None,
              help="The most that all runs together may cost; 0 takes only free offers.  "
                   "[default: three times the median ask, at most one whole coin]")
@click.option("--deadline", "deadline_s", metavar="SECONDS", type=float, default=None,
              help="Give the task up after this.  [default: 600]")
@click.option("--spread", metavar="COUNT", type=click.IntRange(1, limits.PROVIDERS_ASKED), default=None,
              help="Most providers that work on it at a time.  [default: 3 for 256 inputs or more, else 1]")
@common
def run(
    model: str, inputs: tuple[str, ...], output: str | None, force: bool, max_price_nanoton: int | None,
    deadline_s: float | None, spread: int | None, home: str | None, printer: Printer,
) -> int:
    """Run MODEL (an ONNX file, a package, or the id or alias of a public model) on a provider, or on several at once.

    The model and the inputs are sealed to each provider that is chosen. Without
    --output the outputs are only shown.
    """
    from cocoon.sdk import connect

    client = connect(home)
    told = Report(printer, plan(inputs, output, force), force)
    options: dict[str, Any] = {"max_price_nanoton": max_price_nanoton, "spread": spread, "on_event": told.event}
    if deadline_s is not None:
        options["deadline_s"] = deadline_s
    try:
        for outcome in client.map(model, Inputs(inputs), keep_going=True, **options):
            told.take(outcome)
    finally:
        told.flush()  # what was done before a failure is told before it
    return told.end()


class Inputs(Value):
    """The input files as a sized iterable that reads one at a time."""

    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        from cocoon.sdk import npz

        return (npz.load(path) for path in self.paths)


class Job(Value):
    """One input file and where its outputs go, if anywhere."""

    source: str
    target: Path | None


def plan(inputs: tuple[str, ...], output: str | None, force: bool) -> list[Job]:
    """Decide all target files before anything is paid for.

    Raises:
        NotFound: an input is missing.
        UsageError: targets collide, exist, or one file is named for several inputs.
    """
    for source in inputs:
        if not Path(source).is_file():
            raise NotFound(f"there is no regular file {source!r}")
    jobs = [Job(source, _target(source, output, len(inputs))) for source in inputs]
    targets = [job.target for job in jobs if job.target is not None]
    if len(set(targets)) != len(targets):
        raise UsageError("two inputs have the same file name, so their outputs would collide; run them apart")
    for target in targets:
        if target.exists() and not force:
            raise UsageError(f"{str(target)!r} exists; add --force to replace it")
        _make_folder(target.parent, exact=output is not None and target == Path(output))
    return jobs


def _target(source: str, output: str | None, count: int) -> Path | None:
    if output is None:
        return None
    is_folder = output.endswith("/") or Path(output).is_dir() or count > 1
    if not is_folder:
        if not output.endswith(".npz"):
            raise UsageError(f"--output {output!r} is neither .npz nor a directory; end a new one with /")
        return Path(output)
    if Path(output).exists() and not Path(output).is_dir():
        raise UsageError(f"--output {output!r} is a file, but {count} inputs need a directory")
    return Path(output) / f"{Path(source).name.removesuffix('.npz')}.npz"


def _make_folder(folder: Path, exact: bool) -> None:
    """Make the output directory; the parent of an exactly named file must be there already."""
    if exact:
        if not folder.is_dir():
            raise NotFound(f"there is no directory {str(folder)!r} for the output")
        return
    folder.mkdir(parents=True, exist_ok=True)


@dataclass(slots=True)
class Report:
    """Tells what happened to each unit, in order, as soon as its receipt is there."""

    printer: Printer
    jobs: list[Job]
    force: bool
    waiting: deque[tuple[Result, dict[str, Any]]] = field(default_factory=deque)
    #: Leases that ended: what they gave no receipt for has none for now, and nobody waits for it.
    ended: set[str] = field(default_factory=set)
    first_failure: CocoonError | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    finished: int = 0

    def take(self, outcome: Any) -> None:
        """Write one unit's outputs and queue its line."""
        from cocoon.sdk import Failure

        self.finished += 1
        job = self.jobs[outcome.unit]
        if isinstance(outcome, Failure):
            self.first_failure = self.first_failure or outcome.error
            self.flush()
            error = outcome.error
            self.printer.item({"unit": outcome.unit, "input": job.source, "error": error_object(error)})
            self.printer.note(f"{job.source}: {error.text} [{error.code}]")
            return
        described = {name: _described(array) for name, array in outcome.outputs.items()}
        if job.target is not None:
            from cocoon.sdk import npz

            npz.save(job.target, outcome.outputs, overwrite=self.force)
        # The arrays are on disk or shown; a long task keeps only its lines.
        outcome.outputs = {}
        self.waiting.append((outcome, described))
        self._flush_receipted()

    def event(self, event: dict[str, Any]) -> None:
        """Show progress and release the lines whose receipt has come."""
        if event["event"] == "done":
            self.summary = {key: value for key, value in event.items() if key != "event"}
        if event["event"] == "licence":
            # Before anything is paid, and also for who reads only the lines of --json: their last one has it too.
            self.printer.note(f"licence: {event.get('licence')}")
        if event["event"] == "lease_ended":
            self.ended.add(str(event.get("lease")))
        if event["event"] in ("receipt", "lease_ended"):
            self._flush_receipted()
        if text := _progress(event, self.finished, len(self.jobs)):
            self.printer.progress(text)

    def end(self) -> int:
        """Say the sum; return the exit code."""
        self.printer.end_progress()
        if line := split_line(self.summary.get("providers")):
            self.printer.line(line)
        return self.printer.end(self.summary, self.first_failure)

    def flush(self) -> None:
        """Tell all that is queued, with or without receipt."""
        while self.waiting:
            self._tell(*self.waiting.popleft())

    def _flush_receipted(self) -> None:
        while self.waiting and (self.waiting[0][0].receipt is not None or self.waiting[0][0].lease in self.ended):
            self._tell(*self.waiting.popleft())

    def _tell(self, result: Result, described: dict[str, Any]) -> None:
        job = self.jobs[result.unit]
        target = str(job.target) if job.target is not None else None
        self.printer.item({
            "unit": result.unit, "input": job.source, "output": target, "outputs": described,
            "provider": result.provider, "lease": result.lease, "number": result.number,
            "price_nanoton": result.price_nanoton, "ran_us": result.ran_us,
            "input_hash": result.input_hash, "output_hash": result.output_hash, "receipt": result.receipt,
        })
        self.printer.line(f"{job.source} -> {target or 'shown only'}")
        for name, about in described.items():
            self.printer.line(f"  {name}: {about['dtype']} {about['shape']}  {about['preview']}")
        self.printer.line(
            f"  {result.ran_us / 1000:.1f} ms, {format_nanoton(result.price_nanoton)}, "
            f"provider {result.provider}, receipt {result.receipt or 'missing'}"
        )


def split_line(providers: Any) -> str:
    """Who ran how much for how much, in one line; empty if it was one provider."""
    worked = [share for share in providers or () if share["units"]]
    if len(worked) < 2:
        return ""
    return "split: " + "; ".join(
        f"{share['provider']} ran {share['units']} for {format_nanoton(share['price_nanoton'])}" for share in worked
    )


def _described(array: Any) -> dict[str, Any]:
    dtype = "string" if array.dtype.kind == "O" else array.dtype.name
    flat = array.reshape(-1)[:8].tolist()
    text = ", ".join(repr(item) for item in flat) + (", ..." if array.size > 8 else "")
    return {"dtype": dtype, "shape": list(array.shape), "preview": text[:_PREVIEW_CHARS]}


def _progress(event: dict[str, Any], finished: int, total: int) -> str:
    match event:
        case {"event": "discovering"}:
            return "looking for providers ..."
        case {"event": "bids", "bids": list(bids), "ceiling_nanoton": int(ceiling)}:
            return f"{len(bids)} bids, at most {format_nanoton(ceiling)}, agreeing on a lease ..."
        case {"event": "lease", "provider": provider}:
            return f"lease with {provider}"
        case {"event": "model", "sent_bytes": int(sent), "total_bytes": int(total_bytes)}:
            return f"model sent sealed: {format_bytes(sent)} of {format_bytes(total_bytes)}"
        case {"event": "ready"} | {"event": "result"} | {"event": "receipt"}:
            return f"{finished} of {total} runs done"
    return ""
