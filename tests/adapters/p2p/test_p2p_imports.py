"""What the import of py-libp2p brings along, and what Cocoon keeps out; docs/dependencies.md has the list."""

from __future__ import annotations

import re
import subprocess
import sys


def said(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_stack_imports_without_the_packages_of_unused_parts_and_refuses_their_use():
    """fastecdsa has no Linux wheel; the others took more than half of a peer's start."""
    refused = re.findall(r"(\S+) is left out of Cocoon", said(
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('aioquic', 'httpx', 'requests', 'wsproto', 'zeroconf', 'cid')))\n"
        "import cocoon.p2p.service, libp2p, libp2p.crypto.ecc as ecc\n"
        "from libp2p.discovery.mdns.mdns import MDNSDiscovery\n"
        "from cryptography import x509\n"
        "for use in (\n"
        "    lambda: ecc.create_new_key_pair('P-256'), lambda: MDNSDiscovery(None), lambda: x509.DNSName('a'),\n"
        "):\n"
        "    try: use()\n"
        "    except NotImplementedError as refused: print(refused)\n"
    ))
    assert refused == [
        "fastecdsa.keys.gen_private_key", "libp2p.discovery.mdns.mdns.MDNSDiscovery", "cryptography.x509.DNSName",
    ]


def test_a_peer_loads_no_part_of_a_library_that_only_its_start_would_notice():
    assert said(
        "import sys, cocoon.node.main, cocoon.node.peer\n"
        "never = {'rich', 'pycparser', 'aioquic', 'httpx', 'http.server', 'dns.message', 'psutil._pslinux'}\n"
        "print(sorted(never & sys.modules.keys()))\n"
        "import rich, psutil\n"
        "print(psutil.pid_exists(1), type(psutil).__name__)\n"
    ) == "[]\nTrue module\n"


def test_the_collector_leaves_imported_modules_alone_and_works_afterwards():
    assert said(
        "import gc\n"
        "from cocoon.core.imports import uncollected\n"
        "with uncollected():\n"
        "    import cocoon.node.peer\n"
        "    collected = sum(generation['collections'] for generation in gc.get_stats())\n"
        "    print(gc.isenabled(), collected < 20)\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 100_000)\n"
    ) == "False True\nTrue True\n"


def test_the_first_dns_name_loads_the_resolver_and_is_resolved():
    assert said("""if True:
        import sys, trio
        from cocoon.p2p.compat import names
        from multiaddr import Multiaddr

        async def answer(sock):
            from dns.message import from_wire, make_response
            from dns.rrset import from_text
            asked, where = await sock.recvfrom(512)
            reply = make_response(from_wire(asked))
            reply.answer.append(from_text(reply.question[0].name, 60, "IN", "A", "127.0.0.7"))
            await sock.sendto(reply.to_wire(), where)

        async def main():
            sock = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
            await sock.bind(("127.0.0.1", 0))
            one = names.DNSResolver()
            print("dns.message" in sys.modules)
            one._resolver.nameservers, one._resolver.port = ["127.0.0.1"], sock.getsockname()[1]
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(answer, sock)
                    print(*await one.resolve(Multiaddr("/dns4/peer.example/tcp/7")))
            print(names.DNSResolver()._resolver is one._resolver)

        trio.run(main)
    """) == "False\n/ip4/127.0.0.7/tcp/7\nFalse\n"


def test_a_name_is_resolved_without_the_resolver_over_quic():
    assert said(
        "from cocoon.p2p import compat\n"
        "import dns.query, dns.message\n"
        "try: dns.query.quic(dns.message.make_query('example.org', 'A'), '127.0.0.1')\n"
        "except dns.query.NoDOQ: print('no resolver over QUIC')\n"
    ) == "no resolver over QUIC\n"


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
