"""Every bound of the product, with its unit and its reason. Nothing is unbounded.

Purity: pure. Figures marked (D9) are the starting values of the design; the
others say where they come from.
"""

from __future__ import annotations

from cocoon.core.units import GIB, KIB, MIB, MILLISECOND_NS, SECOND_NS

# --- time ------------------------------------------------------------------
HANDSHAKE_NS = 5 * SECOND_NS
"""Dial, Noise, Yamux and hello together (D9)."""
HEARTBEAT_NS = 2 * SECOND_NS
"""Between heartbeats; with HEARTBEATS_MISSED a frozen peer is noticed in 6 to 8 s, below the 10 s promise."""
HEARTBEATS_MISSED = 3
DISCOVERY_NS = 3 * SECOND_NS
"""A look-up in the DHT; records of dead peers cost no more than this."""
OFFER_NS = 2 * SECOND_NS
"""An offer is a signed reply from memory: 2 s is ten slow round trips (330 ms at p99 on a world graph)."""
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
RECEIPT_REPLY_NS = 5 * SECOND_NS
"""From the end of a tranche to its signed receipt."""
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
DRAIN_NS = 10 * SECOND_NS
"""From SIGTERM until running work is cut."""
RETRY_FIRST_NS = 500 * MILLISECOND_NS
RETRY_LAST_NS = 30 * SECOND_NS
"""Back-off of bootstrap dials: doubles from first to last, for ever."""
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
"""A local client that opened the control socket and says nothing."""
CONTROL_REPLY_NS = 30 * SECOND_NS
"""Silence of one's own peer during a short call; discovery plus offers need at most 5 s."""
CONTROL_GRACE_NS = 15 * SECOND_NS
"""Added by the client to a task's deadline: the peer reports the deadline itself and needs a moment."""

# --- sizes -----------------------------------------------------------------
CONTROL_FRAME_BYTES = 256 * KIB
"""A plain frame on any libp2p stream, before a lease exists."""
OFFER_BYTES = 400
"""A signed offer's body (MSG-5)."""
LINK_FRAME_BYTES = 256 * KIB
"""Plaintext of one sealed frame; larger frames gain nothing (265 MB/s at 256 KiB)."""
LINK_FRAMES = 1 << 32
"""Frames under one session key: 2^46 AES blocks, where GCM still has a margin of 2^-37."""
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
MODEL_BYTES = 2 * GIB
"""A protobuf cannot be larger; bigger weights need external data, which is refused for now."""
ADDRESS_BOOK_FILE_BYTES = 8 * MIB
"""ADDRESS_BOOK_PEERS x ADDRESSES_PER_PEER addresses of ADDRESS_CHARS, with room."""
STREAM_WINDOW_BYTES = 4 * MIB
"""Most that one stream may have in flight towards us: 40 MB/s at 100 ms; the library would allow 16 MiB."""
CONNECTION_BUFFER_BYTES = 32 * MIB
"""Unread bytes of all streams of one connection; a peer that ignores its windows is cut off here."""
DHT_MESSAGE_BYTES = 256 * KIB
"""A reply names at most 40 peers of 8 addresses with signed records."""
PADDING_FLOOR_BYTES = KIB
RECORD_BYTES = 32 * KIB
"""A packed receipt record: TRANCHE_RUNS statements of 126 bytes and about 1.5 KiB of signed messages."""
ERROR_TEXT_CHARS = 512
TENSORS = 256
TENSOR_RANK = 32
TENSOR_NAME_CHARS = 256
STRING_ITEM_BYTES = MIB
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

# --- counts ----------------------------------------------------------------
PROVIDERS_ASKED = 8
"""Offers asked for one task (D9: d = 8)."""
RUNS_IN_FLIGHT = 8
"""Runs of one lease sent and not yet answered."""
TRANCHE_RUNS = 64
"""Runs under one receipt on price-0 leases; on paid ones the amount decides."""
RUNS_UNSETTLED = 2 * TRANCHE_RUNS
"""Runs without a countersignature: one tranche under signature, one being filled."""
RECEIPT_RESENDS = 2
"""Times a receipt is sent again before its countersignature is given up."""
RUNS_PER_LEASE = 1_000_000
LEASES_SOLD = 8
"""Open leases of one provider; each may hold a worker process."""
LEASES_PER_REQUESTER = 4
"""Half of what a provider sells; a buyer keeps one less warm, so that a further model always finds room."""
CONNECTIONS = 200
CONNECTIONS_INBOUND = 120
CONNECTIONS_PER_PEER = 2
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
CLIENT_WINDOW_UNITS = 64
"""Units of one task that a client has sent and not yet handed to its caller in order."""
MAP_BATCH_UNITS = 64
"""Units per task when the caller's iterable does not know its length."""
DESCRIPTORS_LOW = 1_024
"""`cocoon doctor` warns below this: CONNECTIONS, their listeners and the workers' pipes, doubled."""
TASK_SEARCHES = 8
"""Leases of one task that may be given back before a unit was begun; an honest one is, when it was idle or drains."""
UNITS_PER_TASK = 1_000_000
JOURNAL_BATCH = 256
JOURNAL_QUEUE = 4_096
JOURNAL_RESERVE_BYTES = 4 * MIB
"""Given back to the disk when it is full, so that open obligations can still be recorded."""
JOURNAL_ROW_BYTES = MIB
"""Body of one record; the largest, a receipt with its statements, is far below."""
JOURNAL_QUEUE_BYTES = 16 * MIB
"""Bodies that wait for the disk; an append beyond it waits before it takes memory."""
JOURNAL_REFILL_NS = 5 * SECOND_NS
"""Between attempts to make the reserve again after the disk was full."""
JOURNAL_LOCK_NS = 10 * SECOND_NS
"""Patience with another program that holds the journal locked (a backup tool)."""

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
WORKER_SOCKET_BYTES = 4 * MIB
"""Send buffer of a worker's socket; an ordinary system grants 208 KiB of it."""
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
