"""Running models of strangers: one confined worker process per model.

Boundary: the parent half (``service``, ``process``, ``channel``) never imports
numpy, onnx or onnxruntime; the worker half (``worker``, ``session``, ``screen``,
``confine``) is imported only inside a worker process. ``protocol``, ``specs``
and ``death`` are pure and shared. Of decoding, ``generating``, ``sequences`` and ``stopping``
know no numpy; ``decoder``, ``sampling`` and ``generator`` are the worker's.
Invariant: whatever a model does, its worker answers, or is dead, at the deadline.
"""
