"""Whoever listens to the network learns no byte of a model, an input or an output.

A capture of everything on loopback during a real run between real processes.
The control proves that the capture would have seen it: the same kind of marker,
sent in the clear over loopback, is found.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

import cocoon
from tests.attack.wiretap import may_capture, tapped
from tests.loopback.conftest import settle
from tests.loopback.town import town
from tests.models import IR_VERSION, OPSET

MARKER_BYTES = 32
#: So often that no cut into packets can hide every one of them.
REPEATS = 4_096


def marked() -> tuple[bytes, np.ndarray]:
    """A new marker, and a tensor full of it."""
    marker = os.urandom(MARKER_BYTES)
    return marker, np.frombuffer(marker * REPEATS, np.uint8)


def echo_model(weights: np.ndarray) -> bytes:
    """echo = x, kept = the model's own constant; both uint8."""
    nodes = [h.make_node("Identity", ["x"], ["echo"]), h.make_node("Identity", ["w"], ["kept"])]
    outputs = [h.make_tensor_value_info(name, T.UINT8, ["n"]) for name in ("echo", "kept")]
    inputs = [h.make_tensor_value_info("x", T.UINT8, ["n"])]
    graph = h.make_graph(nodes, "g", inputs, outputs, [nh.from_array(weights, "w")])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    packed: bytes = model.SerializeToString()
    return packed


def send_in_the_clear(payload: bytes) -> None:
    """Over TCP on loopback, as an unsealed protocol would."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            with accepted:
                client.sendall(payload)
                client.shutdown(socket.SHUT_WR)
                while accepted.recv(1 << 16):
                    pass


@pytest.mark.skipif(not may_capture(), reason="NOT CHECKED: a packet capture needs root (CAP_NET_RAW) and Linux")
def test_a_capture_of_a_sealed_run_holds_no_byte_of_model_input_or_output(tmp_path: Path) -> None:
    weights_marker, weights = marked()
    input_marker, inputs = marked()
    control_marker, control = marked()
    (tmp_path / "model.onnx").write_bytes(echo_model(weights))
    assert weights_marker in (tmp_path / "model.onnx").read_bytes()
    with tapped() as tap, town(tmp_path) as place:
        settled = settle(place)
        send_in_the_clear(control.tobytes())
        result = cocoon.connect(settled.requester.home).run(tmp_path / "model.onnx", {"x": inputs})
        assert result.outputs["echo"].tobytes() == inputs.tobytes()
        assert result.outputs["kept"].tobytes() == weights.tobytes()
        assert result.receipt is not None
    assert tap.dropped == 0
    assert tap.count(control_marker), "the capture is blind"
    # Model and input went there, both outputs came back: all of it was seen, none of it could be read.
    carried = 2 * weights.nbytes + 2 * inputs.nbytes
    assert tap.size_bytes - control.nbytes > carried
    assert tap.count(input_marker) == tap.count(weights_marker) == 0
