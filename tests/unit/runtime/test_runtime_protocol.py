"""RUN-4 to RUN-6: orders and answers survive the socket; a lying worker is caught."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import (
    InputsMismatch,
    Malformed,
    PeerFault,
    ProviderBusy,
    TooLarge,
)
from cocoon.core.limits import BATCH_RUNS, CONTEXT_TOKENS, DECODE_ROWS, PAYLOAD_BYTES, SHARED_BYTES, VOCABULARY
from cocoon.runtime.protocol import (
    Failed,
    Load,
    Loaded,
    Made,
    NoRoom,
    Ran,
    Ready,
    Run,
    Turn,
    Turned,
    failure,
    pack_order,
    pack_reply,
    unpack_order,
    unpack_reply,
)
from cocoon.runtime.specs import TensorSpec
from cocoon.wire.codec import encode

counts = st.integers(0, 2**63 - 1)
sizes = st.integers(0, PAYLOAD_BYTES)
names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)
shapes = st.none() | st.lists(counts | names, max_size=4).map(tuple)
specs = st.lists(st.builds(TensorSpec, names, names, shapes), max_size=3).map(tuple)
spans = st.tuples(st.integers(0, SHARED_BYTES - PAYLOAD_BYTES), sizes)
orders = st.builds(Load, *[counts] * 10) | st.builds(
    Run, st.lists(spans, max_size=3).map(tuple)
) | st.builds(
    Turn, st.lists(st.tuples(counts, counts, spans), max_size=3).map(tuple), st.lists(counts, max_size=3).map(tuple)
)
failures = st.builds(Failed, st.sampled_from(["model_refused", "memory_exceeded", "run_failed"]), names)
tokens = st.tuples(
    counts, st.integers(0, CONTEXT_TOKENS), st.integers(0, VOCABULARY - 1), st.binary(min_size=32, max_size=32)
)
seats = st.integers(1, BATCH_RUNS).flatmap(lambda joined: st.tuples(st.just(joined), st.integers(0, joined - 1)))
made = st.builds(lambda ran_us, span, seat: Made(ran_us, span, *seat), counts, spans, seats)
outcomes = made | failures | st.just(NoRoom())
replies = (
    st.builds(Ready, names, names, names, counts, names, names, st.lists(names, max_size=3).map(tuple))
    | st.builds(Loaded, counts, names, specs, specs)
    | st.builds(Ran, st.lists(outcomes, max_size=3).map(tuple))
    | st.builds(
        Turned, st.lists(tokens, max_size=3).map(tuple),
        st.lists(st.tuples(counts, outcomes), max_size=3).map(tuple),
    )
    | failures
)


@given(orders)
def test_an_order_survives_the_socket(order):
    assert unpack_order(pack_order(order)) == order


@given(replies)
def test_an_answer_survives_the_socket(reply):
    assert unpack_reply(pack_reply(reply)) == reply


@given(st.binary(max_size=64))
def test_random_bytes_are_refused_or_understood_but_never_crash_the_peer(data):
    for unpack in (unpack_order, unpack_reply):
        try:
            unpack(data)
        except PeerFault:
            pass


@pytest.mark.parametrize(
    "lie",
    [
        [4, "busy", "an error that a worker may not name"],
        [4, "model_refused", 7],
        [4, ["model_refused"], "a code that is no text"],
        [3, 0],
        [3, [[-1, 0, 0, 1, 0]]],
        [3, [[True, 0, 0, 1, 0]]],
        [3, [[0, -1, 0, 1, 0]]],
        [3, [[0, SHARED_BYTES, 1, 1, 0]]],
        [3, [[0, 0]]],
        [3, [[0, 0, 0]]],
        [3, [[0, 0, 0, 0, 0]]],
        [3, [[0, 0, 0, 2, 2]]],
        [3, [[0, 0, 0, 1, -1]]],
        [3, [[0, 0, 0, BATCH_RUNS + 1, 0]]],
        [3, [["busy", "an error that a worker may not name"]]],
        [3, [[0, 0, 0, 1, 0]] * (BATCH_RUNS + 1)],
        [3, [7]],
        [5, [[1, 1, 1, bytes(31)]], []],
        [5, [[-1, 1, 1, bytes(32)]], []],
        [5, [[1, CONTEXT_TOKENS + 1, 1, bytes(32)]], []],
        [5, [[1, 1, VOCABULARY, bytes(32)]], []],
        [5, [[1, 1, 1, bytes(32)]] * (DECODE_ROWS + 1), []],
        [5, [], [[1, [0, SHARED_BYTES, 1, 1, 0]]]],
        [5, [], [[1, []]] * 1_000],
        [5, [7], []],
        [5, [], [7]],
        [9],
        [],
        [2, 0, "p", [["x", "float32", True, [-1]]], []],
        [2, 0, "p", [["x", "float32", True, [1] * 33]], []],
        [2, 0, "p", [["x" * 257, "float32", True, []]], []],
        [2, 0, "p", [["x", "float32", True, []]] * 257, []],
        [1, ["e" * 129, "p", "d", "o", "s"], 0, []],
        [1, ["e", "p", "d", "o", "s"], 0, ["c"] * 17],
    ],
)
def test_an_answer_out_of_bounds_is_refused(lie):
    with pytest.raises(Malformed):
        unpack_reply(encode(lie))


def test_outputs_above_the_payload_limit_are_refused():
    with pytest.raises(TooLarge):
        unpack_reply(encode([3, [[0, 0, PAYLOAD_BYTES + 1, 1, 0]]]))


@pytest.mark.parametrize(
    "data", [b"", b"\x93\x03", b"\x91\x09\x00", b"\xc1", b"\xd4\x01\x02", b"\x81\x90\x01", b"\x91" * 2_000]
)
def test_an_answer_that_is_no_msgpack_of_ours_is_refused(data):
    with pytest.raises(Malformed):
        unpack_reply(data)


def test_a_fault_of_the_model_travels_as_itself():
    reply = unpack_reply(pack_reply(failure(InputsMismatch("input 'x' is missing"))))
    assert isinstance(reply, Failed)
    assert isinstance(reply.error(), InputsMismatch) and reply.error().text == "input 'x' is missing"


def test_an_error_that_is_not_the_models_does_not_travel():
    with pytest.raises(ProviderBusy):
        failure(ProviderBusy("no place"))


@pytest.mark.parametrize("order", [[3, [5], []], [3, [[1, 2]], []], [3, [[1, 0, -1]], []], [3, [], ["x"]], [3, 1, []]])
def test_an_order_to_a_decoder_that_is_none_is_refused(order):
    with pytest.raises(Malformed):
        unpack_order(encode(order))
