"""Every bound of the API, by name: nothing here grows with what a caller sends."""

from typing import Final

from indexer.core.rate import Rate


# Requests.
BODY_BYTES_MAX: Final = 64 * 1024
BODY_TIMEOUT_S: Final = 15.0
#: A body may be wrong in thousands of places; this many are reported.
FIELD_ERRORS_MAX: Final = 20
PAGE_SIZE_DEFAULT: Final = 20
PAGE_SIZE_MAX: Final = 100
#: Longest value of a filter in a query string, in characters.
FILTER_LENGTH_MAX: Final = 255

# Callers and their rates.
#: Each of the doors for webhooks, for one address: a provider sends in bursts.
DOOR_RATE: Final = Rate(1_000, 10)
#: Hops that `X-Forwarded-For` is followed through.
PROXIES_MAX: Final = 16

# Idempotency (draft-ietf-httpapi-idempotency-key-header).
IDEMPOTENCY_KEY_LENGTH_MAX: Final = 255
IDEMPOTENCY_RETENTION_S: Final = 24 * 3600
#: A lease is renewed this often while its request is at work: three tries before it ends.
IDEMPOTENCY_RENEW_EVERY_S: Final = 3.0
#: A repetition waits so long for the answer to the first request, and looks for it at intervals
#: that double between these two.
IDEMPOTENCY_WAIT_S: Final = 2.0
IDEMPOTENCY_POLL_S_MIN: Final = 0.02
IDEMPOTENCY_POLL_S_MAX: Final = 0.2
#: Answers past their retention are deleted with a payment that is stored anyway, this often.
IDEMPOTENCY_PRUNE_EVERY_S: Final = 600
#: A cancel that loses against another writer reads again and decides anew, this often.
CANCEL_TRIES_MAX: Final = 5

# The chain, asked only while a payment is created.
CHAIN_TIMEOUT_S: Final = 10.0
CHAIN_RETRY_AFTER_S: Final = 5
MINT_CACHE_S: Final = 600.0

# The acquirer, asked only while a payment by card is created: for an order, whether there is one
# when no answer came, and for another order then.
CARD_ORDERS_MAX: Final = 2
CARD_TIMEOUT_S: Final = 45.0
CARD_RETRY_AFTER_S: Final = 5

# Partners.
PARTNER_RETRY_AFTER_S: Final = 5
#: What a partner asks for beyond it is not handed on: by then the world is another one.
PARTNER_RETRY_AFTER_S_MAX: Final = 24 * 3600

# The store.
STORE_RETRY_AFTER_S: Final = 2

# Payments that are shown are looked for on the chain at once, but not at every poll.
CHECK_EVERY_S: Final = 10.0
#: An acquirer is asked less often than a node.
CARD_CHECK_EVERY_S: Final = 30.0
CHECKS_REMEMBERED_MAX: Final = 10_000
CHECK_ASK_TIMEOUT_S: Final = 1.0

# API keys. The cache is what a revoked key may still do.
KEY_LENGTH_MAX: Final = 128
KEY_CACHE_S: Final = 2.0
KEY_CACHE_ENTRIES_MAX: Final = 1_024

# QR codes: 15 to 30 ms of work and some 10 KiB each.
QR_CACHE_ENTRIES_MAX: Final = 512
QR_AT_ONCE_MAX: Final = 2

# Streams.
STREAM_CLIENTS_MAX: Final = 10_000
#: Without a wake-up (another process wrote) the event log is looked at this often.
STREAM_POLL_S: Final = 0.5
STREAM_PAGE_SIZE: Final = 500
#: After so many deliveries in a row the event loop gets a turn.
STREAM_BURST: Final = 500
#: Payments whose order id is remembered for the merchants' streams.
STREAM_ORDER_IDS_MAX: Final = 10_000
STREAM_HEARTBEAT_S: Final = 15.0
#: A merchant's stream looks this often whether its key is still good. With `KEY_CACHE_S` it is
#: what a revoked key may still hear.
STREAM_ACCESS_CHECK_S: Final = 2.0
#: A client that takes nothing for so long is let go; it resumes with its Last-Event-ID.
STREAM_SEND_TIMEOUT_S: Final = 30.0
STREAM_RETRY_MS: Final = 3_000
#: Told to a client that found every place taken, plus as much again by chance.
STREAM_OVERLOAD_RETRY_MS: Final = 15_000
#: Told when the server goes down, plus as much again by chance, so that not all come at once.
STREAM_SHUTDOWN_RETRY_MS: Final = 1_000

# Readiness.
INDEXER_REPORT_AGE_MAX_S: Final = 30
FRONTIER_AGE_MAX_S: Final = 60
#: Block times are an average of what validators' clocks say, and need not be exact.
CLOCK_BEHIND_MAX_S: Final = 300

# The server.
BACKLOG: Final = 4_096
#: Each connection is an open file; this many are asked for where the system sets no bound.
OPEN_FILES: Final = 65_536
#: A client that acknowledges nothing for so long is gone, whatever it is sent.
UNACKNOWLEDGED_MS_MAX: Final = 60_000
KEEP_ALIVE_S: Final = 30
#: What a request begins with: its target, and its headers with their number.
URL_BYTES_MAX: Final = 8 * 1024
HEADERS_BYTES_MAX: Final = 32 * 1024
HEADERS_MAX: Final = 100
#: What the parser may gather of all that before it says what it is, beyond the piece in which it
#: began; and how long the whole may take.
HEAD_BYTES_MAX: Final = URL_BYTES_MAX + HEADERS_BYTES_MAX
HEAD_TIMEOUT_S: Final = 15.0
#: Requests that wait on one connection for the answer to one before them.
PIPELINED_MAX: Final = 16
#: Connections at once. One more is closed without a word, as if there were no server: a browser's
#: EventSource then tries again, which it would not after an error.
CONNECTIONS_MAX: Final = 16_384
#: Of the files that the process may open, those that are not for connections.
FILES_RESERVED: Final = 128
#: An answer that is not taken for so long is not waited for; the connection ends.
UNTAKEN_S: Final = 60.0
#: Who is refused for the form of what he sends may send on for so long: an answer to what is not
#: yet read would be lost to him when the connection is closed at once.
LINGER_S: Final = 1.0
LINGER_BYTES_MAX: Final = 1024 * 1024
#: When the server goes down, a connection with nothing asked stays for so long: what is on its
#: way is still answered.
DRAIN_S: Final = 0.1
#: What is being answered then has so long: an order at Paymob may take three seconds. Streams are
#: ended at once. Less than `indexer.daemon.SHUTDOWN_LIMIT_S`, which bounds the whole.
SHUTDOWN_TIMEOUT_S: Final = 4

# Webhooks that come in.
#: Of Helius and QuickNode, a body, as it comes and as it is unpacked. A libSQL server stores no
#: row of more than 5,000,000 bytes.
WEBHOOK_BYTES_MAX: Final = 4 * 1024 * 1024
#: Of Paymob, a callback.
CALLBACK_BYTES_MAX: Final = 64 * 1024
#: All bodies that are being received at one moment at one door.
WEBHOOK_BYTES_AT_ONCE_MAX: Final = 64 * 1024 * 1024
#: A larger body is read by a thread, so that everyone else is answered meanwhile.
WEBHOOK_BYTES_INLINE_MAX: Final = 256 * 1024
#: How far the clock of a sender may be from ours.
WEBHOOK_TOLERANCE_S: Final = 300
#: A header is stored up to here.
WEBHOOK_HEADER_CHARS_MAX: Final = 256
#: What was turned away is written down this often at most.
WEBHOOK_SAMPLE_EVERY_S: Final = 60.0
#: A door without a secret stays closed until the next start.
DOOR_RETRY_AFTER_S: Final = 300
