"""The verbs of an application: run, map, offers, receipts, models, status.

Each call reads control.json anew, so that a client outlives restarts of its
peer, and speaks over a connection of its own, so that threads may share one
client; those that share a session share its connection too. numpy is imported
with the first run, not with the client.

Purity: shell. Spec: docs/spec/control.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from cocoon.core import limits
from cocoon.core.errors import LocalPeerLost, NoLocalPeer, UsageError
from cocoon.core.units import SECOND_NS
from cocoon.sdk.arguments import (
    amount,
    count_number,
    deadline_in_ms,
    digest_text,
    model_text,
    name_text,
    path_text,
)
from cocoon.sdk.control import Message, call
from cocoon.sdk.fields import plain, take_bytes, take_map, take_maps, take_text
from cocoon.sdk.home import checked_home, find_peer
from cocoon.sdk.results import Failure, Outcome, Result

if TYPE_CHECKING:
    from cocoon.sdk.embedding import Vector
    from cocoon.sdk.generation import Answer, OnToken
    from cocoon.sdk.session import Session
    from cocoon.wire.generation import Ask

Inputs = Mapping[str, Any]
OnEvent = Callable[[dict[str, Any]], None]

#: A lease is as long.
SESSION_S = limits.LEASE_DURATION_S
_DEFAULT_DEADLINE_S = limits.TASK_DEADLINE_NS // SECOND_NS
#: Between two looks at a peer that is ending.
_LOOK_S = 0.05


def connect(home: str | os.PathLike[str] | None = None) -> Client:
    """Return a client of the peer that runs on ``home`` (default: COCOON_HOME); see ``Client``."""
    return Client(home)


class Client:
    """Speaks to the peer of one COCOON_HOME."""

    def __init__(self, home: str | os.PathLike[str] | None = None) -> None:
        """Find the peer.

        Raises:
            NoLocalPeer: none runs there. LaxPermissions: others could read its token.
        """
        self.home = checked_home(home)
        find_peer(self.home)

    # --- runs --------------------------------------------------------------

    @overload
    def run(
        self, model: str | os.PathLike[str], inputs: Inputs, *, max_price_nanoton: int | None = ...,
        deadline_s: float = ..., spread: int | None = ..., on_event: OnEvent | None = ...,
    ) -> Result: ...

    @overload
    def run(
        self, model: str | os.PathLike[str], inputs: Sequence[Inputs], *, max_price_nanoton: int | None = ...,
        deadline_s: float = ..., spread: int | None = ..., on_event: OnEvent | None = ...,
    ) -> list[Result]: ...

    def run(
        self,
        model: str | os.PathLike[str],
        inputs: Inputs | Sequence[Inputs],
        *,
        max_price_nanoton: int | None = None,
        deadline_s: float = _DEFAULT_DEADLINE_S,
        spread: int | None = None,
        on_event: OnEvent | None = None,
    ) -> Result | list[Result]:
        """Run ``model`` on one map of inputs, or on each of a list; wait for the receipts.

        Args:
            model: Path of an ONNX file or package (sent sealed, stays private), a model id (64 hex digits), or an
                alias of the user.
            inputs: The model's input names to numpy arrays.
            max_price_nanoton: The most that all of it may cost; 0 takes only free offers, None up to three
                times the median of what is asked now and one whole coin (told in the event ``offers``).
            deadline_s: Seconds after which the task is given up.
            spread: Most providers that work on it at a time, 1 to 8; None takes three for a task of 256 runs or
                more, else one. Each has the whole model, and the inputs that it runs.
            on_event: Called with each progress event, a map with the key ``event``.

        Raises:
            CocoonError: the peer's typed error, or that of the first failed unit.
        """
        batch = [inputs] if isinstance(inputs, Mapping) else inputs
        results = list(self.map(
            model, batch, max_price_nanoton=max_price_nanoton, deadline_s=deadline_s, spread=spread, on_event=on_event
        ))
        return results[0] if isinstance(inputs, Mapping) else results

    @overload
    def map(
        self, model: str | os.PathLike[str], inputs: Iterable[Inputs], *, max_price_nanoton: int | None = ...,
        deadline_s: float = ..., spread: int | None = ..., on_event: OnEvent | None = ...,
        keep_going: Literal[False] = ...,
    ) -> Generator[Result, None, None]: ...

    @overload
    def map(
        self, model: str | os.PathLike[str], inputs: Iterable[Inputs], *, max_price_nanoton: int | None = ...,
        deadline_s: float = ..., spread: int | None = ..., on_event: OnEvent | None = ...,
        keep_going: Literal[True],
    ) -> Generator[Result | Failure, None, None]: ...

    def map(
        self, model: str | os.PathLike[str], inputs: Iterable[Inputs], *, max_price_nanoton: int | None = None,
        deadline_s: float = _DEFAULT_DEADLINE_S, spread: int | None = None, on_event: OnEvent | None = None,
        keep_going: bool = False,
    ) -> Generator[Any, None, None]:
        """Stream ``inputs`` through ``model``; yields results in order, holds few of them.

        An iterable that knows its length becomes one task; any other is cut into
        tasks of ``MAP_BATCH_UNITS`` units, each with its own deadline and ceiling.
        A result's ``receipt`` is filled when it arrives, at the latest when the
        iterator ends. Closing the iterator gives the rest of the task up.

        Args:
            keep_going: Yield a ``Failure`` for a failed unit instead of raising its error.

        Raises:
            As ``run``; arguments are checked at once, all else while iterating.
        """
        args = _task(model, max_price_nanoton, deadline_s, spread)
        if isinstance(inputs, Mapping) or not isinstance(inputs, Iterable):
            raise UsageError("map takes a list of input maps; use run for a single one")
        return self._map(args, inputs, on_event, keep_going)

    def _map(
        self, args: Message, inputs: Iterable[Inputs], on_event: OnEvent | None, keep_going: bool
    ) -> Generator[Outcome, None, None]:
        from cocoon.sdk.conversation import Conversation
        from cocoon.sdk.task import batches, streamed

        offset = 0
        for units, payloads in batches(inputs):
            with Conversation(find_peer(self.home), {**args, "units": units}, on_event, offset) as conversation:
                for outcome in streamed(conversation, payloads):
                    if isinstance(outcome, Failure) and not keep_going:
                        raise outcome.error
                    yield outcome
            offset += units

    def session(
        self, model: str | os.PathLike[str], *, runs: int = limits.SESSION_RUNS, max_price_nanoton: int | None = None,
        deadline_s: float = SESSION_S, spread: int = 1, on_event: OnEvent | None = None,
    ) -> Session:
        """Keep a task open for runs that come one by one: no auction and no receipt between two of them.

        Args:
            model: As for ``run``.
            runs: At most so many; ``max_price_nanoton`` is for all of them.
            deadline_s: Seconds after which it ends, whatever is under way.

        Returns:
            A ``Session``, for a ``with`` block.

        Raises:
            NoLocalPeer: none runs there. UsageError: an argument will not do.
        """
        from cocoon.sdk.conversation import Conversation
        from cocoon.sdk.session import Session

        units = count_number(runs, "runs", limits.UNITS_PER_TASK)
        args = {**_task(model, max_price_nanoton, deadline_s, spread), "units": units}
        return Session(Conversation(find_peer(self.home), args, on_event))

    def generate(
        self, model: str | os.PathLike[str], asks: Sequence[Ask], *, max_price_nanoton: int | None = None,
        deadline_s: float = _DEFAULT_DEADLINE_S, on_token: OnToken | None = None, on_event: OnEvent | None = None,
    ) -> list[Answer]:
        """Have a decoder continue each of some prompts, beside each other on one provider; wait for the receipts.

        Args:
            model: A package whose kind is ``generate``, named as for ``run``.
            asks: Prompts as tokens, and how to continue them.
            on_token: Called with the index of the ask, the place of the token in its answer from 1, and the token;
                each one once and in order, as it is made. If it raises, what is under way is cancelled.

        Raises:
            As ``run``; and what ``Hearing.answer`` raises.
        """
        from cocoon.sdk.generation import Hearing
        from cocoon.wire.counting import token_units
        from cocoon.wire.generation import ask_tensors

        hearing = Hearing(asks, on_token or (lambda ask, place, token: None), on_event)
        args = _task(model, max_price_nanoton, deadline_s, 1)
        args["run_units"] = max((token_units(len(ask.prompt), ask.most_tokens) for ask in asks), default=1)
        results = self._map(args, [ask_tensors(ask) for ask in asks], hearing.event, keep_going=False)
        return [hearing.answer(result) for result in results if isinstance(result, Result)]

    def embed(
        self, model: str | os.PathLike[str], texts: Sequence[str], *, max_price_nanoton: int | None = None,
        deadline_s: float = _DEFAULT_DEADLINE_S, spread: int | None = None, on_event: OnEvent | None = None,
    ) -> Iterator[Vector]:
        """Have an encoder make a vector of each text; yields them in order, as they come.

        Args:
            model: A package whose kind is ``embed``, named as for ``run``; a public one has to be held here.
            texts: Longer ones than the package's tokenizer takes are cut, and told as such.

        Raises:
            As ``run``; and what ``Encoder`` raises.
        """
        from cocoon.sdk.embedding import Encoder

        encoder = Encoder(self.inspect_model(model), lambda path: self.model_file(model, path))
        given = encoder.encode(texts)
        args = {**_task(model, max_price_nanoton, deadline_s, spread), "run_units": given.most_tokens}
        return encoder.vectors(given, self._map(args, given, on_event, keep_going=False))

    # --- everything else ---------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What the peer says of itself; digests as hex."""
        return self._ask("status", {})

    def offers(self) -> list[dict[str, Any]]:
        """The offers that the peer can get now, one map each."""
        return self._list("offers", "offers")

    def quote(self, model: str | os.PathLike[str], runs: int = 1, run_units: int | None = None) -> dict[str, Any]:
        """What ``runs`` runs of ``model`` would cost at each provider, from standing offers; nobody is told of them.

        Args:
            model: As for ``run``.
            run_units: The most tokens of one run: of an encoder's text, or of a decoder's answer and a quarter of its
                prompt.

        Returns:
            ``model``, ``runs``, ``ceiling_nanoton`` (what a task without ``max_price_nanoton`` may cost), and
            ``quotes``, the one that would be taken first: ``provider``, ``expected_nanoton``, ``misfit`` (why it
            cannot serve; empty if it can), ``reliability_ppm``, ``seen``, and the figures of its offer.

        Raises:
            NotFound: there is no such file, or nobody announces the model.
        """
        args: Message = {
            "model": model_text(model), "runs": count_number(runs, "runs", limits.UNITS_PER_TASK)
        }
        if run_units is not None:
            args["run_units"] = count_number(run_units, "run_units", limits.CONTEXT_TOKENS)
        return self._ask("quote", args)

    def market(self) -> dict[str, Any]:
        """What the peer sees of the market since it started; bounded lists, oldest first.

        Returns:
            ``offers`` as from ``offers``; ``calls`` that it heard as a provider (``age_ms``, ``kind``, ``model``, an id
            or "private", ``units``, ``bid_nanoton`` for all units, ``nanoton_per_1000``, ``answer``, ``outcome``,
            ``reason``); ``auctions`` that it held as a requester (``age_ms``, ``units``, ``ceiling_nanoton``, ``bids``,
            ``missed``); and ``sums`` of the calls: ``heard``, ``bid``, ``won``, ``lost``, ``declined`` (code to
            number), and ``reason``, what was said most often of lost bids.
        """
        parts: dict[str, list[dict[str, Any]]] = {"offers": [], "calls": [], "auctions": []}
        done = self._paged("market", {}, parts)
        return {**parts, "sums": plain(take_map(done, "sums"))}

    def receipts(self) -> list[dict[str, Any]]:
        """The receipts in the peer's journal, oldest first, without their run lines."""
        return self._list("receipts_ls", "receipts")

    def record(self, receipt: str) -> bytes:
        """The signed record of one receipt: what a third party needs to verify it offline.

        Raises:
            NotFound: the peer holds no such receipt.
        """
        answer = call(find_peer(self.home), "receipts_show", {"hash": digest_text(receipt)})
        return take_bytes(answer, "record")

    def export(self, receipt: str) -> bytes:
        """The record of one receipt and, if it is anchored, its place under the root on chain.

        Raises:
            NotFound: the peer holds no such receipt.
        """
        answer = call(find_peer(self.home), "receipts_export", {"hash": digest_text(receipt)})
        return take_bytes(answer, "export")

    def receipt(self, receipt: str) -> dict[str, Any]:
        """One receipt with its run lines, fetched from the peer and verified here.

        Raises:
            NotFound: the peer holds no such receipt.
            BadSignature, WrongField, Malformed: it does not hold.
        """
        from cocoon.sdk.records import verify_record

        return verify_record(self.record(receipt), expected=receipt)

    def models(self) -> list[dict[str, Any]]:
        """The models that the peer holds."""
        return self._list("models_ls", "models")

    def add_model(self, path: str | os.PathLike[str], public: bool = False) -> dict[str, Any]:
        """Give the peer a model file or package; ``public`` announces and serves it to anybody."""
        return self._ask("models_add", {"path": path_text(os.fspath(path)), "public": bool(public)})

    def inspect_model(self, model: str | os.PathLike[str]) -> dict[str, Any]:
        """What a model (as for ``run``) says of itself, and whether the peer holds, serves and announces it."""
        return self._ask("models_inspect", {"model": model_text(model)})

    def model_file(self, model: str | os.PathLike[str], path: str) -> bytes:
        """A file of a package that is at hand, up to ``MODEL_FILE_BYTES``, as the manifest calls it.

        Raises:
            NotFound: the model has no such file, or it is not on this machine.
        """
        parts: list[bytes] = []

        def hear(event: Message) -> None:
            if event["event"] == "chunk":
                parts.append(take_bytes(event, "data"))

        call(find_peer(self.home), "models_file", {"model": model_text(model), "path": path}, hear)
        return b"".join(parts)

    def pull_model(self, model: str, on_event: OnEvent | None = None) -> dict[str, Any]:
        """Fetch a public model, by id or alias, from those who announce it, and keep it; goes on where it broke off.

        Args:
            on_event: Called with each event ``pulled``: ``here_bytes``, ``total_bytes``, ``holders``.

        Raises:
            NotFound: nobody holds it now. StorageFull: no room for all of it.
        """
        def hear(event: Message) -> None:
            if on_event is not None and event["event"] == "pulled":
                on_event(plain(event))

        answer: dict[str, Any] = plain(call(find_peer(self.home), "models_pull", {"model": name_text(model)}, hear))
        return answer

    def remove_model(self, model: str) -> dict[str, Any]:
        """Delete a public model, by id or alias, from the peer.

        Raises:
            NotFound: the peer does not hold it. ModelInUse: an open lease runs it.
        """
        return self._ask("models_rm", {"model": name_text(model)})

    def aliases(self) -> dict[str, str]:
        """The user's own names of models, each with its id."""
        return {entry["name"]: entry["model"] for entry in self._ask("models_alias", {})["aliases"]}

    def alias_model(self, name: str, model: str | None) -> None:
        """Name the model of this id; None forgets the name."""
        args: Message = {"name": name_text(name)}
        if model is not None:
            args["model"] = digest_text(model)
        self._ask("models_alias", args)

    # --- money -------------------------------------------------------------

    def wallet(self) -> dict[str, Any]:
        """The peer's wallet, its escrow and lanes, in proven chain state; amounts in nanoton.

        Raises:
            NoLedger: the network carries no money.
        """
        return self._ask("wallet", {})

    def fund(self, amount_nanoton: int) -> dict[str, Any]:
        """Coins for the wallet from a devnet's faucet; returns when they are there."""
        return self._ask("fund", {"amount_nanoton": amount_nanoton})

    def settle(self) -> dict[str, Any]:
        """Close the books: leases given back, lanes closed, claims sent, receipts anchored."""
        return self._ask("settle", {})

    def recover(self) -> dict[str, Any]:
        """Bring the escrow's coins back to the wallet; what is locked for providers after the close delay.

        Returns:
            ``recovered_nanoton`` now, ``locked_nanoton`` still, and ``free_at_s``, the chain time to call again.
        """
        return self._ask("recover", {})

    def earnings(
        self, by: Literal["model", "day"] | None = None, ask_nanoton: int | None = None
    ) -> dict[str, Any]:
        """What the peer earned by its vouchers, what the chain paid of it, and what that cost.

        Args:
            by: Also give ``groups``: ``model`` (or ``day``, UTC), ``units``, ``earned_nanoton``, ``receipts``.
            ask_nanoton: Also give ``what_if``: what this price of 1,000 runs would have changed in the calls of the
                last day, as far as their outcomes tell (AUC-17).
        """
        if by not in (None, "model", "day"):
            raise UsageError(f"earnings are told by model or by day, not by {by!r:.80}")
        args: Message = {} if by is None else {"by": by}
        if ask_nanoton is not None:
            args["ask_nanoton"] = amount(ask_nanoton, "ask_nanoton")
        parts: dict[str, list[dict[str, Any]]] = {} if by is None else {"groups": []}
        done = self._paged("earnings", args, parts)
        answer: dict[str, Any] = {**plain(done), **parts}
        return answer

    def audit(self) -> dict[str, Any]:
        """The peer's journal against the chain: ``clean``, or a list of ``differences``."""
        return self._ask("audit", {})

    def supply(self) -> dict[str, Any]:
        """The whole chain of a devnet added up: its genesis supply, all balances, all fees.

        Raises:
            LimitExceeded: the chain is too long to read whole.
        """
        return self._ask("supply", {})

    def pause(self, paused: bool = True) -> dict[str, Any]:
        """Have a provider sell no new lease, or sell again; open leases go on. A restart forgets it."""
        return self._ask("pause", {"paused": bool(paused)})

    def stop(self) -> dict[str, Any]:
        """Ask the peer to drain and end."""
        try:
            return self._ask("stop", {})
        except LocalPeerLost:
            # A peer with nothing to drain can be gone before its answer is.
            if not self._gone_within(limits.DRAIN_NS):
                raise
            return {"stopping": True}

    def _gone_within(self, wait_ns: int) -> bool:
        """Whether the peer has removed its control file, now or soon."""
        end_ns = time.monotonic_ns() + wait_ns
        while time.monotonic_ns() < end_ns:
            try:
                find_peer(self.home)
            except NoLocalPeer:
                return True
            time.sleep(_LOOK_S)
        return False

    def _list(self, verb: str, key: str) -> list[dict[str, Any]]:
        """A list that may come in pages, because one frame holds only so many items (CTL-11)."""
        found: list[dict[str, Any]] = []

        def page(event: Message) -> None:
            if event["event"] == "page":
                found.extend(take_maps(event, "items"))

        done = call(find_peer(self.home), verb, {}, page)
        if not found or key in done:
            found.extend(take_maps(done, key))
        answer: list[dict[str, Any]] = plain(found)
        return answer

    def _paged(self, verb: str, args: Message, parts: dict[str, list[dict[str, Any]]]) -> Message:
        """Fill ``parts`` from the pages that name one of them; the final answer (CTL-11)."""

        def page(event: Message) -> None:
            if event["event"] == "page" and (found := parts.get(take_text(event, "part"))) is not None:
                found.extend(plain(take_maps(event, "items")))

        return call(find_peer(self.home), verb, args, page)

    def _ask(self, verb: str, args: Message) -> dict[str, Any]:
        answer: dict[str, Any] = plain(call(find_peer(self.home), verb, args))
        return answer


def _task(
    model: str | os.PathLike[str], max_price_nanoton: int | None, deadline_s: float, spread: int | None
) -> Message:
    """What every task is given."""
    args: Message = {"model": model_text(model), "deadline_ms": deadline_in_ms(deadline_s)}
    if max_price_nanoton is not None:
        args["max_price_nanoton"] = amount(max_price_nanoton)
    if spread is not None:
        args["spread"] = count_number(spread, "spread", limits.PROVIDERS_ASKED)
    return args
