"""Every bound of the product, with its unit and its reason. Nothing is unbounded.

Purity: pure. Figures marked (D9) are the starting values of the design; the
others say where they come from.
"""

from __future__ import annotations

from cocoon.core.limits.batching import *  # noqa: F403 (one door to all of them)
from cocoon.core.limits.chain import *  # noqa: F403 (one door to all of them)
from cocoon.core.limits.tokens import *  # noqa: F403 (one door to all of them)
from cocoon.core.units import DAY_NS, GIB, KIB, MIB, MILLISECOND_NS, NANOTON_PER_TON, SECOND_NS

# --- time ------------------------------------------------------------------
DIRECT_DIAL_NS = SECOND_NS
"""A direct connection for a lease: three times the longest way there and back; then the libp2p stream serves."""
HANDSHAKE_NS = 5 * SECOND_NS
"""Dial, Noise, Yamux and hello together (D9); and the first frame of a stream that a peer opens."""
HEARTBEAT_NS = 2 * SECOND_NS
"""Between heartbeats; with HEARTBEATS_MISSED a frozen peer is noticed in 6 to 8 s, below the 10 s promise."""
HEARTBEATS_MISSED = 3
DISCOVERY_NS = 3 * SECOND_NS
"""A look-up in the DHT; records of dead peers cost no more than this."""
OFFER_NS = 2 * SECOND_NS
"""An offer is a signed reply from memory: 2 s is ten slow round trips (330 ms at p99 on a world graph)."""
AUCTION_SOONEST_NS = 250 * MILLISECOND_NS
AUCTION_MOST_NS = 1_500 * MILLISECOND_NS
"""An auction closes at twice the slowest measured round trip, within these: a machine on the same wire that is busy
with runs (50 ms lost bidders on two loaded cores), and ten slow round trips of a world graph."""
ROUND_TRIP_UNKNOWN_NS = 750 * MILLISECOND_NS
"""Of a bidder that was never called: a cold dial has to be made first, so it gets the longest auction."""
BID_BINDS_NS = 60 * SECOND_NS
"""A bid's price stands this long after its call: the winner's lane may have to come on chain first, and the runner-up
is needed in the middle of a task. As long as an offer that may be replaced (OFFER_REFRESH_NS)."""
BID_HONOURED_NS = BID_BINDS_NS + 5 * SECOND_NS
"""As its provider counts it: the award travels, too."""
CALL_NS = 50 * MILLISECOND_NS
"""Between two calls of one requester, on average: 20 a second (D9)."""
CALLS_LOOKED_BACK_NS = DAY_NS
"""Calls that `cocoon earnings --ask` looks back at: demand has a daily course, prices move within days."""
LEASE_REPLY_NS = 2 * SECOND_NS
"""From lease proposal to countersignature; a provider decides from memory and one journal commit."""
SEND_STALL_NS = 30 * SECOND_NS
"""A sender without any credit from the reader; then the stream is reset."""
MODEL_STALL_NS = 30 * SECOND_NS
"""Without any progress while a model is sent or loaded."""
MODEL_LOAD_NS = 60 * SECOND_NS
"""Session creation: a 135 M model takes 0.5 s, so this is two orders of slack."""
RUN_NS = 30 * SECOND_NS
"""Default limit of one run; the offer may say less."""
RESUME_NS = 5 * SECOND_NS
"""A provider waits so long for a requester that is connected and whose stream broke; a dial takes less."""
RECEIPT_REPLY_NS = 5 * SECOND_NS
"""From the end of a tranche to its signed receipt."""
SETTLE_NS = 30 * SECOND_NS
"""A broken lease is opened again and settled: an offer, an acceptance and a few receipts, each of them due in 5 s."""
TASK_DEADLINE_NS = 600 * SECOND_NS
"""Default deadline of a whole task."""
LEASE_DURATION_S = 3_600
"""A lease ends after this however warm it is."""
LEASE_IDLE_NS = 60 * SECOND_NS
"""A warm lease without a run is given back after this."""
ACQUAINT_NS = 60 * SECOND_NS
"""Between looks for sellers to know; a look-up costs each of a few peers one question."""
OFFER_TTL_S = 180
"""Life of an offer after it was received."""
OFFER_REFRESH_NS = 60 * SECOND_NS
"""A provider issues a new offer at least this often; a third of the TTL."""
WARM_MODELS = 64
"""Public models whose measured times stand behind one offer: 3 KB, sent to whoever asks for the offer."""
OFFER_SPACING_NS = 10 * SECOND_NS
"""A queue that became longer or shorter is told no sooner: every offer goes to everybody, and a bid says what is true
now. 200 busy providers then cost each peer 20 offers a second, with 4 copies of each some 40 KB/s at the most."""
GOSSIP_INTERVAL_NS = SECOND_NS
"""Between two summaries to a neighbour drawn by lot: what a push missed is found within a few seconds."""
GOSSIP_CALM_NS = 4 * GOSSIP_INTERVAL_NS
"""The same where comparing finds nothing; eight neighbours who do so still ask each peer twice in that time."""
GOSSIP_PUSH_NS = 100 * MILLISECOND_NS
"""Between two pushes: what arrives meanwhile travels in one frame. Six hops of it are far below the two seconds."""
GOSSIP_HOP_NS = 100 * MILLISECOND_NS
"""Added to an offer's age for the way of its frame, which nobody measures; so whatever goes round in circles ends."""
GOSSIP_BOOT_SILENCE_NS = OFFER_REFRESH_NS + 30 * SECOND_NS
"""After so long without a newer offer of the present boot another one may take its place; a living one made one."""
GOSSIP_MEMORY_NS = 3_600 * SECOND_NS
"""A provider whose offer expired is remembered for twenty lives of it, so that a replay does not bring it back."""
GOSSIP_SHUN_NS = 600 * SECOND_NS
"""A neighbour that sent what no honest peer sends is not listened to for so long."""
GOSSIP_SHUNNED = 1_024
"""Such neighbours remembered at a time; then the first is forgotten, because new identities cost nothing."""
GOSSIP_RETRY_NS = 30 * SECOND_NS
"""Before a connected peer that did not take our gossip stream, or ended it, is asked again."""
PEER_START_NS = 60 * SECOND_NS
"""An application's own peer must be ready by then: it takes 1 to 3 s, and a new devnet's first block a little more."""
OWN_PEER_END_NS = 5 * SECOND_NS
"""Beyond ``DRAIN_NS``, until such a peer is killed: its journal and its workers end in a fraction of a second."""
DRAIN_NS = 10 * SECOND_NS
"""From SIGTERM until running work is cut."""
RETRY_FIRST_NS = 500 * MILLISECOND_NS
RETRY_LAST_NS = 30 * SECOND_NS
"""Back-off of whatever is tried for ever: doubles from first to last."""
WORKER_START_NS = 30 * SECOND_NS
"""Interpreter and ONNX Runtime imports: 1 s warm, several on a cold disk."""
DISCOVERY_GRACE_NS = SECOND_NS
"""After the first live seller a look-up waits this long for more; a cold dial takes 1.4 s at p90 on a world graph."""
REPROVIDE_NS = 600 * SECOND_NS
"""A provider announces its keys again, for nodes that came nearer; stock nodes keep a record for 48 h."""
ANNOUNCE_AGAIN_NS = 10 * SECOND_NS
"""Between two announcements to one peer; stock nodes take ten keys per 10 s from one peer."""
DIAL_SHUN_NS = 30 * SECOND_NS
"""A look-up does not dial a peer again that failed this recently."""
CLOSE_GRACE_NS = SECOND_NS
"""A closing connection waits this long for the other side to close too, so that its last bytes arrive."""
MESH_UPKEEP_NS = 30 * SECOND_NS
"""Between two rounds of pruning and saving in the mesh."""
CONTROL_READ_NS = 10 * SECOND_NS
"""A local client that opened the control socket and says nothing; and between two words of a peer that works for it."""
CONTROL_REPLY_NS = 30 * SECOND_NS
"""Silence of one's own peer during a call; a peer that still works on it says so every CONTROL_READ_NS."""
CONTROL_GRACE_NS = 15 * SECOND_NS
"""Added by the client to a task's deadline: the peer reports the deadline itself and needs a moment."""

DEVNET_START_NS = 30 * SECOND_NS
"""From the start of the devnet's process to its first answer: 1 s warm, several on a cold disk."""
DEVNET_RESTART_NS = 2 * SECOND_NS
"""Before a devnet that ended is started again."""
DEVNET_CLOSE_DELAY_S = 60
DEVNET_CLAIM_MARGIN_S = 60
"""Where blocks come every half second, a minute is a hundred looks (DESIGN 7a; public networks: a day, half a day)."""

# --- money -----------------------------------------------------------------
WALLET_HOUR_NANOTON = 5 * NANOTON_PER_TON
WALLET_DAY_NANOTON = 20 * NANOTON_PER_TON
"""Caps of the signer: what a peer that was broken into can lose before its owner looks."""
ORDER_CARRY_NANOTON = 50_000_000
CLAIM_CARRY_NANOTON = 50_000_000
ANCHOR_CARRY_NANOTON = 50_000_000
"""Value of a message to a contract, for its gas; what is left returns. Ten times what the dearest of them costs."""
LANE_PROOF_NS = 60 * SECOND_NS
"""Patience of a provider with a lane that was promised: a dozen blocks of a public network."""
CHAIN_PATIENCE_NS = SECOND_NS
"""A lease waits this long for the chain, half of what its requester waits; then the state seen last decides."""
CHAIN_SILENCE_NS = 60 * SECOND_NS
"""Without a new block for so long the chain counts as away: a dozen blocks of a public network."""
ESCROWS_REMEMBERED = 1_024
"""Escrows of buyers whose newest proven state is kept, for leases while the chain is away; then the oldest goes."""
CLAIM_WAIT_S = 120
"""Chain time in which a claim that the wallet sent must have been executed; then it is looked at anew."""
ANCHOR_WAIT_NS = 60 * SECOND_NS
"""Patience of who wants everything anchored now: a dozen blocks of a public network."""
ORDER_TRIES = 4
"""Orders for one lease: open, top up, once more because another lease was faster, and one to spare."""

# --- sizes -----------------------------------------------------------------
CONTROL_FRAME_BYTES = 256 * KIB
"""A plain frame on any libp2p stream, before a lease exists."""
OFFER_BYTES = 400
"""A signed offer's body (MSG-5)."""
BID_BYTES = 512
"""A bid's body: three hashes, prices of each kind of unit, and room (D9 allows 4 KiB)."""
TOGETHER_BYTES = 48 * KIB
"""Payloads that travel as one between a client and its peer, and the one with which they are so many. Small ones make
a frame that is read in C; with a largest one behind them they are no more than MESSAGE_BYTES."""
PAYLOAD_FIELDS_BYTES = 512
"""What counts there for the fields around each payload."""
LINK_FRAME_BYTES = 256 * KIB
"""Plaintext of one sealed frame; larger frames gain nothing (265 MB/s at 256 KiB)."""
LINK_FRAMES = 1 << 32
"""Frames under one session key: 2^46 AES blocks, where GCM still has a margin of 2^-37."""
BUNDLE_BYTES = 256 * KIB
"""Messages that travel as one on a work link: a full frame of it."""
BUNDLE_MESSAGES = 128
"""Messages of one bundle: 64 runs and what is said between them."""
LINK_UNSENT = 4 * BUNDLE_MESSAGES
"""Messages that wait to leave before a side reads no more: four times what runs on their way and receipts can be."""
LINK_ACK_BYTES = 4 * MIB
"""Received on a link between two acknowledgements: at a quarter of it they took a sixth of a fast stream's time."""
LINK_KEPT_BYTES = 32 * MIB
"""Frames that a side keeps until they are acknowledged: on a fast wire four MiB are under way, four not told of."""
LINK_RESUMES = 8
"""Streams that a link may have behind its first: a network that breaks more often is better left."""
MESSAGE_HEADER_BYTES = 64 * KIB
"""What a message may hold besides its payload; the longest is a list of chunk hashes."""
MESSAGE_BYTES = 64 * MIB + MESSAGE_HEADER_BYTES
"""One message on a work link: a run's tensors with their header."""
PAYLOAD_BYTES = 64 * MIB
"""Encoded tensors of one run, one direction."""
CHUNK_BYTES = MIB
"""Leaf of a file's Merkle tree."""
MANIFEST_BYTES = 64 * KIB
MODEL_FILES = 64
MANIFEST_ENDS = 64
"""Inputs, and outputs, that a manifest declares; a model may have TENSORS of them, which its worker reports."""
MANIFEST_STEPS = 8
"""Steps named before or after a model; the longest usual chain has four."""
MODEL_NAME_CHARS = 64
LICENCE_CHARS = 128
"""An SPDX expression; of names as long as AGPL-3.0-or-later it takes six."""
MODEL_BYTES = 2 * GIB
"""A protobuf cannot be larger; bigger weights need external data, which is refused for now."""
LEASED_MODELS_BYTES = 16 * GIB
"""Default room for public models that only leases brought: eight of the largest."""
ALIASES = 256
"""A user's own names of models; each takes a line of a small file."""
ALIAS_CHARS = 64
ADDRESS_BOOK_FILE_BYTES = 8 * MIB
"""ADDRESS_BOOK_PEERS x ADDRESSES_PER_PEER addresses of ADDRESS_CHARS, with room."""
STREAM_WINDOW_BYTES = 4 * MIB
"""Most that one stream may have in flight towards us: 40 MB/s at 100 ms; the library would allow 16 MiB."""
CONNECTION_BUFFER_BYTES = 32 * MIB
"""Unread bytes of all streams of one connection; a peer that ignores its windows is cut off here."""
DHT_MESSAGE_BYTES = 256 * KIB
"""A reply names at most 40 peers of 8 addresses with signed records."""
PADDING_FLOOR_BYTES = KIB
PADDING_MARGIN_BYTES = KIB
"""What stands around a payload must not put it into the next size class: salt, number, names and shapes of tensors."""
RECORD_BYTES = 64 * KIB
"""A packed receipt record: TRANCHE_RUNS statements of 127 bytes and about 1.5 KiB of signed messages."""
ERROR_TEXT_CHARS = 512
TENSORS = 256
TENSOR_RANK = 32
TENSOR_NAME_CHARS = 256
STRING_ITEM_BYTES = MIB
EXPORT_BYTES = 2 * RECORD_BYTES
"""An export: one record, its anchor's birth and its path, which take less than 2 KiB; the rest is room."""
MEMORY_BYTES = 2 * GIB
"""Default memory that a model may take above the worker's own size."""
LOG_FIELD_CHARS = 256
CONTROL_FILE_BYTES = 4 * KIB
"""control.json: a path, a token and a pid."""
CLIENT_WINDOW_BYTES = 256 * MIB
"""Inputs and early results that a client holds for one task; four of the largest payloads."""
NPZ_BYTES = PAYLOAD_BYTES + MIB
"""All arrays of one npz together, uncompressed; the rest is headers."""
NPY_HEADER_BYTES = 10_000
"""Text header of one array; numpy's own bound for headers that it parses."""
DISK_LOW_BYTES = 256 * MIB
"""`cocoon doctor` warns below this."""
BOC_BYTES = 256 * KIB
"""A bag of cells: an escrow's state with 64 lanes takes 12 KiB, a message at most 64 KiB on the network."""

# --- counts ----------------------------------------------------------------
PROVIDERS_ASKED = 8
"""Offers asked for one task (D9: d = 8)."""
CALL_BURST = 64
"""Calls of one requester at once: as many tasks as it may have open (TASKS_OPEN)."""
CALLERS = 1_024
"""Requesters whose rate of calls is counted; then who called longest ago is forgotten."""
AUCTIONS_REMEMBERED = 256
"""Auctions that a requester can show its owner, each with at most PROVIDERS_ASKED bids."""
CALLS_REMEMBERED = 1_024
"""Calls that a provider can show its owner, with what became of them."""
SALES_GROUPS = 1_024
"""Models (or days) that earnings are told apart by; what is sold beyond that is told as one sum."""
BIDS_HONOURED = 1_024
"""Bids that still bind: 65 s at 15 calls a second; then whoever holds most of them loses its oldest."""
MODELS_PACED = 256
"""Models whose times are remembered for bids; then the one that ran longest ago is forgotten."""
CALL_STREAMS = 24
"""Providers that a requester keeps open streams to (D9: the warm set)."""
EXPLORATION_PPM = 80_000
"""Share of auctions in which a newcomer may win beside a better known one: with 50 calls, 98 of 100 are tried."""
EXPLORATION_PREMIUM_PPM = 1_250_000
"""And at most so much of the best bid: what an acquaintance is worth."""
DELAY_PPM_PER_S = 10_000
"""What a second of expected completion weighs in a bid: one per cent of its price, so that asks decide."""
OFFERS_ENOUGH = 3
"""Known offers that make a look-up in the DHT superfluous (DESIGN 4: cold providers only below three)."""
OFFERS_EXPLORED = 2
"""Of PROVIDERS_ASKED, by lot among the others that fit: newcomers get work, and eight cheap lies do not hide all."""
GOSSIP_OFFERS = 4_096
"""Providers known or remembered; 600 bytes of offer each, so 3 MiB."""
GOSSIP_BOOTS = 4
"""Earlier boots of a provider whose last number is kept: two lives of an offer, at one per GOSSIP_BOOT_SILENCE_NS."""
GOSSIP_FANOUT = 6
"""Neighbours that a new offer is pushed to at once: one in 400 peers (e^-6) is missed and has it from a digest."""
GOSSIP_DIGEST_OFFERS = 256
"""Lines of one digest, 54 bytes each; a larger table is gone through in stretches."""
GOSSIP_PARTS = 32
"""Sums of one summary, 9 bytes each; a part of a full table has 128 providers, a digest's worth at most twice."""
GOSSIP_DELTA_OFFERS = 128
"""Offers of one frame: 68 KB at most, and 44 ms of signatures."""
GOSSIP_LINES = 800
"""Read from one neighbour per GOSSIP_INTERVAL_NS; then it waits. A full digest and a full delta take 784, and 60 ms."""
GOSSIP_FRAME_LINES = 8
GOSSIP_OFFER_LINES = 4
"""What any frame, and each offer in it, counts as: a hundred frames or two hundred signatures per interval at most."""
GOSSIP_OUTBOX = 16
"""Frames that wait for one neighbour; a slow one misses the others and has them from a digest."""
GOSSIP_KINDS = 16
"""Kinds of tasks that one peer follows."""
RUNS_IN_FLIGHT = 256
"""Runs of one lease sent and not yet answered: four full batches, one of them with the worker and one coming back."""
RUNS_RESERVED = 4 * RUNS_IN_FLIGHT
"""Run numbers that a provider records ahead at most: what a crash costs a lease that goes on, in numbers."""
FLIGHT_BYTES = 2 * PAYLOAD_BYTES
"""Inputs of these runs together, or one run: what a requester can make a provider hold for one lease."""
RUNS_AT_FIRST = 8
"""Runs of a task sent on a lease whose pace is not known yet, and of a slow one always."""
RUNS_AHEAD_NS = 200 * MILLISECOND_NS
"""Work of this length is sent ahead on a lease: longer than any way to a provider and back, and lost with it."""
TRANCHE_RUNS = 256
"""Runs under one receipt on price-0 leases; on paid ones the amount decides. With 64, a stream of short runs stood
still for a quarter of its time, until a countersignature had come back."""
RUNS_UNSETTLED = 2 * TRANCHE_RUNS
"""Runs without a countersignature: one tranche under signature, one being filled."""
RECEIPT_RESENDS = 2
"""Times a receipt is sent again before its countersignature is given up."""
RUNS_PER_LEASE = 1_000_000
TRANCHE_NANOTON = 1_000_000
"""Default tranche of a paid lease: what a provider may lose to a stranger, a thousandth of a coin."""
CREDIT_TRANCHES = 10
"""Tranches that lie unlocked in an escrow before its owner gets credit (7a)."""
CREDIT_STRANGERS_NANOTON = 8 * TRANCHE_NANOTON
"""Credit to all requesters without a lane on chain: one tranche for each lease that a provider sells at a time."""
CREDIT_PATIENCE_NANOTON = 3 * TRANCHE_NANOTON
"""Delivered work that one requester may cost a provider, by lost links or by lies, before it is served no more."""
CREDIT_DEBTORS = 1_024
"""Leases on credit remembered for what was not paid; then the oldest is forgiven."""
LANE_LIFE_S = 30 * 86_400
"""Life of a new lane: a month of use pays its opening, the contract's limit is 400 days."""
LANE_SLACK_S = 60
"""A lane outlives its lease by so much more than its provider asks for, which reads chain time later than we did."""
LANE_FEES = 20
"""A lane is worth opening, and a claim worth sending, from this many times its fees."""
LANE_LOOKS = 8
"""Looks at a lane per close delay (7a): a provider that misses seven in a row still claims in time."""
ORDER_WAIT_S = 600
"""An escrow order may wait this long for its block; the contract allows a day."""
CLOSE_REPLY_NS = 5 * SECOND_NS
"""From a close order to the provider's signature; it reads the chain once before it signs."""
ANCHOR_RECEIPTS = 1_000
ANCHOR_NS = 600 * SECOND_NS
"""Receipts, and time, after which a provider anchors (7a)."""
LEASES_SOLD = 8
"""Open leases of one provider; each may hold a worker process."""
LEASES_PER_REQUESTER = 4
"""Half of what a provider sells; a buyer keeps one less warm, so that a further model always finds room."""
CONNECTIONS = 200
CONNECTIONS_INBOUND = 120
CONNECTIONS_PER_PEER = 2
DIRECT_TOKEN_BYTES = 16
"""Names one connection for as long as it is awaited; nobody guesses it in that time."""
HANDSHAKES_TRANSIENT = 32
STREAMS_IN_PER_PEER = 64
STREAMS_OUT_PER_PEER = 128
STREAMS_PER_PROTOCOL = 256
ADDRESS_BOOK_PEERS = 1_024
ADDRESSES_PER_PEER = 8
ADDRESS_CHARS = 400
"""A DNS name has at most 253 characters, a peer id 52."""
DHT_KEYS_ANNOUNCED = 8
"""Per publisher; stock nodes take ten announcements per 10 s from one peer."""
BLOB_STREAMS = 4
"""Blob streams served at a time, and opened by one fetch: one is bound by Python, four fill two cores."""
MODEL_HOLDERS = 8
"""Holders of a public model that a fetch looks for: BLOB_STREAMS of them at work, as many to take their places."""
BLOB_CHUNKS_ASKED = 16
"""Chunks of one request; 16 MiB keep a stream busy for several round trips."""
DHT_CLOSEST = 20
"""Kademlia's k."""
DHT_PARALLEL = 10
"""Open questions of one look-up; dead peers among them cost nothing but a socket."""
DHT_SEEN = 256
"""Peers that one look-up remembers."""
DHT_KEYS_STORED = 4_096
"""Keys of others whose providers we keep; the library has no bound."""
DIAL_HINTS = 1_024
"""Addresses from look-ups of peers not met yet."""
PEERS_WANTED = 8
"""A peer dials out of its address book until it has this many."""
JOIN_DIALS = 8
JOIN_PEERS = 32
"""Dials at a time, and peers of the address book tried in one round of joining."""
CONNECTIONS_PER_PUBLIC_IP = 8
CONNECTIONS_PER_PRIVATE_IP = 64
"""By class of the remote address (D9); loopback is bounded by CONNECTIONS_INBOUND alone."""
LOST_QUEUE = 256
"""Notices of lost peers that one watcher may leave unread."""
CONTROL_CLIENTS = 64
TASKS_OPEN = 64
CLIENT_WINDOW_UNITS = 512
"""Units of one task that a client has sent and not yet handed to its caller in order. A provider ten times slower
than two others holds its oldest unit for 80 of theirs: with 64 a task of 2,000 units took twice as long (computed)."""
SESSION_RUNS = 1_000
"""Runs of a session whose caller names no number: bids and ceiling are for as many."""
MAP_BATCH_UNITS = 64
"""Units per task when the caller's iterable does not know its length."""
BOC_CELLS = 8_192
"""Cells of one bag; as many as the network allows in a message."""
ESCROW_LANES = 64
"""Live lanes of one escrow: its storage costs 64 million nanoton a year then, which the reserve of 400 days covers."""
ORDER_LANES_LISTED = 19
"""Lanes whose expiry one order brings forward: as many ids as fit the order's only cell."""
LANE_GAP = 64
"""Ids that an order may skip, by the contract: as many promised lanes that never came as an escrow can hold."""
PRUNE_LANES = 28
"""Lanes of one message that prunes: as many ids as fit its only cell."""
EXPORT_PATH_HASHES = 32
"""Levels of a tree of 2^32 receipts; an anchor counts them in 32 bits."""
ANCHOR_RING = 16
"""Roots that an anchor's contract keeps; older ones live on in its hash chain only."""
DESCRIPTORS_LOW = 1_024
"""`cocoon doctor` warns below this: CONNECTIONS, their listeners and the workers' pipes, doubled."""
USUAL_CEILING_MEDIANS = 3
"""Ceiling of a task whose user named none, in medians of the asks: room for the best machine, none for a trap."""
USUAL_CEILING_NANOTON = NANOTON_PER_TON
"""And in money, whatever is asked: a lone seller is its own median. Who means to pay more says so with --max-price."""
TASK_SEARCHES = 8
"""Leases of one task that may be given back before a unit was begun; an honest one is, when it was idle or drains."""
TASK_LEASES_LOST = 4
"""Leases of one task that may be lost in the middle: a few bad machines; a model that kills every worker ends there."""
REPUTATION_HALF_LIFE_NS = 7 * 24 * 3_600 * SECOND_NS
"""A machine that was bad for a day is forgiven within weeks; one that was good has to stay so."""
REPUTATIONS = 1_024
"""Providers of whom outcomes are remembered: many times the sellers that one requester meets."""
SPREAD_UNITS = 256
"""A smaller task stays on one lease unless its user says otherwise: each further lane costs its fees, each further
provider the way of the model. Four tranches of TRANCHE_RUNS are worth that."""
SPREAD_LEASES = 3
"""Leases at a time of a larger task: three times as fast, and one lost provider takes a third of the work with it."""
UNITS_PER_TASK = 1_000_000
JOURNAL_BATCH = 256
JOURNAL_RESERVE_BYTES = 4 * MIB
"""Given back to the disk when it is full, so that open obligations can still be recorded."""
JOURNAL_ROW_BYTES = MIB
"""Body of one record; the largest, a receipt with its statements, is far below."""
JOURNAL_LAG_NS = 50 * MILLISECOND_NS
"""Records that nobody waits for are flushed so much later: what a power cut takes of a peer's results."""
JOURNAL_REFILL_NS = 5 * SECOND_NS
"""Between attempts to make the reserve again after the disk was full."""
JOURNAL_LOCK_NS = 10 * SECOND_NS
"""Patience with another program that holds the journal locked (a backup tool)."""

# --- networks --------------------------------------------------------------
BOOTSTRAPS = 16
"""Hints of a network; one that answers is enough, the address book has the others."""
LITESERVERS = 8
"""Of a network; every one that is configured is connected to, and the slowest of those compared sets the pace."""
LINK_CHARS = 4_096
"""A join link: 16 bootstraps and 8 liteservers of usual length in base64; people paste it in one line."""
LINK_ADDRESS_CHARS = 160
"""One address in a link, a network file or a setting: a host name of 87 characters, port and peer id."""
NETWORK_FILE_BYTES = 8 * KIB
"""network.toml: what a link holds, in plain text with comments, and room for a person's own."""
CONFIG_FILE_BYTES = 64 * KIB
"""config.toml: all settings take 4 KiB; the rest is for a person's comments."""
CHAIN_DELAY_S_MAX = 30 * 86_400
"""Close delay and claim margin: as long as a new lane lives (LANE_LIFE_S); a longer one would end no lane early."""

# --- codec -----------------------------------------------------------------
CODEC_DEPTH = 8
"""Levels of nesting in one value; our deepest message has four."""
CODEC_ITEMS = 65_536
"""Items of one schemaless value: an empty map takes one byte on the wire and 64 in memory."""
EXTRA_FIELDS_BYTES = KIB
"""Room that every message leaves for optional fields of newer peers."""
STRING_ITEMS = MIB
"""Strings in the tensors of one run: one of four bytes on the wire takes sixty as a Python object."""

# --- workers ---------------------------------------------------------------
WORKER_HEADER_BYTES = 256 * KIB
"""A message between peer and worker without its tensors; 512 specs of usual names take 30 KiB."""
SHARED_BYTES = PAYLOAD_BYTES + MIB
"""Inputs, or outputs, of the runs of one order: the largest payload, and room to begin each at an aligned address."""
SHARED_TASK_BYTES = 2 * SHARED_BYTES
"""What a client shares with its peer for one task: the largest inputs and outputs of one unit, or those of sixteen of
4 MiB each."""
ALIGNMENT_BYTES = 64
"""Kernels are free to use any SIMD width that an address allows; 64 is the widest."""
SMALL_PAYLOAD_BYTES = 64 * KIB
"""Below this a copy costs less than to avoid it."""
BATCH_RUNS = 64
"""Runs of one order to a worker: it has their inputs and outputs in memory together (DESIGN: 64 units a frame)."""
ORDER_NS = 20 * MILLISECOND_NS
"""Expected length of one order, if it is of several runs: the first result waits for the last."""
WORKER_TEXT_CHARS = 128
"""Names of devices, providers and dynamic axes."""
WORKER_STDERR_BYTES = 8 * KIB
"""Last words of a worker, kept for its diagnosis: a C++ abort message and a Python traceback."""
WORKER_REAP_NS = 5 * SECOND_NS
"""From SIGKILL to the process being gone; freeing 10 GiB took 0.6 s."""
WORKER_THREAD_BYTES = 16 * MIB
"""Address space of one worker thread: 8 MiB of stack and its share of the allocator."""
WORKER_DESCRIPTORS = 64
WORKER_DESCRIPTORS_CUDA = 1_024
"""The CUDA driver opens devices, libraries and event descriptors by the dozen."""
MODEL_NODES = 1_000_000
"""Operators of a model after its functions are inlined; large exported models have tens of thousands."""
MODEL_COPIES = 3
"""Of a model in its worker: the file, ONNX Runtime's parsed form, its tensors (measured: 3.0)."""
FUNCTION_DEPTH = 64
"""Functions that call functions; exporters nest fewer than ten, inlining recurses in C++."""
