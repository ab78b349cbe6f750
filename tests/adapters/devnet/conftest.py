"""This process loads ONNX Runtime before tonpy: the other order crashes the interpreter."""

import onnxruntime  # noqa: F401
