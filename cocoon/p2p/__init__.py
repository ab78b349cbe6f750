"""Peers find one another, stay in touch and carry framed streams: py-libp2p behind one wrapper.

Boundary: no libp2p type leaves this package; libp2p is imported in ``compat``, ``swarm``,
``host`` and ``dht`` only, and only ``node`` imports ``service``.
Invariant: every connection said Hello on our network, or it is closed.
"""
