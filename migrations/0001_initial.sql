-- The first schema: payments, what the chain said of them, and the log of what happened.
--
-- Times are unix seconds, UTC. Amounts are base units as decimal text, because SQLite's
-- integers are signed and end at 2^63-1 while amounts on the chain end at 2^64-1.
-- Keys and signatures are base58 text. JSON columns hold what is only shown, never searched.

CREATE TABLE payments (
    id            TEXT PRIMARY KEY CHECK (id GLOB 'pay_*' AND length(id) = 30),
    provider      TEXT NOT NULL CHECK (provider IN ('solana', 'paymob')),
    -- Terms: never change after creation (trigger payments_terms_are_final).
    symbol        TEXT NOT NULL,
    mint          TEXT,                  -- NULL: native SOL
    decimals      INTEGER NOT NULL CHECK (decimals BETWEEN 0 AND 255),
    token_program TEXT,                  -- owner of the mint; NULL: native SOL
    recipient     TEXT,                  -- wallet or vault to be paid
    token_account TEXT,                  -- the recipient's associated token account; NULL: SOL
    amount        TEXT NOT NULL CHECK (amount GLOB '[1-9]*' AND amount NOT GLOB '*[^0-9]*'),
    reference     TEXT UNIQUE,           -- anti-replay: one payment for each reference, for ever
    watch_key     TEXT,                  -- NULL: the URL was made elsewhere, watch the reference
    order_id      TEXT,                  -- the merchant's own number; needs a key to be read
    label         TEXT,
    message       TEXT,
    memo          TEXT,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL CHECK (expires_at > created_at),
    grace_s       INTEGER NOT NULL CHECK (grace_s >= 0),
    -- State: what the fold over the verdicts makes of the terms.
    status        TEXT NOT NULL DEFAULT 'pending' CHECK (status IN (
                      'pending', 'processing', 'settled', 'expired', 'canceled',
                      'failed', 'refunded')),
    paid          TEXT NOT NULL DEFAULT 'none' CHECK (paid IN ('none', 'partial', 'exact', 'over')),
    late          INTEGER NOT NULL DEFAULT 0 CHECK (late IN (0, 1)),
    review        TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(review)),
    -- A sum of amounts: may be longer than any one of them.
    received      TEXT NOT NULL DEFAULT '0' CHECK (
                      received = '0' OR (received GLOB '[1-9]*' AND received NOT GLOB '*[^0-9]*')),
    settled_at    INTEGER,               -- block time of the transaction that completed it
    canceled_at   INTEGER,
    -- One more with every change. A writer sets NULL when it finds another version than it
    -- read, and NOT NULL then refuses its whole batch.
    version       INTEGER NOT NULL DEFAULT 1 CHECK (version >= 1),
    CHECK (length(amount) < 20 OR (length(amount) = 20 AND amount <= '18446744073709551615')),
    CHECK (provider <> 'solana' OR (reference IS NOT NULL AND recipient IS NOT NULL)),
    CHECK ((mint IS NULL) = (token_program IS NULL)),
    CHECK ((mint IS NULL) = (token_account IS NULL)),
    CHECK (reference <> recipient AND (mint IS NULL OR reference <> mint)),
    CHECK ((status IN ('settled', 'refunded')) = (settled_at IS NOT NULL)),
    CHECK ((status = 'canceled') = (canceled_at IS NOT NULL))
) STRICT;

-- Lists, newest first.
CREATE INDEX payments_by_creation ON payments (created_at DESC, id DESC);
CREATE INDEX payments_by_status ON payments (status, created_at DESC, id DESC);
CREATE INDEX payments_by_order ON payments (order_id, created_at DESC, id DESC)
    WHERE order_id IS NOT NULL;
-- What can still change, by the key that watches it (NULL: the reference itself). A payment
-- leaves both when it settles, so they stay as small as the work that is left.
CREATE INDEX payments_open ON payments (watch_key, expires_at)
    WHERE status IN ('pending', 'processing');
CREATE INDEX payments_in_grace ON payments (watch_key, expires_at + grace_s)
    WHERE status = 'expired';

CREATE TABLE payment_metadata (
    payment_id TEXT NOT NULL REFERENCES payments (id),
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (payment_id, key)
) STRICT, WITHOUT ROWID;

-- The legal moves of a payment's status: a copy of `indexer.core.settle.TRANSITIONS`, kept equal
-- by a test, so that the database refuses what the code should never ask.
CREATE TABLE status_transitions (
    from_status TEXT NOT NULL,
    to_status   TEXT NOT NULL,
    PRIMARY KEY (from_status, to_status)
) STRICT, WITHOUT ROWID;

INSERT INTO status_transitions (from_status, to_status) VALUES
    ('pending', 'processing'),
    ('pending', 'settled'),
    ('pending', 'expired'),
    ('pending', 'canceled'),
    ('pending', 'failed'),
    ('processing', 'pending'),
    ('processing', 'settled'),
    ('processing', 'expired'),
    ('processing', 'failed'),
    ('expired', 'settled'),
    ('failed', 'settled'),
    ('settled', 'refunded');

CREATE TRIGGER payments_status_is_legal
BEFORE UPDATE OF status ON payments
WHEN OLD.status <> NEW.status AND NOT EXISTS (
    SELECT 1 FROM status_transitions WHERE from_status = OLD.status AND to_status = NEW.status
)
BEGIN
    SELECT RAISE(ABORT, 'illegal change of a payment''s status');
END;

CREATE TRIGGER payments_terms_are_final
BEFORE UPDATE OF id, provider, symbol, mint, decimals, token_program, recipient, token_account,
    amount, reference, watch_key, created_at, expires_at, grace_s ON payments
BEGIN
    SELECT RAISE(ABORT, 'the terms of a payment never change');
END;

CREATE TRIGGER payments_stay
BEFORE DELETE ON payments
BEGIN
    SELECT RAISE(ABORT, 'payments are never deleted');
END;

-- What one finalized transaction means for one payment. Also kept when it credits nothing.
CREATE TABLE verdicts (
    signature         TEXT NOT NULL,
    payment_id        TEXT NOT NULL REFERENCES payments (id),
    slot              INTEGER NOT NULL,
    transaction_index INTEGER,           -- position in the block; NULL from older nodes
    block_time        INTEGER,
    credit            TEXT NOT NULL CHECK (
                          credit = '0' OR (credit GLOB '[1-9]*' AND credit NOT GLOB '*[^0-9]*')),
    clean             INTEGER NOT NULL CHECK (clean IN (0, 1)),
    reasons           TEXT NOT NULL CHECK (json_valid(reasons)),
    evidence          TEXT NOT NULL CHECK (json_valid(evidence)),  -- B, D, delta, fee
    CHECK (credit = '0' OR block_time IS NOT NULL),
    PRIMARY KEY (signature, payment_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX verdicts_by_payment ON verdicts (payment_id, slot);

-- The legs behind the credits. The key says it: a leg counts for one payment, once, for ever.
-- -1 stands for "not an inner instruction" and "not inside a Batch".
CREATE TABLE transfers (
    signature   TEXT NOT NULL,
    outer_index INTEGER NOT NULL,
    inner_index INTEGER NOT NULL,
    sub_index   INTEGER NOT NULL,
    payment_id  TEXT NOT NULL,
    source      TEXT NOT NULL,
    destination TEXT NOT NULL,
    -- What the instruction says, and what arrived.
    amount      TEXT NOT NULL CHECK (amount <> '' AND amount NOT GLOB '*[^0-9]*'),
    net         TEXT NOT NULL CHECK (net <> '' AND net NOT GLOB '*[^0-9]*'),
    PRIMARY KEY (signature, outer_index, inner_index, sub_index),
    FOREIGN KEY (signature, payment_id) REFERENCES verdicts (signature, payment_id)
) STRICT, WITHOUT ROWID;

-- Seen at `confirmed`, not final yet. Gone when the verdict is stored or a fork dropped it.
CREATE TABLE sightings (
    payment_id TEXT NOT NULL REFERENCES payments (id),
    signature  TEXT NOT NULL,
    slot       INTEGER NOT NULL,
    credit     TEXT NOT NULL CHECK (credit GLOB '[1-9]*' AND credit NOT GLOB '*[^0-9]*'),
    seen_at    INTEGER NOT NULL,
    PRIMARY KEY (payment_id, signature)
) STRICT, WITHOUT ROWID;

-- The log. Append only; `seq` is the resume point of every reader.
CREATE TABLE events (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    payment_id TEXT NOT NULL REFERENCES payments (id),
    type       TEXT NOT NULL,
    version    INTEGER NOT NULL,         -- of the payment, after the change
    ordinal    INTEGER NOT NULL,         -- several events of one change, from 0
    created_at INTEGER NOT NULL,
    data       TEXT NOT NULL CHECK (json_valid(data)),
    UNIQUE (payment_id, version, ordinal)
) STRICT;

-- These happen to a payment once in its life at most.
CREATE UNIQUE INDEX events_once ON events (payment_id, type)
    WHERE type IN ('payment.created', 'payment.settled', 'payment.expired', 'payment.canceled',
                   'payment.failed', 'payment.refunded');

CREATE TRIGGER events_are_final
BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'the event log is append only');
END;

CREATE TRIGGER events_stay
BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'the event log is append only');
END;

-- The frontier of each watched key: everything finalized up to `slot` is stored.
CREATE TABLE cursors (
    key        TEXT PRIMARY KEY,
    slot       INTEGER NOT NULL,
    block_time INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER cursors_never_go_back
BEFORE UPDATE ON cursors
WHEN NEW.slot < OLD.slot OR NEW.block_time < OLD.block_time
BEGIN
    SELECT RAISE(ABORT, 'a frontier never moves back');
END;

-- What could not be examined, with all that is needed to try again or to look.
CREATE TABLE dead_letters (
    signature   TEXT PRIMARY KEY,
    key         TEXT,                    -- watched key it was found by; NULL: a doorbell
    slot        INTEGER,
    reason      TEXT NOT NULL,           -- not_found, undecided, quorum, malformed, rejected
    detail      TEXT NOT NULL,           -- a sentence for a person
    payload     BLOB,                    -- the raw answer, cut at 256 KiB; NULL: there was none
    attempts    INTEGER NOT NULL CHECK (attempts >= 1),
    next_try_at INTEGER,                 -- NULL: waits for a person
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX dead_letters_due ON dead_letters (next_try_at) WHERE next_try_at IS NOT NULL;

CREATE TABLE api_keys (
    id         TEXT PRIMARY KEY,         -- shown in lists and logs; no secret
    name       TEXT NOT NULL,            -- for people; free again once the key is revoked
    hash       TEXT NOT NULL UNIQUE,     -- SHA-256, hex; the key itself is never stored
    scopes     TEXT NOT NULL CHECK (json_valid(scopes)),
    created_at INTEGER NOT NULL,
    revoked_at INTEGER                   -- NULL: valid
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX api_keys_by_name ON api_keys (name) WHERE revoked_at IS NULL;

-- The answer to a request that had an effect, stored in the same batch as the effect.
CREATE TABLE idempotency_keys (
    api_key_id  TEXT NOT NULL,
    route       TEXT NOT NULL,           -- method and route template
    key         TEXT NOT NULL,
    fingerprint TEXT NOT NULL,           -- SHA-256 of the raw body, hex
    status      INTEGER NOT NULL,
    headers     TEXT NOT NULL CHECK (json_valid(headers)),
    body        BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (api_key_id, route, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- Facts about this deployment, each written once: `watch_key`, `genesis_hash`.
CREATE TABLE deployment (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What each part of the indexer says of itself, for /readyz. A stale row means: not running.
CREATE TABLE health (
    component  TEXT PRIMARY KEY,
    problem    TEXT,                     -- NULL: well
    since      INTEGER NOT NULL,         -- when `problem` last changed
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
