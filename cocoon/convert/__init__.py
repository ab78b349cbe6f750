"""Turning a Llama-family decoder, as people publish it, into a package that Cocoon runs.

A package is one ONNX file with all weights inside and a key-value cache in its
inputs and outputs, a tokenizer, the bytes of every token, and a description.
``python -m cocoon.convert SOURCE OUT`` makes one; it needs the extra ``convert``.

Boundary: a tool for whoever owns a model. No peer imports it, and it imports no
ONNX Runtime; only ``ggufs`` needs the package gguf.
Invariant: every tensor of the source is in the package, or the source is refused.
"""
