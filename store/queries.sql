-- Every statement of the store, each under its name. All run unchanged on SQLite and on a
-- libSQL server: one statement each, `?` or `?1` parameters, no pragmas, no temporary tables.

-- name: payment_insert
-- A new payment. A reference or an id that exists already is refused by its unique key.
INSERT INTO payments (
    id, provider, symbol, mint, decimals, token_program, recipient, token_account, amount,
    reference, watch_key, order_id, label, message, memo, created_at, expires_at, grace_s,
    status, paid, late, review, received, settled_at, canceled_at, version
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: metadata_insert
INSERT INTO payment_metadata (payment_id, key, value) VALUES (?, ?, ?);

-- name: payment_update
-- The new state, on the condition that nobody changed the payment since it was read: otherwise
-- the version becomes NULL, which its column refuses, and with it the whole batch.
UPDATE payments
SET status = ?3, paid = ?4, late = ?5, review = ?6, received = ?7, settled_at = ?8,
    canceled_at = ?9, version = CASE WHEN version = ?2 THEN ?2 + 1 END
WHERE id = ?1;

-- name: payment_unchanged
-- The same condition for a batch that adds facts about a payment and does not change it.
UPDATE payments SET version = NULL WHERE id = ?1 AND version <> ?2;

-- name: payments_by_ids
SELECT id, provider, symbol, mint, decimals, token_program, recipient, token_account, amount,
    reference, watch_key, order_id, label, message, memo, created_at, expires_at, grace_s,
    status, paid, late, review, received, settled_at, canceled_at, version
FROM payments
WHERE id IN (SELECT value FROM json_each(?1));

-- name: ids_by_references
SELECT id FROM payments WHERE reference IN (SELECT value FROM json_each(?1));

-- name: page
-- Newest first. The four differ in the index that leads them, so that none of them has to walk
-- past what it does not want. NULL leaves a filter out; ?4 and (?5, ?6) bound the page.
SELECT id FROM payments
WHERE created_at > ?4 AND (created_at, id) < (?5, ?6)
ORDER BY created_at DESC, id DESC
LIMIT ?7;

-- name: page_by_status
SELECT id FROM payments
WHERE status = ?1 AND created_at > ?4 AND (created_at, id) < (?5, ?6)
ORDER BY created_at DESC, id DESC
LIMIT ?7;

-- name: page_by_order
SELECT id FROM payments
WHERE order_id = ?2 AND created_at > ?4 AND (created_at, id) < (?5, ?6)
  AND (?1 IS NULL OR status = ?1)
ORDER BY created_at DESC, id DESC
LIMIT ?7;

-- name: page_by_reference
SELECT id FROM payments
WHERE reference = ?3 AND created_at > ?4 AND (created_at, id) < (?5, ?6)
  AND (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR order_id = ?2)
ORDER BY created_at DESC, id DESC
LIMIT ?7;

-- name: ids_of_expirable
-- Open payments of one watched key whose deadline its frontier has passed, the oldest first.
-- What was paid in full and in time waits for a person and never expires: it is left out here,
-- so that a pile of it does not hide the others.
SELECT id FROM payments
WHERE status IN ('pending', 'processing') AND watch_key = ?1 AND expires_at < ?2
  AND NOT (status = 'processing' AND paid IN ('exact', 'over') AND late = 0)
UNION ALL
SELECT id FROM payments
WHERE status IN ('pending', 'processing') AND watch_key IS NULL AND reference = ?1
  AND expires_at < ?2
  AND NOT (status = 'processing' AND paid IN ('exact', 'over') AND late = 0)
LIMIT ?3;

-- name: foreign_references
-- References that must be watched one by one, while money for them may still count. Newest first.
SELECT reference FROM (
    SELECT reference, created_at, id FROM payments
    WHERE status IN ('pending', 'processing') AND watch_key IS NULL AND provider = 'solana'
    UNION ALL
    SELECT reference, created_at, id FROM payments
    WHERE status = 'expired' AND watch_key IS NULL AND provider = 'solana'
      AND expires_at + grace_s >= ?1
)
ORDER BY created_at DESC, id DESC
LIMIT ?2;

-- name: watch_keys
-- Watch keys of payments for which money may still count; more than one after a rotation. Leaps
-- from key to key along the named indexes, because there are many payments and few keys; left to
-- itself, SQLite would look at every expired payment.
WITH RECURSIVE
    open(key) AS (
        SELECT ''
        UNION ALL
        SELECT (
            SELECT watch_key FROM payments INDEXED BY payments_open
            WHERE status IN ('pending', 'processing') AND watch_key > open.key
            ORDER BY watch_key LIMIT 1
        )
        FROM open WHERE open.key IS NOT NULL
    ),
    expired(key) AS (
        SELECT ''
        UNION ALL
        SELECT (
            SELECT watch_key FROM payments INDEXED BY payments_in_grace
            WHERE status = 'expired' AND watch_key > expired.key
            ORDER BY watch_key LIMIT 1
        )
        FROM expired WHERE expired.key IS NOT NULL
    )
SELECT key FROM open WHERE key > ''
UNION
SELECT key FROM expired
WHERE key > '' AND EXISTS (
    SELECT 1 FROM payments
    WHERE status = 'expired' AND watch_key = expired.key AND expires_at + grace_s >= ?1
);

-- name: payment_counts
SELECT status, count(*) FROM payments GROUP BY status;

-- name: metadata_by_ids
SELECT payment_id, key, value FROM payment_metadata
WHERE payment_id IN (SELECT value FROM json_each(?1))
ORDER BY payment_id, key;

-- name: verdict_insert
-- The same verdict again, from another sweep or another process, changes nothing.
INSERT INTO verdicts (
    signature, payment_id, slot, transaction_index, block_time, credit, clean, reasons, evidence
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (signature, payment_id) DO NOTHING;

-- name: verdicts_by_ids
SELECT signature, payment_id, slot, transaction_index, block_time, credit, clean, reasons, evidence
FROM verdicts
WHERE payment_id IN (SELECT value FROM json_each(?1));

-- name: transfer_insert
-- A leg of a verdict. The same leg of the same payment changes nothing; for another payment it
-- would make the column NULL, which it refuses, and with it the whole batch.
INSERT INTO transfers (
    signature, outer_index, inner_index, sub_index, payment_id, source, destination, amount, net
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (signature, outer_index, inner_index, sub_index) DO UPDATE
SET payment_id = NULL WHERE payment_id <> excluded.payment_id;

-- name: transfers_by_ids
SELECT t.signature, t.payment_id, outer_index, inner_index, sub_index, source, destination,
    amount, net
FROM verdicts AS v
JOIN transfers AS t ON t.signature = v.signature AND t.payment_id = v.payment_id
WHERE v.payment_id IN (SELECT value FROM json_each(?1))
ORDER BY t.signature, outer_index, inner_index, sub_index;

-- name: sighting_insert
-- Nothing, where a verdict was faster: it would stay a sighting for ever.
INSERT INTO sightings (payment_id, signature, slot, credit, seen_at)
SELECT ?1, ?2, ?3, ?4, ?5
WHERE NOT EXISTS (SELECT 1 FROM verdicts WHERE signature = ?2 AND payment_id = ?1)
ON CONFLICT (payment_id, signature) DO NOTHING;

-- name: sighting_delete
DELETE FROM sightings WHERE payment_id = ? AND signature IN (SELECT value FROM json_each(?));

-- name: sightings_by_ids
SELECT payment_id, signature, slot, credit FROM sightings
WHERE payment_id IN (SELECT value FROM json_each(?1));

-- name: sightings_oldest
SELECT payment_id, signature, slot, credit FROM sightings ORDER BY slot LIMIT ?;

-- name: event_append
INSERT INTO events (payment_id, type, version, ordinal, created_at, data)
VALUES (?, ?, ?, ?, ?, ?);

-- name: events_after
SELECT seq, payment_id, type, version, created_at, data FROM events
WHERE seq > ?1 ORDER BY seq LIMIT ?2;

-- name: events_of_payment_after
SELECT seq, payment_id, type, version, created_at, data FROM events
WHERE payment_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3;

-- name: last_seq
SELECT coalesce(max(seq), 0) FROM events;

-- name: last_seq_of_payment
SELECT coalesce(max(seq), 0) FROM events WHERE payment_id = ?1;

-- name: cursor_get
SELECT key, slot, block_time, updated_at FROM cursors WHERE key = ?;

-- name: cursors_all
SELECT key, slot, block_time, updated_at FROM cursors ORDER BY key;

-- name: cursor_advance
-- A frontier never moves back, whoever writes last.
INSERT INTO cursors (key, slot, block_time, updated_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (key) DO UPDATE
SET slot = excluded.slot, block_time = max(block_time, excluded.block_time),
    updated_at = excluded.updated_at
WHERE excluded.slot >= slot;

-- name: dead_letter_park
-- Again: one more attempt, its age stays, and what was known and is not said again stays too.
INSERT INTO dead_letters (
    signature, key, slot, reason, detail, payload, attempts, next_try_at, created_at, updated_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (signature) DO UPDATE
SET key = coalesce(excluded.key, key), slot = coalesce(excluded.slot, slot),
    reason = excluded.reason, detail = excluded.detail,
    payload = coalesce(excluded.payload, payload),
    attempts = max(attempts + 1, excluded.attempts), next_try_at = excluded.next_try_at,
    updated_at = excluded.updated_at;

-- name: dead_letter_resolve
DELETE FROM dead_letters WHERE signature = ?;

-- name: dead_letters_due
SELECT signature, key, slot, reason, detail, payload, attempts, next_try_at, created_at, updated_at
FROM dead_letters WHERE next_try_at <= ? ORDER BY next_try_at LIMIT ?;

-- name: dead_letters_listing
SELECT signature, key, slot, reason, detail, payload, attempts, next_try_at, created_at, updated_at
FROM dead_letters ORDER BY created_at DESC, signature LIMIT ?;

-- name: dead_letters_count
SELECT count(*) FROM dead_letters;

-- name: dead_letters_holding
SELECT count(*) FROM dead_letters WHERE next_try_at IS NOT NULL;

-- name: api_key_insert
INSERT INTO api_keys (id, name, hash, scopes, created_at) VALUES (?, ?, ?, ?, ?);

-- name: api_key_by_hash
SELECT id, name, scopes, created_at, revoked_at FROM api_keys
WHERE hash = ? AND revoked_at IS NULL;

-- name: api_keys_all
SELECT id, name, scopes, created_at, revoked_at FROM api_keys ORDER BY created_at, name;

-- name: api_key_revoke
UPDATE api_keys SET revoked_at = ?2 WHERE (id = ?1 OR name = ?1) AND revoked_at IS NULL
RETURNING id;

-- name: idempotency_find
SELECT fingerprint, status, headers, body, created_at FROM idempotency_keys
WHERE api_key_id = ? AND route = ? AND key = ?;

-- name: idempotency_insert
INSERT INTO idempotency_keys (
    api_key_id, route, key, fingerprint, status, headers, body, created_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: idempotency_prune
-- A bounded number at a time: a write holds up all others.
DELETE FROM idempotency_keys
WHERE (api_key_id, route, key) IN (
    SELECT api_key_id, route, key FROM idempotency_keys
    WHERE created_at < ?1 ORDER BY created_at LIMIT ?2
);

-- name: deployment_get
SELECT value FROM deployment WHERE name = ?;

-- name: deployment_put
INSERT INTO deployment (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING;

-- name: health_report
INSERT INTO health (component, problem, since, updated_at) VALUES (?1, ?2, ?3, ?3)
ON CONFLICT (component) DO UPDATE
SET since = CASE WHEN problem IS excluded.problem THEN since ELSE excluded.since END,
    problem = excluded.problem, updated_at = excluded.updated_at;

-- name: health_all
SELECT component, problem, since, updated_at FROM health ORDER BY component;
