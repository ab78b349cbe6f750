"""Bounds of the devnet, and of whatever reads or writes a chain; ``cocoon.core.limits`` is the door to them.

Purity: pure.
"""

from __future__ import annotations

from cocoon.core.units import KIB, MIB, MILLISECOND_NS, SECOND_NS

# --- devnet ----------------------------------------------------------------
DEVNET_CELL_DEPTH = 1_024
"""Of any tree of cells; the virtual machine's own bound."""
DEVNET_MESSAGE_BYTES = 65_535
DEVNET_MESSAGE_CELLS = 8_192
DEVNET_MESSAGE_DEPTH = 512
"""An external message, as the network bounds it (parameter 43, and its defaults). Deeper ones fit no block: what stands
around a message in its block takes some levels of DEVNET_CELL_DEPTH too."""
DEVNET_STATE_CELLS = 1 << 20
"""Of one bag that we made ourselves: a state, a block, a transaction, an account, what a contract sends."""
DEVNET_QUERY_BYTES = 72 * KIB
"""A client's packet: the largest external message and its envelope."""
DEVNET_ANSWER_BYTES = 8 * MIB
"""A liteserver's packet; a client is told to ask for less."""
DEVNET_UNSENT_BYTES = 256 * MIB
"""Answers of all clients that wait to be taken; twice this at most, because what is sealed exists twice. All places of
all clients with an answer of usual size (10 KiB) take 40 MiB."""
DEVNET_CLIENTS = 128
"""Connections at a time: a peer needs one or two, so this is a market of some dozens on one machine."""
DEVNET_HANDSHAKES = 64
"""Connections that have not exchanged keys yet; the oldest makes room for a new one."""
DEVNET_HANDSHAKE_NS = 5 * SECOND_NS
"""From a TCP connection to its key exchange: a packet of 256 bytes on loopback or a LAN."""
DEVNET_SILENCE_NS = 600 * SECOND_NS
"""A client that says nothing for this long loses its place; pytoniq pings every 3 s."""
DEVNET_STALL_NS = 20 * SECOND_NS
"""A client that takes less than 64 KiB of an answer in this time loses its place."""
DEVNET_QUERIES = 32
"""Queries of one client that are open; it is read no further until one is answered."""
DEVNET_WAIT_NS = 60 * SECOND_NS
"""Longest wait for a block that a query may ask for; pytoniq asks for 10 s."""
DEVNET_PENDING = 4_096
"""External messages are refused while so many wait for a block; those of contracts are bounded by their fees alone."""
DEVNET_BLOCK_MESSAGES = 256
"""Messages run in one block: 0.13 s at 0.5 ms each, for messages of the usual few thousand gas."""
DEVNET_BLOCK_GAS = 10_000_000
"""No further message is run in a block that used so much, the network's own bound (parameter 21). Queries wait so long:
0.25 s, or 0.8 s if all of it is empty loops (24 and 78 ms for a million gas)."""
DEVNET_STATES = 512
"""Newest blocks whose whole state can be asked for: four minutes at 2 blocks/s, ten seconds at 50."""
DEVNET_EMPTY_BLOCKS = 50_000
"""Blocks without transactions that are kept, the newest: a day of them at one in 2 s, 130 MB."""
DEVNET_LISTED = 256
"""Transactions in one answer; clients ask again from where it ends."""
DEVNET_HISTORY = 16
"""Transactions of one account in one answer, as real liteservers give."""
DEVNET_METHOD_GAS = 1_000_000
"""Gas of one get-method, as real liteservers allow."""
DEVNET_IDLE_BLOCK_NS = 2 * SECOND_NS
"""Without work a block is made this often while somebody is connected: chain time is at most this old."""
DEVNET_PARENT_NS = SECOND_NS
"""Between looks for the parent where the kernel cannot tell of its end."""
DEVNET_BLOCK_NS_MIN = 10 * MILLISECOND_NS
DEVNET_BLOCK_NS_MAX = 60 * SECOND_NS
DEVNET_CLOCK_OFFSET_S_MAX = 1_000_000_000
"""Thirty-one years: enough for any rent or expiry, and far from the year 2106, where TON's clock ends."""
DEVNET_GAS_PRICE_MAX = 1_000_000
"""Nanoton per gas; 2,500 times the network's own price."""

# --- chain -----------------------------------------------------------------
WALLET_MESSAGES = 4
"""Internal messages under one signature of the wallet; the contract takes 255, we need one."""
SIGNATURE_LIFE_S = 600
"""A signature of the wallet is for at most so long, so that one kept back cannot pass a later hour's cap."""
SIGNATURE_DEFAULT_S = 120
"""What the outbox asks for: many blocks even on a slow day, and the wait after a crash in the worst case."""
CLOCK_SKEW_S = 100
"""Nothing that expires is signed by a machine whose clock is further from the chain's newest block, which may be a
minute old on a slow day; the signer takes no message whose SIGNATURE_DEFAULT_S are over by its own clock."""
SIGNATURES_PER_DAY = 4_096
"""Kept by the signer with their amounts; one every 21 s, and 80 KiB of file."""
SIGNER_FRAME_BYTES = 64 * KIB
"""A request to the signer: at most WALLET_MESSAGES bodies of a few KiB."""
SIGNER_CELLS = 512
"""Cells of one message that is signed; an order of 64 lanes has 70, a contract's code about 60."""
SIGNER_START_NS = 20 * SECOND_NS
"""Making 24 words takes 0.1 s, imports as long, a busy machine ten times that."""
SIGNER_REPLY_NS = 10 * SECOND_NS
"""One signature and one small file made durable."""
OUT_MESSAGES = 255
"""Messages of one transaction; the chain allows so many actions."""
TRANSACTIONS_READ = 16_384
"""Of one account in one call: 1,024 questions to a liteserver; strangers may send dust to a wallet."""
CHAIN_BYTES = 4 * MIB
"""One answer of a liteserver; the whole configuration takes 0.3 MiB, a block at most 2."""
CHAIN_CELLS = 1 << 17
"""Cells of one whole state; a devnet's with its configuration has some thousands."""
AUDIT_LOOKS = 3
"""Looks of an audit that finds a difference: a lane is pruned between two readings once in a while, not thrice."""
SUPPLY_BLOCKS = 8_192
"""Blocks of each workchain that are added up: four hours of an idle devnet, read in less than a minute."""
SUPPLY_TRANSACTIONS = 65_536
"""Transactions that are added up; half a kilobyte is kept of each."""
SUPPLY_ACCOUNTS = 16_384
"""Accounts of one state whose balances are added up."""
SUPPLY_PAGE = 64
"""Blocks read in one call, which may take CHAIN_CALL_NS."""
SUPPLY_LOOKS = 8
"""Blocks to wait for one after which no message is under way; then what is under way is told."""
CHAIN_REPLY_NS = 10 * SECOND_NS
"""One question to a liteserver."""
CHAIN_CALL_NS = 30 * SECOND_NS
"""One call of ours: a reconnect, a block to wait for and a question."""
CHAIN_VERB_NS = 180 * SECOND_NS
"""From asking the faucet to its coins: three blocks of the slowest devnet."""
CHAIN_WAIT_NS = 5 * SECOND_NS
"""A liteserver holds the question for the next block so long."""
CHAIN_RETRY_FIRST_NS = 250 * MILLISECOND_NS
CHAIN_RETRY_LAST_NS = 10 * SECOND_NS
"""Back-off of connections to a liteserver: doubles from first to last, for ever."""
CHAIN_HEADS = 64
"""Newest blocks remembered of each liteserver, so that two can be compared without asking."""
PRICES_NS = 600 * SECOND_NS
"""Between two readings of the configuration; its prices change by a vote that takes days."""
PRICES_KEPT_NS = 86_400 * SECOND_NS
"""Older prices do not stand in for a chain that is away; a vote on others takes longer than this."""
OUTBOX_ITEMS = 1_024
"""Messages of the wallet that wait; one leaves per block or two, so this is a quarter of an hour on a devnet."""
OUTBOX_KEY_BYTES = 128
"""Names an intention: a word, an address of 32 bytes, numbers."""
OUTBOX_RESEND_NS = 5 * SECOND_NS
"""Between two sendings of one signed message; a liteserver may have dropped it, a second copy is harmless."""
OUTBOX_PAUSE_NS = SECOND_NS
"""After a reading of the chain that failed, besides waiting for the next block."""
WALLET_RESERVE_NANOTON = 20_000_000
"""Kept for the wallet's own fees: deploying an escrow through a new wallet burns 0.012 TON at 400 nanoton a gas."""
