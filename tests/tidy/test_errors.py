"""Every error has one code, is documented, and is declared in one place."""

from __future__ import annotations

import ast
from pathlib import Path

from cocoon.core import errors
from tools import errors_reference
from tools.contracts import modules


def _declared() -> list[type[errors.CocoonError]]:
    return [cls for cls in errors.all_errors() if cls.__module__ in errors_reference.PLACES]


def test_the_reference_lists_every_error_with_exit_code_and_remedy(root: Path) -> None:
    written = (root / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    assert written == errors_reference.render(), "run `make docs`"
    exported = {cls for cls in _declared() if cls.__module__.startswith(errors.__name__)}
    named = {cls.__name__ for cls in exported if errors.WrongField not in cls.__bases__}
    assert len(named) > 50 and named <= set(errors.__all__)
    for cls in _declared():
        assert f"`{cls.code}`" in written
        assert cls.remedy


def test_no_two_errors_share_a_code() -> None:
    codes = [cls.code for cls in _declared()]
    assert sorted(codes) == sorted(set(codes))


def test_exit_codes_tell_errors_from_success_signals_and_shells() -> None:
    assert all(0 < cls.exit_code < 126 for cls in _declared())


def test_each_exit_code_stands_for_one_error_of_its_own() -> None:
    own = [(cls.exit_code, cls.code) for cls in _declared() if "exit_code" in vars(cls)]
    assert len({exit_code for exit_code, _ in own}) == len(own), sorted(own)


def test_codes_are_declared_where_the_reference_looks_for_them() -> None:
    """A subclass elsewhere may refine a type, not invent a code that no table knows."""
    found = []
    for name, path in modules():
        if name in errors_reference.PLACES:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and _is_error(node) and _sets_code(node):
                found.append(f"{name}.{node.name}")
    assert found == []


def _is_error(node: ast.ClassDef) -> bool:
    known = {cls.__name__ for cls in _declared()}
    return any(getattr(base, "id", getattr(base, "attr", "")) in known for base in node.bases)


def _sets_code(node: ast.ClassDef) -> bool:
    targets = [t for n in node.body if isinstance(n, ast.Assign) for t in n.targets]
    targets += [n.target for n in node.body if isinstance(n, ast.AnnAssign)]
    return any(getattr(t, "id", "") in {"code", "exit_code"} for t in targets)


# --- between peers -----------------------------------------------------------

#: What answers other peers, and what that rests on: an error from here may leave as Refusal, RunFailure or LeaseClose.
SPEAKERS = (
    "node.counter", "node.selling", "node.sale", "node.closing", "node.till", "node.money", "node.models",
    "node.sharing", "node.delivery",
    "node.purchase", "node.tally", "scheduler.admission", "scheduler.sale", "scheduler.purchase", "ledger.lanes",
    "ledger.till", "ledger.journal", "ledger.exposure", "ledger.terms", "ledger.receipt", "ledger.tab",
    "ledger.closing", "ledger.statement", "ledger.escrow", "ledger.record", "privacy.hpke", "privacy.link",
    "wire.schema", "wire.signing", "wire.codec", "wire.types", "wire.judged", "wire.orders", "wire.manifest",
    "wire.tensors", "runtime.process", "runtime.protocol", "runtime.session", "runtime.batching", "p2p.streams",
    "p2p.blobs", "p2p.links",
)
#: Raised there, and nobody else's business: our defects, our journal, our wallet, a user who went away.
OURS = {"usage", "corrupt", "chain_refused", "cancelled"}
#: Calls with a code as text.
_BY_CODE = {"LeaseBroke", "LeaseLost", "FailRun", "EndSale", "EndPurchase", "RunDenied", "RunBroke", "RunFailure",
            "FailureReceived", "LeaseClose", "Refusal", "_end", "_part"}


def _codes_of(tree: ast.AST) -> set[str]:
    """Codes of the errors that a module makes: by class, by ``wrong``, or as text."""
    by_name = {cls.__name__: cls.code for cls in _declared()}
    found: set[str] = set()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        words = [str(arg.value) for arg in call.args if isinstance(arg, ast.Constant) and _is_code(arg.value)]
        if name in by_name:
            found.add(by_name[name])
        if name == "wrong" and words:
            found.add(f"wrong_{words[0]}")
        if name in _BY_CODE:
            found |= set(words[:1])
    return found


def _is_code(value: object) -> bool:
    return isinstance(value, str) and value.replace("_", "").isalpha() and value.islower()


def test_what_peers_are_answered_with_is_among_the_codes_that_peers_take(root: Path) -> None:
    """Else a refusal would arrive as the sender's fault, or not say what it is."""
    told: set[str] = set()
    for module in SPEAKERS:
        path = root / "cocoon" / Path(*module.split(".")).with_suffix(".py")
        told |= _codes_of(ast.parse(path.read_text(encoding="utf-8")))
    assert {"busy", "credit_refused", "run_lost", "released", "wrong_lane", "bad_chunk", "lane_closing"} <= told
    assert told - errors.PEER_CODES <= OURS


def test_a_code_of_our_own_house_is_not_taken_from_a_peer_and_not_told_to_one() -> None:
    for code in ("corrupt", "audit_failed", "insufficient_funds", "signer_lost", "home_in_use", "bad_proof", "cocoon"):
        said = errors.from_peer(code, "your disk is broken")
        assert type(said) is errors.PeerFault and said.text == f"the peer answered {code!r}: your disk is broken"
        ours = errors.from_code(code, "keys/peer.key is damaged")
        assert ours.code == code
        told = errors.for_peer(ours)
        assert told.code == "unavailable" and "peer.key" not in told.text


def test_every_code_that_peers_exchange_arrives_as_the_error_that_was_sent() -> None:
    for code in errors.PEER_CODES:
        sent = errors.for_peer(errors.from_code(code, "why"))
        assert sent.code == code and (sent.text == "why" or code == "storage_full")
        assert type(errors.from_peer(sent.code, sent.text)) is type(sent)


def test_a_peer_is_told_that_a_disk_is_full_and_not_where_it_lies() -> None:
    told = errors.for_peer(errors.StorageFull("the disk has no room for the journal /home/ann/.cocoon/journal"))
    assert type(told) is errors.StorageFull and "ann" not in told.text


def test_a_code_that_nobody_knows_is_named_in_print_and_in_short() -> None:
    said = errors.from_peer("\x1b[2J\u202e" * 100, "x")
    assert type(said) is errors.PeerFault
    assert said.text.isprintable() and len(said.text) < 700
