"""Ours: the caller broke a documented precondition.

Purity: pure. Spec: docs/spec/errors.md, rules ERR-1 to ERR-4.
"""

from __future__ import annotations

from cocoon.core.errors.families import UsageError


class ChainRefused(UsageError):
    """The chain refused an external message before it cost anything."""

    code = "chain_refused"
    exit_code = 62
    remedy = "look at the account with `cocoon wallet`; the message was not executed"


class NoLedger(UsageError):
    """This network has no ledger: there is no wallet, no lane, no price."""

    code = "no_ledger"
    exit_code = 71
    remedy = "join or make a network whose ledger is ton"


class InsufficientFunds(UsageError):
    """The wallet holds less than the message needs."""

    code = "insufficient_funds"
    exit_code = 63
    remedy = "send coins to the address that `cocoon wallet` shows; on a devnet use `cocoon wallet fund`"


class BadWords(UsageError):
    """These are not the 24 words of a TON wallet."""

    code = "bad_words"
    exit_code = 64
    remedy = "give the 24 words in their order, in lower case, separated by spaces"


class WrongNetwork(UsageError):
    """A peer, a link or a home belongs to another network."""

    code = "wrong_network"
    exit_code = 13
    remedy = "use the link of this network, or another COCOON_HOME"


class HomeInUse(UsageError):
    """Another peer runs on this COCOON_HOME."""

    code = "home_in_use"
    exit_code = 14
    remedy = "stop that peer, or set COCOON_HOME to another directory"


class LaxPermissions(UsageError):
    """A secret file can be read by others."""

    code = "lax_permissions"
    exit_code = 15
    remedy = "chmod 600 the file and 700 its directory; if others could read it, make a new identity"


class BadConfig(UsageError):
    """A setting has an unknown name or an impossible value."""

    code = "bad_config"
    exit_code = 16
    remedy = "`cocoon config show --origin` lists every setting and where it comes from"


class BadScenario(UsageError):
    """A scenario or a recording of the simulator cannot be read."""

    code = "bad_scenario"
    exit_code = 75
    remedy = "docs/guides/researcher.md lists every key of a scenario"


class RuleBroken(UsageError):
    """A simulated world broke a rule of the protocol, or its recording no longer gives the same run."""

    code = "rule_broken"
    exit_code = 76
    remedy = "record the run with `cocoon sim run --record FILE` and report it with the file; it is a defect of Cocoon"


class BadLink(UsageError):
    """A join link cannot be read."""

    code = "bad_link"
    exit_code = 17
    remedy = "copy the whole line `cocoon://join/...` that `cocoon up` printed"


class NotFound(UsageError):
    """The named receipt, model or file does not exist."""

    code = "not_found"
    exit_code = 18
    remedy = "list what exists first"


class NothingToDo(UsageError):
    """The given directory or task holds no work."""

    code = "nothing_to_do"
    exit_code = 19
    remedy = "name a directory with readable regular files"


class ModelRefused(UsageError):
    """The model is no valid ONNX, or holds something a provider never runs."""

    code = "model_refused"
    exit_code = 20
    remedy = "check the model with onnx.checker; external data and custom operators are refused"


class InputsMismatch(UsageError):
    """Names, shapes or dtypes of the inputs are not the model's."""

    code = "inputs_mismatch"
    exit_code = 23
    remedy = "give exactly the model's inputs; the message lists them"


class BadInput(UsageError):
    """An input file is no npz, or holds something that is not plain tensors."""

    code = "bad_input"
    exit_code = 31
    remedy = "write the file with numpy.savez (no object arrays) or cocoon.sdk.npz.save"


class RunFailed(UsageError):
    """The model's own operators failed on these inputs, say an index out of bounds."""

    code = "run_failed"
    exit_code = 34
    remedy = "check the values of the inputs against the same model in plain ONNX Runtime"


class DtypeUnsupported(UsageError):
    """A dtype that Cocoon does not carry yet."""

    code = "dtype_unsupported"
    exit_code = 26
    remedy = "cast to float32 or float16 inside the model"


class Duplicate(UsageError):
    """A journal record with this unique key exists; nothing was written."""

    code = "duplicate"
    remedy = "nothing to do: it is recorded already"


class SchemaNewer(UsageError):
    """The data of this home was written by a newer Cocoon."""

    code = "schema_newer"
    exit_code = 33
    remedy = "use the newer Cocoon again, or restore the copy that it made when it upgraded the home"
