"""A TON chain on this machine: real TVM, real cells, the liteserver protocol, and nobody else's coins.

Boundary: knows nothing of Cocoon's contracts or messages; others meet it over ADNL only. A process of its
own, because its virtual machine (``executor``, the only door to tonpy) must not be loaded before ONNX Runtime.
Invariant: what a client was told is on disk; coins are neither made nor lost in any block.
"""
