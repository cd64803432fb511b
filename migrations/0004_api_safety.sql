-- API safety: keys that end by themselves and have a budget of their own, and the leases under
-- which requests with an idempotency key are at work.

ALTER TABLE api_keys ADD COLUMN expires_at INTEGER;  -- unix seconds; NULL: valid until revoked
ALTER TABLE api_keys ADD COLUMN rate TEXT;           -- such as `100/10s`; NULL: as the deployment's

-- A request that is being worked on. Whoever works on it renews the lease; the lease of a process
-- that died ends by itself, and the next one takes the work over under another `holder`. The
-- answer is stored only by whom the lease names (see idempotency_keys): a slow holder that lost
-- it stores nothing.
CREATE TABLE idempotency_leases (
    api_key_id  TEXT NOT NULL,
    route       TEXT NOT NULL,           -- method and route template
    key         TEXT NOT NULL,
    fingerprint TEXT NOT NULL,           -- SHA-256 of the raw body, hex
    holder      TEXT NOT NULL,           -- random, anew for each attempt: the fencing token
    until       INTEGER NOT NULL,        -- unix seconds, after which anybody may take it
    PRIMARY KEY (api_key_id, route, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_leases_by_end ON idempotency_leases (until);
