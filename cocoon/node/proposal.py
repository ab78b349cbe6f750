"""Proposing a lease: keys sealed to the provider, its countersignature, and the link that follows.

The same words open a lease for the first time and, after a crash, again.

Purity: shell. Protocol ``/cocoon/lease/1``. Spec: docs/spec/leases.md, rules LEA-10 to LEA-12.
"""

from __future__ import annotations

import os
from functools import partial

import trio

from cocoon.core.errors import CocoonError, PeerFault, ProviderLost, StreamClosed, Unreachable, from_peer, wrong
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import LEASE_REPLY_NS
from cocoon.core.units import SECOND_NS
from cocoon.node.link import WorkLink
from cocoon.node.means import Purse
from cocoon.node.treasury import ShownVoucher
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.hpke import seal_keys
from cocoon.privacy.link import LinkKeys, SealedReader, SealedWriter, session_keys
from cocoon.wire.messages import KeyBox, Lease, LeaseAccept, LeaseOpen, Refusal
from cocoon.wire.resume import LinkResume, LinkResumed
from cocoon.wire.schema import pack, unpack
from cocoon.wire.signing import Signed, open_signed, sign

LEASE_PROTOCOL = "/cocoon/lease/1"


async def propose(
    purse: Purse, lease: Signed[Lease], sealing_key: bytes, shown: ShownVoucher, *, again: bool = False
) -> tuple[Signed[LeaseAccept], WorkLink]:
    """Open ``lease`` with its provider.

    Args:
        sealing_key: The provider's HPKE key of the day.
        shown: The newest voucher of the lease's lane.
        again: The lease was open before.

    Raises:
        CocoonError: refused, unreachable, or answered with something else.
    """
    provider, lease_id = PeerKey(lease.message.provider), LeaseId(lease.digest)
    keys = LinkKeys.from_bytes(os.urandom(64))
    box = seal_keys(sealing_key, lease_id, keys, sender=purse.identity.key, receiver=provider)
    keybox = sign(KeyBox(lease=lease.digest, box=box), purse.identity)
    opening = LeaseOpen(
        lease=lease.pack(), keybox=keybox.pack(), voucher=shown.voucher, signature=shown.signature
    )
    stream = await purse.mesh.open_stream(provider, LEASE_PROTOCOL)
    try:
        await stream.send(pack(opening))
        accept = await _answer(stream, provider)
        _check(accept.message, lease.digest, keybox.digest, again)
        stream = await _direct(purse, stream, accept.message)
    except BaseException:
        with trio.CancelScope(shield=True):
            await stream.reset()
        raise
    session = session_keys(keys, accept.message.nonce, lease_id)
    writer, reader = SealedWriter(session.to_provider), SealedReader(session.to_requester)
    return accept, WorkLink(stream, writer, reader, None if again else partial(_renew, purse, lease))


async def _renew(purse: Purse, lease: Signed[Lease], received: int) -> tuple[PeerStream, int]:
    """A ``carrier.Renew``: another stream to a provider that is connected."""
    provider = PeerKey(lease.message.provider)
    if provider not in purse.mesh.connections():
        raise StreamClosed("the provider is lost")
    try:
        stream = await purse.mesh.open_stream(provider, LEASE_PROTOCOL)
        try:
            await stream.send(pack(LinkResume(lease=lease.digest, received=received)))
            theirs = unpack(await _answered(stream), LinkResumed).received
        except BaseException:
            with trio.CancelScope(shield=True):
                await stream.reset()
            raise
    except CocoonError as error:
        raise StreamClosed(f"the link does not go on over another stream: {error.text}") from None
    purse.log.info("link_resumed", lease=lease.digest, provider=provider)
    return stream, theirs


async def _direct(purse: Purse, opened: PeerStream, accept: LeaseAccept) -> PeerStream:
    """A connection of the link's own, if the provider offers one and it comes about; else the stream as it is."""
    if accept.port is None or accept.token is None or not purse.direct_links:
        return opened
    try:
        direct = await purse.mesh.dial_direct(opened.peer, accept.port, accept.token)
    except Unreachable as error:
        purse.log.info("no_direct_link", provider=opened.peer, text=error.text)
        return opened
    await opened.close()
    return direct


def _check(accept: LeaseAccept, lease: bytes, keybox: bytes, again: bool) -> None:
    """Return if ``accept`` is about this lease and these keys; ``wrong_lease`` or ``wrong_keys``."""
    if accept.lease != lease:
        raise wrong("lease", "the provider countersigned another lease")
    if accept.resumed and not again:
        raise wrong("lease", "the provider resumes a lease that was never open")
    if accept.keybox != keybox:
        raise wrong("keys", "the provider opened another box of keys")


async def _answer(stream: PeerStream, provider: PeerKey) -> Signed[LeaseAccept]:
    return open_signed(await _answered(stream), LeaseAccept, signer=provider)


async def _answered(stream: PeerStream) -> bytes:
    """What the provider says, if it is no refusal."""
    data = None
    with trio.move_on_after(LEASE_REPLY_NS / SECOND_NS):
        data = await stream.receive()
    if data is None:
        raise ProviderLost(f"the provider did not answer the lease within {LEASE_REPLY_NS // SECOND_NS} s")
    if (error := refused(data)) is not None:
        raise error
    return data


def refused(data: bytes) -> CocoonError | None:
    """The error in a refusal; None if ``data`` is something else."""
    try:
        refusal = unpack(data, Refusal)
    except PeerFault:
        return None
    return from_peer(refusal.code, refusal.text)
