-- Several processes on one database: who is there, who does which work, which keys are watched,
-- and what became of a batch whose answer was lost on the way.
--
-- The code before cannot run on it: `health` and `measures` are made anew with other columns, and
-- what it reports there would be refused.
-- runs-with: 5

-- Of each migration from this one on: the oldest version whose code may still run on the schema
-- that it makes. NULL: only code that knows the migration itself.
ALTER TABLE schema_migrations
ADD COLUMN runs_with INTEGER CHECK (runs_with BETWEEN 1 AND version);

-- The indexers that run. `beats` is counted up by each as long as it is well; one whose number has
-- not changed for a while, by the clock of whoever watches it, is gone. No two clocks are compared.
CREATE TABLE instances (
    id         TEXT PRIMARY KEY,         -- names one start of one process
    version    TEXT NOT NULL,            -- of the release that it runs
    machine    TEXT NOT NULL,            -- the same for processes that can see each other; '': unknown
    process    TEXT NOT NULL,            -- which one there
    beats      INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL          -- unix seconds, by its own clock: for people
) STRICT, WITHOUT ROWID;

-- Who does which work at the moment, so that several indexers divide it. A lease only saves work:
-- what it covers may be done twice without harm. `token` grows whenever the work changes hands;
-- a write that must not come from one who lost it names the token (see lease_guard).
CREATE TABLE leases (
    name   TEXT PRIMARY KEY,             -- of the work; 'deleted': the tokens of rows that were
    holder TEXT NOT NULL,                -- instances.id; '': it was given back
    token  INTEGER NOT NULL CHECK (token > 0)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER leases_change_hands_with_a_token
BEFORE UPDATE ON leases
WHEN NEW.token < OLD.token OR (NEW.holder <> OLD.holder AND NEW.token = OLD.token)
BEGIN
    SELECT RAISE(ABORT, 'a lease changes hands with a higher token');
END;

-- Batches whose answers a writer has not had yet. Where an answer is lost, a number that nobody
-- has applied is taken away, so that a batch that is still on its way is refused when it arrives.
CREATE TABLE writes (
    writer TEXT NOT NULL,                -- random, one for each writer
    number INTEGER NOT NULL,             -- of the batch, counted by its writer
    state  TEXT NOT NULL CHECK (state IN ('applied', 'abandoned')),
    at     INTEGER NOT NULL DEFAULT (unixepoch()),
    PRIMARY KEY (writer, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX writes_by_age ON writes (at);

-- How often the database was written to, counted by every group of batches on a libSQL server:
-- whoever reads it together with something else knows how old that is. A replica's own idea of how
-- far it has come begins anew when its primary is restarted.
CREATE TABLE revision (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    value INTEGER NOT NULL
) STRICT;

INSERT INTO revision (id, value) VALUES (1, 0);

-- The keys that stand beside a payment's reference. One subscription and one frontier each find
-- all payments that carry it, so work divides by them.
CREATE TABLE watch_keys (
    key        TEXT PRIMARY KEY CHECK (length(key) BETWEEN 32 AND 44),
    name       TEXT NOT NULL,            -- for people; free again once the key is retired
    -- shared: for whom no other is meant. reserved: for the API keys that name it.
    purpose    TEXT NOT NULL CHECK (purpose IN ('shared', 'reserved')),
    created_at INTEGER NOT NULL,
    retired_at INTEGER,                  -- no new payment gets it; NULL: in use
    -- When the grace time of all payments that carry it is over: until then it is watched, also
    -- for those that are settled, because money may come twice.
    needed_until INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX watch_keys_by_name ON watch_keys (name) WHERE retired_at IS NULL;

-- Processes may keep a key in mind for seconds: one that came back would be in use for some only.
CREATE TRIGGER watch_keys_retire_once
BEFORE UPDATE ON watch_keys
WHEN (OLD.retired_at IS NOT NULL AND NEW.retired_at IS NOT OLD.retired_at) OR NEW.key <> OLD.key
BEGIN
    SELECT RAISE(ABORT, 'a watch key that was retired stays so');
END;

CREATE TRIGGER payments_need_their_watch_key
AFTER INSERT ON payments
WHEN NEW.watch_key IS NOT NULL
BEGIN
    UPDATE watch_keys SET needed_until = NEW.expires_at + NEW.grace_s
    WHERE key = NEW.watch_key AND needed_until < NEW.expires_at + NEW.grace_s;
END;

INSERT INTO watch_keys (key, name, purpose, created_at, needed_until)
SELECT value, 'first', 'shared', unixepoch(), coalesce(
    (SELECT max(expires_at + grace_s) FROM payments WHERE watch_key = deployment.value), 0
)
FROM deployment WHERE name = 'watch_key';

-- Which of them the payments carry that this caller makes; NULL: a shared one.
ALTER TABLE api_keys ADD COLUMN watch_key TEXT REFERENCES watch_keys (key);

CREATE INDEX api_keys_by_watch_key ON api_keys (watch_key) WHERE watch_key IS NOT NULL;

-- What each process says of itself; of a process that is gone it is soon left out.
DROP TABLE health;
CREATE TABLE health (
    instance   TEXT NOT NULL,            -- instances.id
    component  TEXT NOT NULL,
    problem    TEXT,                     -- NULL: well
    since      INTEGER NOT NULL,         -- when `problem` last changed
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (component, instance)
) STRICT, WITHOUT ROWID;

DROP TABLE measures;
CREATE TABLE measures (
    instance   TEXT NOT NULL,            -- instances.id
    name       TEXT NOT NULL,
    labels     TEXT NOT NULL CHECK (json_valid(labels)),  -- JSON object, keys sorted
    kind       TEXT NOT NULL CHECK (kind IN ('counter', 'gauge')),
    value      TEXT NOT NULL,            -- a decimal number
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (name, labels, instance)
) STRICT, WITHOUT ROWID;

-- What was not tried yet is due whatever a clock says: who writes an event and who sends it may be
-- machines whose clocks differ. `next_try_at` is 0 until the first try since it was asked for.
DROP TRIGGER events_are_delivered;

CREATE TRIGGER events_are_delivered
AFTER INSERT ON events
BEGIN
    INSERT INTO webhook_deliveries (
        endpoint_id, event_seq, payment_id, next_try_at, created_at, asked_at
    )
    SELECT id, NEW.seq, NEW.payment_id, 0, NEW.created_at, NEW.created_at
    FROM webhook_endpoints
    WHERE state = 'enabled' AND (
        event_types = '[]'
        OR EXISTS (SELECT 1 FROM json_each(event_types) WHERE value = NEW.type)
    );
END;

UPDATE webhook_deliveries SET next_try_at = 0 WHERE state = 'waiting' AND attempts = 0;
