"""Labels by the demo's own rules and a plain ONNX Runtime session, without any peer.

Same input and output as ``package_labels.py``. A process of its own: ONNX
Runtime must not be in the process that runs the other tests.

    python -m tests.oracle.plain_labels MODEL_DIRECTORY < paths
"""

from __future__ import annotations

import json
import os
import sys

import onnxruntime

from cocoon.demo.features import model_input, tokens_of
from cocoon.demo.files import FileRefused, read_edges
from cocoon.demo.labels import OUTPUT, Label, by_model, by_rule
from cocoon.demo.model import Magika, find_magika


def decide(path: str, magika: Magika, session: onnxruntime.InferenceSession) -> Label:
    edges = read_edges(path, magika.rules.geometry.block_bytes)
    tokens = tokens_of(edges, magika.rules.geometry)
    label = by_rule(edges, tokens, magika.rules)
    if label is None:
        label = by_model(session.run([OUTPUT], model_input(tokens))[0], magika.rules)
    return label


def main() -> None:
    magika = find_magika(sys.argv[1])
    session = onnxruntime.InferenceSession(str(magika.model), providers=["CPUExecutionProvider"])
    answers: list[list[object]] = []
    for raw in sys.stdin.buffer.read().split(b"\0")[:-1]:
        try:
            label = decide(os.fsdecode(raw), magika, session)
            answers.append([label.name, label.score])
        except FileRefused as error:
            answers.append([f"refused: {error}", 0.0])
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
