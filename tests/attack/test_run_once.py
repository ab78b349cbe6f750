"""A provider that is killed in the middle of a run never executes that run again.

Real processes: the run is under way (its start is in the journal) when SIGKILL
comes; the provider starts again on the same home, the same lease is resumed,
and the same number is asked.
"""

from __future__ import annotations

import os
import select
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h

from cocoon.core.ids import LeaseId
from cocoon.node import records
from cocoon.store.reader import open_reader
from cocoon.store.service import JOURNAL_FILE
from cocoon.wire.judged import Statement
from cocoon.wire.messages import (
    Lease,
    LeaseClose,
    Receipt,
    ReceiptIssued,
    RunFailure,
    RunRequest,
    RunResult,
    TrancheClose,
)
from cocoon.wire.signing import Signed, open_signed
from cocoon.wire.tensors import decode_tensors, encode_tensors
from tests.attack.conftest import open_shop
from tests.attack.hostile_requester import SALT, customer, stranger
from tests.loopback.town import PATIENCE_S, town
from tests.models import IR_VERSION, OPSET

FOR_EVER = encode_tensors({"rounds": np.array(2**62, np.int64)})
BRIEFLY = encode_tensors({"rounds": np.array(3, np.int64)})
RUNS = 2


def counter_model() -> bytes:
    """Counts ``rounds`` (int64 scalar) up from zero, one by one: y = rounds, sooner or later."""
    body = h.make_graph(
        [h.make_node("Identity", ["c"], ["co"]), h.make_node("Add", ["a", "one"], ["ao"])], "body",
        [_scalar("i"), _scalar("c", T.BOOL), _scalar("a")], [_scalar("co", T.BOOL), _scalar("ao")],
    )
    constants = [
        h.make_tensor("true", T.BOOL, [], [True]), h.make_tensor("one", T.INT64, [], [1]),
        h.make_tensor("zero", T.INT64, [], [0]),
    ]
    loop = h.make_node("Loop", ["rounds", "true", "zero"], ["y"], body=body)
    graph = h.make_graph([loop], "g", [_scalar("rounds")], [_scalar("y")], constants)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    packed: bytes = model.SerializeToString()
    return packed


def _scalar(name: str, kind: int = T.INT64) -> onnx.ValueInfoProto:
    return h.make_tensor_value_info(name, kind, [])


def reserved(home: Path, lease: Signed[Lease]) -> list[int]:
    """Up to which numbers the journal has said that runs of ``lease`` may have been begun, in order."""
    with open_reader(home / JOURNAL_FILE) as reader:
        rows = [records.unpack_runs(entry.body) for entry in reader.entries(records.RUNS_RESERVED)]
    return [number for of, number in rows if of == LeaseId(lease.digest)]


def ends(process: int) -> bool:
    """Whether the process behind a pidfd ends; closes the descriptor."""
    with os.fdopen(process, "rb", buffering=0):
        return bool(select.select([process], [], [], PATIENCE_S)[0])


async def test_a_run_that_a_crash_cut_off_is_lost_and_the_next_one_runs(tmp_path: Path) -> None:
    identity, model = stranger(), counter_model()
    with town(tmp_path) as place:
        seller = open_shop(place)
        async with customer(seller.network, identity) as guest:
            quote = await guest.quote()
            lease = guest.lease(quote, model, max_runs=RUNS)
            deal = await guest.open(quote, lease)
            await deal.deliver(model)
            await deal.say(RunRequest(number=1, salt=SALT, inputs=FOR_EVER))
            # Refused at once, and only after the start of run 1 is durable: facts are taken in order.
            refused = await deal.run(RUNS + 1)
            assert isinstance(refused, RunFailure) and refused.code == "limit_exceeded"
            assert reserved(seller.peer.home, lease) == [1]
            workers = [os.pidfd_open(pid) for pid in seller.peer.tree()[1:]]
            assert workers, "no worker is there to execute the run"
            seller.peer.kill()
        ended = [ends(worker) for worker in workers]
        assert all(ended), "a worker outlived its peer and goes on with the run"

        restarted = open_shop(place)                    # on the same home
        assert restarted.network.id == seller.network.id
        async with customer(restarted.network, identity) as guest:
            again = await guest.open(await guest.quote(), lease)
            assert again.accept.resumed
            await again.deliver(model)
            lost = await again.run(1, BRIEFLY)
            assert isinstance(lost, RunFailure) and lost.code == "run_lost"
            done = await again.run(2, BRIEFLY)
            assert isinstance(done, RunResult)
            assert decode_tensors(done.outputs)["y"] == 3
            assert Statement.unpack(done.statement).number == 2
            assert reserved(restarted.peer.home, lease) == [1, 2]
            await again.say(TrancheClose(through=2))
            receipt = open_signed((await again.hear(ReceiptIssued)).receipt, Receipt).message
            assert (receipt.first_number, receipt.runs) == (2, 1)
            await again.say(LeaseClose(code="released"))
            await again.last_word()
