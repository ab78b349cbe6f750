"""What the import of py-libp2p brings along, and what Cocoon keeps out; docs/dependencies.md has the list."""

from __future__ import annotations

import re
import subprocess
import sys


def test_the_stack_imports_without_the_packages_of_unused_parts_and_refuses_their_use():
    """fastecdsa has no Linux wheel; the others took half of a peer's start."""
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('aioquic', 'httpx', 'requests', 'wsproto', 'zeroconf')))\n"
        "import cocoon.p2p.service, libp2p, libp2p.crypto.ecc as ecc\n"
        "from libp2p.discovery.mdns.mdns import MDNSDiscovery\n"
        "for use in (lambda: ecc.create_new_key_pair('P-256'), lambda: MDNSDiscovery(None)):\n"
        "    try: use()\n"
        "    except NotImplementedError as refused: print(refused)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    refused = re.findall(r"(\S+) is left out of Cocoon", done.stdout)
    assert refused == ["fastecdsa.keys.gen_private_key", "libp2p.discovery.mdns.mdns.MDNSDiscovery"], done.stderr


def test_a_peer_loads_no_part_of_a_library_that_only_its_start_would_notice():
    code = (
        "import sys, cocoon.node.main, cocoon.node.peer\n"
        "print(sorted({'rich', 'pycparser', 'aioquic', 'httpx'} & sys.modules.keys()))\n"
        "import rich\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_name_is_resolved_without_the_resolver_over_quic():
    code = (
        "from cocoon.p2p import compat\n"
        "import dns.query, dns.message\n"
        "try: dns.query.quic(dns.message.make_query('example.org', 'A'), '127.0.0.1')\n"
        "except dns.query.NoDOQ: print('no resolver over QUIC')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "no resolver over QUIC", done.stderr


def test_a_peer_cannot_write_on_our_standard_error():
    """The library calls ``logging.warning``, which installs a handler on the root logger of the process."""
    code = (
        "import logging\n"
        "from cocoon.p2p import compat\n"
        "compat.swarm_connection.logging.warning('a peer did this')\n"
        "compat.tcp.logger.error('a peer did that')\n"
        "print(logging.getLogger().handlers)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
