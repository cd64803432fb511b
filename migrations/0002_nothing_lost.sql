-- What makes "nothing is lost" a thing that can be looked up: what was examined, what may have
-- been missed, what is asked about again, and what a person decided.

-- Ranges of slots in which everything finalized that carries a key was examined. Ranges of one
-- key never touch: they are merged as they are written.
CREATE TABLE coverage (
    key        TEXT NOT NULL,
    first_slot INTEGER NOT NULL CHECK (first_slot >= 0),
    last_slot  INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CHECK (first_slot <= last_slot),
    PRIMARY KEY (key, first_slot)
) STRICT, WITHOUT ROWID;

-- Slots in which something may have been missed, and why. Kept after they were closed.
CREATE TABLE gaps (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    key        TEXT NOT NULL,
    first_slot INTEGER NOT NULL CHECK (first_slot >= 0),
    last_slot  INTEGER NOT NULL,
    -- start: the daemon was not running; reconnect: a connection was lost; overflow: more
    -- notifications came than could wait; pruned: no node keeps these slots any more.
    reason     TEXT NOT NULL CHECK (reason IN ('start', 'reconnect', 'overflow', 'pruned')),
    source     TEXT NOT NULL DEFAULT '', -- the endpoint that went silent; '': none in particular
    -- pruned: only payments created before this time may have been paid there; NULL: any may.
    created_before INTEGER,
    opened_at  INTEGER NOT NULL,
    closed_at  INTEGER,                  -- NULL: open
    CHECK (first_slot <= last_slot),
    UNIQUE (key, first_slot, last_slot, reason, source)
) STRICT;

CREATE INDEX gaps_open ON gaps (key, last_slot) WHERE closed_at IS NULL;
CREATE INDEX gaps_by_age ON gaps (opened_at);

-- When the reference of a payment is to be asked about by itself: the net under the watch key,
-- which some wallets leave out. A payment has a row as long as money for it may count.
CREATE TABLE reference_checks (
    payment_id TEXT PRIMARY KEY REFERENCES payments (id),
    due_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX reference_checks_due ON reference_checks (due_at);

-- Without a watch key the reference is swept all the time anyway.
CREATE TRIGGER payments_are_checked
AFTER INSERT ON payments
WHEN NEW.provider = 'solana' AND NEW.watch_key IS NOT NULL
BEGIN
    INSERT INTO reference_checks (payment_id, due_at) VALUES (NEW.id, NEW.created_at + 10);
END;

CREATE TRIGGER settled_payments_are_not_checked
AFTER UPDATE OF status ON payments
WHEN NEW.status IN ('settled', 'canceled', 'failed', 'refunded')
BEGIN
    DELETE FROM reference_checks WHERE payment_id = NEW.id;
END;

INSERT INTO reference_checks (payment_id, due_at)
SELECT id, created_at + 10 FROM payments
WHERE provider = 'solana' AND watch_key IS NOT NULL
  AND status IN ('pending', 'processing', 'expired');

-- Runs of `axiompay replay`: what was asked for and how far it came, so that it can be resumed.
CREATE TABLE replays (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    strategy    TEXT NOT NULL CHECK (strategy IN ('signatures', 'blocks')),
    -- The keys whose transactions are looked for, as a JSON list; sorted, so that it compares.
    keys        TEXT NOT NULL CHECK (json_valid(keys)),
    first_slot  INTEGER NOT NULL CHECK (first_slot >= 0),
    last_slot   INTEGER NOT NULL,
    done_to     INTEGER,                 -- everything up to this slot is stored; NULL: nothing is
    report      TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(report)),
    started_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    finished_at INTEGER,                 -- NULL: under way, or it was interrupted
    CHECK (first_slot <= last_slot)
) STRICT;

-- A transfer that names no payment and may pay one all the same. It never counts by itself: a
-- person matches it or dismisses it.
CREATE TABLE suggestions (
    signature   TEXT NOT NULL,
    outer_index INTEGER NOT NULL,
    inner_index INTEGER NOT NULL,        -- -1: not an inner instruction
    sub_index   INTEGER NOT NULL,        -- -1: not inside a Batch
    payment_id  TEXT NOT NULL REFERENCES payments (id),
    why         TEXT NOT NULL CHECK (why IN ('amount', 'memo', 'amount_and_memo')),
    source      TEXT NOT NULL,
    destination TEXT NOT NULL,
    amount      TEXT NOT NULL CHECK (amount <> '' AND amount NOT GLOB '*[^0-9]*'),
    memo        TEXT,
    slot        INTEGER NOT NULL,
    block_time  INTEGER,
    found_at    INTEGER NOT NULL,
    state       TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'matched', 'dismissed')),
    decided_at  INTEGER,                 -- NULL: open
    CHECK ((state = 'open') = (decided_at IS NULL)),
    PRIMARY KEY (signature, outer_index, inner_index, sub_index, payment_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX suggestions_open ON suggestions (found_at) WHERE state = 'open';
CREATE INDEX suggestions_by_payment ON suggestions (payment_id) WHERE state = 'open';

-- Where money may still be expected: what the recipients are swept for, and how a transfer that
-- names no payment finds those that it may be meant for.
CREATE INDEX payments_awaiting ON payments (
    expires_at + grace_s, coalesce(token_account, recipient), created_at
) WHERE status IN ('pending', 'processing', 'expired');
CREATE INDEX payments_by_amount ON payments (
    coalesce(token_account, recipient), amount, created_at
) WHERE status IN ('pending', 'processing', 'expired');
CREATE INDEX payments_by_memo ON payments (
    coalesce(token_account, recipient), memo, created_at
) WHERE memo IS NOT NULL AND status IN ('pending', 'processing', 'expired');

-- Payments that a person must look at.
CREATE INDEX payments_in_review ON payments (created_at) WHERE review <> '[]';

-- What a person said of one transaction of one payment; an input of the payment's state, like
-- the transaction itself.
CREATE TABLE decisions (
    payment_id TEXT NOT NULL REFERENCES payments (id),
    signature  TEXT NOT NULL,
    -- accepted: its credit counts as if nothing were in doubt; refused: it counts for nothing;
    -- matched: it names no reference, and pays this payment all the same.
    decision   TEXT NOT NULL CHECK (decision IN ('accepted', 'refused', 'matched')),
    note       TEXT,                     -- why, in the person's words
    decided_at INTEGER NOT NULL,
    PRIMARY KEY (payment_id, signature)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER decisions_are_final
BEFORE UPDATE ON decisions
BEGIN
    SELECT RAISE(ABORT, 'a decision is made once');
END;

CREATE TRIGGER decisions_stay
BEFORE DELETE ON decisions
BEGIN
    SELECT RAISE(ABORT, 'a decision is made once');
END;

-- The last figures that each process told of itself, for /metrics, which may be served by another.
CREATE TABLE measures (
    name       TEXT NOT NULL,
    labels     TEXT NOT NULL CHECK (json_valid(labels)),  -- JSON object, keys sorted
    kind       TEXT NOT NULL CHECK (kind IN ('counter', 'gauge')),
    value      TEXT NOT NULL,            -- a decimal number
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (name, labels)
) STRICT, WITHOUT ROWID;
