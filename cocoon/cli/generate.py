"""``cocoon generate``: ask a decoder, and read its answer as it is made.

Purity: shell.
"""

from __future__ import annotations

import time
from typing import Any

import click

from cocoon.cli.options import common
from cocoon.cli.output import Printer
from cocoon.core.errors import UsageError
from cocoon.core.limits import CONTEXT_TOKENS
from cocoon.core.units import PPM, SECOND_NS, format_nanoton


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("prompt", metavar="PROMPT")
@click.option("--system", metavar="TEXT", default=None, help="Said before the prompt: how to answer.")
@click.option("--raw", is_flag=True, help="Continue PROMPT as it stands, without the chat template.")
@click.option("--tokens", "most_tokens", type=click.IntRange(1, CONTEXT_TOKENS), default=256, show_default=True,
              metavar="COUNT", help="The answer ends after so many.")
@click.option("--temperature", type=click.FloatRange(0, 100), default=0.0, show_default=True,
              help="0 takes the most likely token, always.")
@click.option("--top", "top_tokens", type=click.IntRange(0), default=0, metavar="COUNT",
              help="Draw from so many of the most likely tokens.  [default: all]")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, metavar="SHARE",
              help="Draw from the most likely that together have this share.  [default: 1]")
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), default=0, show_default=True, metavar="N",
              help="Decides every draw.")
@click.option("--stop", "stop_texts", metavar="TEXT", multiple=True, help="End before this; repeatable.")
@click.option("--max-price", "max_price_nanoton", metavar="NANOTON", type=click.IntRange(0, (1 << 64) - 1),
              default=None, help="The most that the answer may cost.  [default: as for run]")
@click.option("--deadline", "deadline_s", metavar="SECONDS", type=float, default=None,
              help="Give it up after this.  [default: 600]")
@common
def generate(
    model: str, prompt: str, system: str | None, raw: bool, most_tokens: int, temperature: float, top_tokens: int,
    share: float, seed: int, stop_texts: tuple[str, ...], max_price_nanoton: int | None, deadline_s: float | None,
    home: str | None, printer: Printer,
) -> None:
    """Have MODEL (a package of a decoder, or the id or alias of one that is held here) answer PROMPT.

    The answer is shown as it is made; Ctrl-C ends it, and little is paid for what nobody reads.
    """
    from cocoon.sdk import Ask, connect
    from cocoon.sdk.text import FILES, read_text

    if raw and system is not None:
        raise UsageError("--raw has no place for --system")
    for given in (prompt, system or "", *stop_texts):
        try:
            given.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{ascii(given)[:80]} is no UTF-8 text") from None
    client = connect(home)
    text = read_text(*(client.model_file(model, name) for name in FILES))
    turns = [{"role": "system", "content": system}] if system is not None else []
    tokens = text.tokens(prompt) if raw else text.chat([*turns, {"role": "user", "content": prompt}])
    ask = Ask(
        tokens, most_tokens, text.stop_tokens, tuple(stop.encode() for stop in stop_texts),
        round(temperature * PPM), top_tokens, round(share * PPM), seed,
    )
    # With stop texts the end of what was told may not belong to the answer.
    told = Told(printer, text.reader() if not stop_texts else None)
    options: dict[str, Any] = {"max_price_nanoton": max_price_nanoton, "on_event": told.event}
    if deadline_s is not None:
        options["deadline_s"] = deadline_s
    (answer,) = client.generate(model, [ask], on_token=told.token, **options)
    said, result = text.text(answer.tokens, answer.text_bytes), answer.result
    told.end(said)
    if answer.reason == "cancelled":
        printer.note("the provider cut the answer short: it took as long as a run may there; ask for fewer --tokens")
    printer.note(
        f"{len(answer.tokens)} tokens, {told.pace()}{format_nanoton(result.price_nanoton)}, {answer.reason}, "
        f"provider {result.provider}, receipt {result.receipt or 'missing'}"
    )
    printer.summary({
        "text": said, "tokens": len(answer.tokens), "prompt_tokens": len(tokens), "reason": answer.reason,
        "provider": result.provider, "lease": result.lease, "number": result.number,
        "units": result.units, "price_nanoton": result.price_nanoton, "receipt": result.receipt,
    })


class Told:
    """Shows an answer while it is made."""

    def __init__(self, printer: Printer, reader: Any) -> None:
        """``reader`` makes text of tokens; None shows the answer only when it is whole."""
        self._printer = printer
        self._reader = reader
        self._times_ns: list[int] = []

    def event(self, event: dict[str, Any]) -> None:
        """Say the licence before anything is paid, and what is waited for."""
        if event["event"] == "licence":
            self._printer.note(f"licence: {event.get('licence')}")
        if event["event"] in ("discovering", "bids", "lease") and not self._times_ns:
            self._printer.progress({"discovering": "looking for providers ...", "bids": "agreeing on a lease ..."}.get(
                event["event"], "the prompt is read ..."
            ))

    def token(self, ask: int, place: int, token: int) -> None:
        """Show the text that it completes."""
        self._times_ns.append(time.monotonic_ns())
        if self._reader is not None:
            self._printer.part(self._reader.feed(token))

    def end(self, said: str) -> None:
        """End the line, or show the whole answer if nothing was shown before."""
        self._printer.part(said if self._reader is None else "")
        self._printer.part("\n")

    def pace(self) -> str:
        """Tokens per second behind the first."""
        if len(self._times_ns) < 2:
            return ""
        took_s = (self._times_ns[-1] - self._times_ns[0]) / SECOND_NS
        return f"{(len(self._times_ns) - 1) / took_s:.1f}/s, "
