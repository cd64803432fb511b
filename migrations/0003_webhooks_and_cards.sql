-- What others tell us over HTTP, what we tell others, and payments by card.

-- ------------------------------------------------------------------------------- what comes in

-- The audit trail of webhooks that came in, and the queue from which they are processed: stored
-- before they are answered, never believed. One row for each event, however often it is sent.
CREATE TABLE webhook_events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    source      TEXT NOT NULL CHECK (source IN ('helius', 'quicknode', 'paymob')),
    kind        TEXT NOT NULL,           -- what the body says it is: transactions, TRANSACTION …
    -- What makes it the same event when it comes again: SHA-256, hex, of that which says so.
    dedupe_key  TEXT NOT NULL,
    nonce       TEXT,                    -- of a signature that carries one; good for one event
    -- waiting: not processed yet; done: it led to something; ignored: it concerns nothing here;
    -- refused: authentic, and contradicts what is known; failed: tried often, given up, waits for
    -- a person; unauthenticated: a sample of what was turned away, with the count in `repeats`.
    verdict     TEXT NOT NULL DEFAULT 'waiting' CHECK (verdict IN (
                    'waiting', 'done', 'ignored', 'refused', 'failed', 'unauthenticated')),
    detail      TEXT,                    -- a sentence for a person
    body        BLOB NOT NULL,           -- as it came, but for secrets and card numbers
    headers     TEXT NOT NULL CHECK (json_valid(headers)),  -- an allow list of them
    address     TEXT NOT NULL,           -- who sent it
    repeats     INTEGER NOT NULL DEFAULT 0 CHECK (repeats >= 0),  -- how often it came again
    attempts    INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_try_at INTEGER,                 -- NULL: it is not tried (again)
    received_at INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    CHECK ((verdict = 'waiting') = (next_try_at IS NOT NULL)),
    UNIQUE (source, dedupe_key),
    UNIQUE (source, nonce)
) STRICT;

CREATE INDEX webhook_events_waiting ON webhook_events (source, next_try_at, id)
    WHERE verdict = 'waiting';
CREATE INDEX webhook_events_by_source ON webhook_events (source, id);
CREATE INDEX webhook_events_by_verdict ON webhook_events (verdict, id);
CREATE INDEX webhook_events_by_age ON webhook_events (received_at);

CREATE TRIGGER webhook_events_are_final
BEFORE UPDATE OF id, source, kind, dedupe_key, nonce, body, headers, received_at ON webhook_events
BEGIN
    SELECT RAISE(ABORT, 'what came in never changes');
END;

-- Which payments an event was about.
CREATE TABLE webhook_event_payments (
    payment_id TEXT NOT NULL REFERENCES payments (id),
    event_id   INTEGER NOT NULL REFERENCES webhook_events (id) ON DELETE CASCADE,
    PRIMARY KEY (payment_id, event_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX webhook_event_payments_by_event ON webhook_event_payments (event_id);

-- ------------------------------------------------------------------------------ what goes out

-- The receivers that merchants registered. Their secrets are not stored: each is derived from a
-- signing key of the deployment, the endpoint's id and a generation.
CREATE TABLE webhook_endpoints (
    id              TEXT PRIMARY KEY CHECK (id GLOB 'we_*'),
    url             TEXT NOT NULL,
    event_types     TEXT NOT NULL CHECK (json_valid(event_types)),  -- JSON list; []: every type
    description     TEXT,
    state           TEXT NOT NULL DEFAULT 'enabled' CHECK (state IN ('enabled', 'disabled', 'deleted')),
    state_reason    TEXT,                -- why it is not enabled, in words
    signing_key     TEXT NOT NULL,       -- id of the key that its secret is derived from
    generation      INTEGER NOT NULL DEFAULT 1 CHECK (generation >= 1),
    -- The secret before the last rotation, which signs too until then.
    old_signing_key TEXT,
    old_generation  INTEGER,
    old_until       INTEGER,             -- NULL: there is none
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    CHECK ((state = 'enabled') = (state_reason IS NULL)),
    CHECK ((old_until IS NULL) = (old_generation IS NULL)),
    CHECK ((old_until IS NULL) = (old_signing_key IS NULL))
) STRICT, WITHOUT ROWID;

-- One event for one receiver.
CREATE TABLE webhook_deliveries (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint_id TEXT NOT NULL REFERENCES webhook_endpoints (id),
    event_seq   INTEGER REFERENCES events (seq),     -- NULL: a test
    payment_id  TEXT,                                -- NULL: a test
    -- failed: tried as often as is sensible; dropped: the receiver was disabled or deleted.
    state       TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN (
                    'waiting', 'delivered', 'failed', 'dropped')),
    attempts    INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),  -- since it was last asked for
    next_try_at INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    asked_at    INTEGER NOT NULL,        -- when it was made, or asked for again
    ended_at    INTEGER,                 -- NULL: waiting
    CHECK ((state = 'waiting') = (ended_at IS NULL)),
    CHECK ((event_seq IS NULL) = (payment_id IS NULL)),
    UNIQUE (endpoint_id, event_seq)
) STRICT;

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, next_try_at, id)
    WHERE state = 'waiting';
-- Whether an earlier one of the same payment still waits: then a later one does too.
CREATE INDEX webhook_deliveries_in_order ON webhook_deliveries (endpoint_id, payment_id, event_seq)
    WHERE state = 'waiting';
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (endpoint_id, id);
CREATE INDEX webhook_deliveries_by_payment ON webhook_deliveries (payment_id, id);
CREATE INDEX webhook_deliveries_by_state ON webhook_deliveries (state, created_at);
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE webhook_attempts (
    delivery_id INTEGER NOT NULL REFERENCES webhook_deliveries (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL CHECK (number >= 1),  -- over the delivery's whole life
    at          INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    status      INTEGER,                 -- of the answer; NULL: there was none
    problem     TEXT,                    -- why it is no success; NULL: it is one
    response    TEXT NOT NULL,           -- the beginning of the answer's body
    PRIMARY KEY (delivery_id, number)
) STRICT, WITHOUT ROWID;

-- What happened since, for a receiver that was away.
CREATE INDEX events_by_age ON events (created_at);

-- An event and its deliveries are one write, whoever writes the event.
CREATE TRIGGER events_are_delivered
AFTER INSERT ON events
BEGIN
    INSERT INTO webhook_deliveries (
        endpoint_id, event_seq, payment_id, next_try_at, created_at, asked_at
    )
    SELECT id, NEW.seq, NEW.payment_id, NEW.created_at, NEW.created_at, NEW.created_at
    FROM webhook_endpoints
    WHERE state = 'enabled' AND (
        event_types = '[]'
        OR EXISTS (SELECT 1 FROM json_each(event_types) WHERE value = NEW.type)
    );
END;

-- -------------------------------------------------------------------------------------- cards

-- Orders at Paymob. A payment has more than one when the answer to the first call was lost.
CREATE TABLE card_orders (
    special_reference TEXT PRIMARY KEY,  -- ours: the payment's id, and a number from the second on
    payment_id        TEXT NOT NULL REFERENCES payments (id),
    order_id          INTEGER UNIQUE,    -- theirs, and signed in callbacks; NULL: not known
    intention_id      TEXT,
    checkout_url      TEXT,              -- where the customer pays; NULL: nobody can pay there
    created_at        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX card_orders_by_payment ON card_orders (payment_id);

CREATE TRIGGER card_orders_are_of_one_payment
BEFORE UPDATE ON card_orders
WHEN NEW.special_reference <> OLD.special_reference OR NEW.payment_id <> OLD.payment_id
    OR (OLD.order_id IS NOT NULL AND NEW.order_id IS NOT OLD.order_id)
BEGIN
    SELECT RAISE(ABORT, 'an order never changes its payment or its number');
END;

CREATE TRIGGER card_orders_stay
BEFORE DELETE ON card_orders
BEGIN
    SELECT RAISE(ABORT, 'orders are never deleted');
END;

-- Transactions at Paymob, as far as callbacks and inquiries told of them.
CREATE TABLE charges (
    id         INTEGER PRIMARY KEY,      -- Paymob's
    payment_id TEXT NOT NULL REFERENCES payments (id),
    order_id   INTEGER NOT NULL,
    state      TEXT NOT NULL CHECK (state IN (
                   'pending', 'declined', 'authorized', 'paid', 'voided', 'refunded')),
    -- Minor units of the payment's currency.
    amount     TEXT NOT NULL CHECK (amount GLOB '[1-9]*' AND amount NOT GLOB '*[^0-9]*'),
    refunded   TEXT NOT NULL DEFAULT '0' CHECK (
                   refunded = '0' OR (refunded GLOB '[1-9]*' AND refunded NOT GLOB '*[^0-9]*')),
    made_at    TEXT NOT NULL,            -- as Paymob writes it: local time, mostly without a zone
    seen_at    INTEGER NOT NULL,         -- when it was first told of
    paid_at    INTEGER,                  -- when it was first told to be paid; NULL: never
    updated_at INTEGER NOT NULL
) STRICT;

CREATE INDEX charges_by_payment ON charges (payment_id, id);
CREATE INDEX charges_by_state ON charges (state);

CREATE TRIGGER charges_are_of_one_payment
BEFORE UPDATE OF id, payment_id, order_id, amount, seen_at ON charges
BEGIN
    SELECT RAISE(ABORT, 'a charge never changes its payment or its amount');
END;

CREATE TRIGGER charges_move_forward
BEFORE UPDATE OF state, refunded, paid_at ON charges
WHEN CAST(NEW.refunded AS INTEGER) < CAST(OLD.refunded AS INTEGER)
    OR (OLD.paid_at IS NOT NULL AND coalesce(NEW.paid_at > OLD.paid_at, 1))
    -- The order in which one state says more than another.
    OR instr('pending declined authorized paid refunded voided', NEW.state)
        < instr('pending declined authorized paid refunded voided', OLD.state)
BEGIN
    SELECT RAISE(ABORT, 'a charge never goes back');
END;

CREATE TRIGGER charges_stay
BEFORE DELETE ON charges
BEGIN
    SELECT RAISE(ABORT, 'charges are never deleted');
END;

-- When Paymob is to be asked about a payment: callbacks may be lost. A payment has a row as long
-- as there may be news.
CREATE TABLE card_checks (
    payment_id TEXT PRIMARY KEY REFERENCES payments (id),
    due_at     INTEGER NOT NULL,
    asked      INTEGER NOT NULL DEFAULT 0 CHECK (asked >= 0)  -- how often it was answered
) STRICT, WITHOUT ROWID;

CREATE INDEX card_checks_due ON card_checks (due_at);
