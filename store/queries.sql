-- Every statement of the store, each under its name. All run unchanged on SQLite and on a
-- libSQL server: one statement each, `?` or `?1` parameters, no pragmas, no temporary tables.


-- ---------------------------------------------------------------------- payments: written and read

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

-- name: metadata_by_ids
SELECT payment_id, key, value FROM payment_metadata
WHERE payment_id IN (SELECT value FROM json_each(?1))
ORDER BY payment_id, key;

-- name: ids_by_references
-- And those that hold a leg of any of these transactions without being named by it.
SELECT id FROM payments WHERE reference IN (SELECT value FROM json_each(?1))
UNION
SELECT payment_id FROM transfers WHERE signature IN (SELECT value FROM json_each(?2));

-- name: ids_by_signature
SELECT payment_id FROM verdicts WHERE signature = ? ORDER BY payment_id;

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

-- name: payment_counts
SELECT status, count(*) FROM payments GROUP BY status;

-- name: ids_in_review
SELECT id FROM payments INDEXED BY payments_in_review
WHERE review <> '[]' AND provider = 'solana' ORDER BY created_at LIMIT ?;

-- name: card_ids_in_review
SELECT id FROM payments INDEXED BY payments_in_review
WHERE review <> '[]' AND provider = 'paymob' ORDER BY created_at LIMIT ?;

-- name: payments_in_review_count
SELECT count(*) FROM payments WHERE review <> '[]';

-- name: ids_of_expirable
-- Open payments of one watched key whose deadline its frontier has passed, the oldest first.
-- What was paid in full and in time waits for a person and never expires: it is left out here,
-- so that a pile of it does not hide the others. A wallet may have left out the watch key, so the
-- payment's own reference must be complete up to the deadline as well.
SELECT id FROM payments
WHERE status IN ('pending', 'processing') AND watch_key = ?1 AND expires_at < ?2
  AND NOT (status = 'processing' AND paid IN ('exact', 'over') AND late = 0)
  AND EXISTS (SELECT 1 FROM cursors WHERE key = payments.reference AND block_time > expires_at)
UNION ALL
SELECT id FROM payments
WHERE status IN ('pending', 'processing') AND watch_key IS NULL AND reference = ?1
  AND expires_at < ?2
  AND NOT (status = 'processing' AND paid IN ('exact', 'over') AND late = 0)
LIMIT ?3;


-- -------------------------------------------------------- payments: what the chain is searched for

-- name: watch_keys
-- Watch keys in use, those of payments for which money may still count, and those with slots in
-- which something may have been missed. It is the key's own frontier that says whether money may
-- count, by block time; ?1 only bounds how far back is looked, ?2 is for nodes that list a
-- transaction late. Payments may carry keys that are not in the table: leaps from key to key along the named indexes, because there are
-- many payments and few keys; left to itself, SQLite would look at every expired payment.
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
SELECT key FROM watch_keys
WHERE retired_at IS NULL
   OR EXISTS (SELECT 1 FROM gaps WHERE key = watch_keys.key AND closed_at IS NULL)
   OR needed_until >= max(?1, coalesce(
       (SELECT block_time FROM cursors WHERE key = watch_keys.key) - ?2, 1
   ))
UNION
SELECT key FROM open WHERE key > ''
UNION
SELECT key FROM expired
WHERE key > '' AND max(?1, coalesce(
    (SELECT block_time FROM cursors WHERE key = expired.key) - ?2, 0
)) <= (
    SELECT expires_at + grace_s FROM payments INDEXED BY payments_in_grace
    WHERE status = 'expired' AND watch_key = expired.key
    ORDER BY expires_at + grace_s DESC LIMIT 1
);

-- name: foreign_references
-- References that must be watched one by one, while money for them may still count. Newest first.
-- What decides is how far the reference's own frontier has come, by block time: the clock passes
-- the end of the grace time long before what was paid in it is final, or while nobody runs. ?1
-- only bounds how far back is looked, ?3 is for nodes that list a transaction late.
SELECT reference FROM (
    SELECT reference, created_at, id FROM payments
    WHERE status IN ('pending', 'processing') AND watch_key IS NULL AND provider = 'solana'
    UNION ALL
    SELECT reference, created_at, id FROM payments
    WHERE status = 'expired' AND watch_key IS NULL AND provider = 'solana'
      AND expires_at + grace_s >= ?1
      AND NOT EXISTS (
          SELECT 1 FROM cursors
          WHERE key = payments.reference AND block_time > expires_at + grace_s + ?3
      )
)
ORDER BY created_at DESC, id DESC
LIMIT ?2;

-- name: references_alive
-- Of all payments, whatever became of them, for which money may count between two times: made
-- before the later one (?1), with grace until the earlier one (?2) or longer. Newest first, in
-- pages that end before (?3, ?4).
SELECT reference, created_at, id FROM payments
WHERE created_at <= ?1 AND (created_at, id) < (?3, ?4)
  AND provider = 'solana' AND expires_at + grace_s >= ?2
ORDER BY created_at DESC, id DESC
LIMIT ?5;

-- name: references_known
SELECT reference FROM payments WHERE reference IN (SELECT value FROM json_each(?1));

-- name: oldest_payable
-- When the oldest payment of one watched key was created for which money may still count.
SELECT min(created_at) FROM (
    SELECT created_at FROM payments
    WHERE status IN ('pending', 'processing') AND watch_key = ?1
    UNION ALL
    SELECT created_at FROM payments
    WHERE status = 'expired' AND watch_key = ?1 AND expires_at + grace_s >= ?2
    UNION ALL
    SELECT created_at FROM payments
    WHERE reference = ?1 AND watch_key IS NULL
      AND (
          status IN ('pending', 'processing')
          OR (status = 'expired' AND expires_at + grace_s >= ?2)
      )
);

-- name: destinations
-- Wallets and token accounts that payments wait for, from ?2 on, and the oldest of these payments.
-- A key that is somebody's reference is left out: its cursor says something else.
SELECT key, min(created_at) FROM (
    SELECT coalesce(token_account, recipient) AS key, created_at
    FROM payments INDEXED BY payments_awaiting
    WHERE status IN ('pending', 'processing', 'expired') AND expires_at + grace_s >= ?1
      AND coalesce(token_account, recipient) > ?2
) AS awaiting
WHERE NOT EXISTS (SELECT 1 FROM payments WHERE reference = awaiting.key)
GROUP BY key ORDER BY key LIMIT ?3;

-- name: keys_worth_a_look
-- Those of a JSON list of keys that a transaction may name because it pays somebody here: watch
-- keys in use; watch keys, references and destinations of payments for which money may still count.
SELECT value FROM json_each(?1) AS named
WHERE EXISTS (
    SELECT 1 FROM watch_keys
    WHERE key = named.value AND (retired_at IS NULL OR needed_until >= ?2)
) OR EXISTS (
    SELECT 1 FROM payments INDEXED BY payments_open
    WHERE status IN ('pending', 'processing') AND watch_key = named.value
) OR EXISTS (
    SELECT 1 FROM payments INDEXED BY payments_in_grace
    WHERE status = 'expired' AND watch_key = named.value AND expires_at + grace_s >= ?2
) OR EXISTS (
    SELECT 1 FROM payments
    WHERE reference = named.value AND (
        status IN ('pending', 'processing') OR (status = 'expired' AND expires_at + grace_s >= ?2)
    )
) OR EXISTS (
    SELECT 1 FROM payments INDEXED BY payments_by_amount
    WHERE status IN ('pending', 'processing', 'expired')
      AND coalesce(token_account, recipient) = named.value
      AND (status <> 'expired' OR expires_at + grace_s >= ?2)
);

-- name: awaiting_amount
-- Payments to ?1 that money of block times from ?2 to ?3 may be for, the youngest first.
SELECT id FROM payments
WHERE status IN ('pending', 'processing', 'expired')
  AND coalesce(token_account, recipient) = ?1 AND amount = ?5
  AND created_at <= ?3 AND expires_at + grace_s >= ?2
ORDER BY created_at DESC LIMIT ?4;

-- name: awaiting_memo
SELECT id FROM payments
WHERE status IN ('pending', 'processing', 'expired') AND memo IS NOT NULL
  AND coalesce(token_account, recipient) = ?1 AND memo = ?5
  AND created_at <= ?3 AND expires_at + grace_s >= ?2
ORDER BY created_at DESC LIMIT ?4;

-- name: awaiting_name
-- By a JSON list of words, each of which may be an id, a reference or an order number.
SELECT p.id FROM (
    SELECT id FROM payments WHERE id IN (SELECT value FROM json_each(?5))
    UNION
    SELECT id FROM payments WHERE reference IN (SELECT value FROM json_each(?5))
    UNION
    SELECT id FROM payments WHERE order_id IN (SELECT value FROM json_each(?5))
) AS named CROSS JOIN payments AS p ON p.id = named.id
WHERE p.status IN ('pending', 'processing', 'expired')
  AND coalesce(p.token_account, p.recipient) = ?1
  AND p.created_at <= ?3 AND p.expires_at + p.grace_s >= ?2
ORDER BY p.created_at DESC LIMIT ?4;


-- -------------------------------------- verdicts and transfers: what transactions are for payments

-- name: verdict_insert
-- The same verdict again, from another sweep or another process, changes nothing.
INSERT INTO verdicts (
    signature, payment_id, slot, transaction_index, block_time, credit, clean, reasons, evidence
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (signature, payment_id) DO NOTHING;

-- name: transfer_insert
-- A leg of a verdict. The same leg of the same payment changes nothing; for another payment it
-- would make the column NULL, which it refuses, and with it the whole batch.
INSERT INTO transfers (
    signature, outer_index, inner_index, sub_index, payment_id, source, destination, amount, net
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (signature, outer_index, inner_index, sub_index) DO UPDATE
SET payment_id = NULL WHERE payment_id <> excluded.payment_id;

-- name: verdicts_by_ids
SELECT signature, payment_id, slot, transaction_index, block_time, credit, clean, reasons, evidence
FROM verdicts
WHERE payment_id IN (SELECT value FROM json_each(?1));

-- name: transfers_by_ids
SELECT t.signature, t.payment_id, outer_index, inner_index, sub_index, source, destination,
    amount, net
FROM verdicts AS v
JOIN transfers AS t ON t.signature = v.signature AND t.payment_id = v.payment_id
WHERE v.payment_id IN (SELECT value FROM json_each(?1))
ORDER BY t.signature, outer_index, inner_index, sub_index;

-- name: verdict_signatures
SELECT signature FROM verdicts WHERE payment_id = ?;

-- name: signatures_judged
SELECT DISTINCT signature FROM verdicts WHERE signature IN (SELECT value FROM json_each(?1));


-- ---------------------------------------------------------------- sightings: what is not final yet

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

-- name: sightings_of_signatures
SELECT payment_id, signature, slot, credit FROM sightings
WHERE signature IN (SELECT value FROM json_each(?1));

-- name: ids_touched
-- Payments with a verdict or a sighting of one of these transactions.
SELECT payment_id FROM verdicts WHERE signature IN (SELECT value FROM json_each(?1))
UNION
SELECT payment_id FROM sightings WHERE signature IN (SELECT value FROM json_each(?1));

-- name: sightings_oldest
SELECT payment_id, signature, slot, credit FROM sightings ORDER BY slot LIMIT ?;


-- -------------------------------------- decisions and suggestions: what persons say, and are asked

-- name: decision_insert
-- Made once: a second one about the same transaction is refused by the key, and with it the batch.
INSERT INTO decisions (payment_id, signature, decision, note, decided_at) VALUES (?, ?, ?, ?, ?);

-- name: decisions_by_ids
SELECT payment_id, signature, decision, note, decided_at FROM decisions
WHERE payment_id IN (SELECT value FROM json_each(?1));

-- name: suggestion_insert
-- Once, and not of a transaction that pays somebody already; a payment has only so many.
INSERT INTO suggestions (
    signature, outer_index, inner_index, sub_index, payment_id, why, source, destination, amount,
    memo, slot, block_time, found_at
)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13
WHERE NOT EXISTS (SELECT 1 FROM transfers WHERE signature = ?1)
  AND (SELECT count(*) FROM suggestions WHERE payment_id = ?5 AND state = 'open') < ?14
ON CONFLICT (signature, outer_index, inner_index, sub_index, payment_id) DO NOTHING;

-- name: suggestion_close
-- One that is not open any more becomes NULL, which its column refuses, and with it the batch.
UPDATE suggestions SET state = CASE WHEN state = 'open' THEN ?6 END, decided_at = ?7
WHERE signature = ?1 AND outer_index = ?2 AND inner_index = ?3 AND sub_index = ?4
  AND payment_id = ?5;

-- name: suggestions_listing
-- Open ones of payments that can still be paid by them, the oldest first.
SELECT s.signature, s.outer_index, s.inner_index, s.sub_index, s.payment_id, s.why, s.source,
    s.destination, s.amount, s.memo, s.slot, s.block_time, s.found_at
FROM suggestions AS s INDEXED BY suggestions_open CROSS JOIN payments AS p ON p.id = s.payment_id
WHERE s.state = 'open' AND p.status IN ('pending', 'processing', 'expired')
ORDER BY s.found_at, s.signature LIMIT ?;

-- name: suggestions_of_signature
SELECT signature, outer_index, inner_index, sub_index, payment_id, why, source, destination,
    amount, memo, slot, block_time, found_at
FROM suggestions WHERE signature = ? AND state = 'open';

-- name: suggestions_of_payment
SELECT signature, outer_index, inner_index, sub_index, payment_id, why, source, destination,
    amount, memo, slot, block_time, found_at
FROM suggestions WHERE payment_id = ? AND state = 'open' LIMIT ?;


-- -------------------------------------------------------- events: the log that everyone else reads

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

-- name: event_count
-- Without reading them all: the last number, less those that restores have left out before it.
SELECT coalesce(max(seq), 0) - (
    SELECT coalesce(sum(last - before), 0)
    FROM (
        SELECT CAST(substr(name, length('events_skip_after_') + 1) AS INTEGER) AS before,
            CAST(value AS INTEGER) AS last
        FROM deployment WHERE name GLOB 'events_skip_after_*'
    )
    WHERE before < (SELECT max(seq) FROM events)
)
FROM events;


-- ---------------------------------------------------------- cursors: up to where a key is complete

-- name: cursor_get
SELECT key, slot, block_time, updated_at FROM cursors WHERE key = ?;

-- name: cursor_times
SELECT key, block_time FROM cursors WHERE key IN (SELECT value FROM json_each(?));

-- name: cursors_of
SELECT key, slot, block_time, updated_at FROM cursors
WHERE key IN (SELECT value FROM json_each(?)) ORDER BY key;

-- name: cursor_advance
-- A frontier never moves back, whoever writes last.
INSERT INTO cursors (key, slot, block_time, updated_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (key) DO UPDATE
SET slot = excluded.slot, block_time = max(block_time, excluded.block_time),
    updated_at = excluded.updated_at
WHERE excluded.slot >= slot;

-- name: cursor_advance_from
-- Everything from slot ?5 to slot ?2 is stored, and before ?5 there was nothing: a frontier
-- begins there, and one that reaches ?5 moves on.
INSERT INTO cursors (key, slot, block_time, updated_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (key) DO UPDATE
SET slot = excluded.slot, block_time = max(block_time, excluded.block_time),
    updated_at = excluded.updated_at
WHERE excluded.slot > slot AND slot >= ?5 - 1;

-- name: cursor_advance_over_coverage
-- A frontier moves on where coverage goes on without a hole.
UPDATE cursors
SET slot = ?2, block_time = max(block_time, ?3), updated_at = ?4
WHERE key = ?1 AND slot < ?2 AND EXISTS (
    SELECT 1 FROM coverage
    WHERE coverage.key = ?1 AND first_slot <= cursors.slot + 1 AND last_slot >= ?2
);

-- name: cursors_advance_whole_lives
-- Of the references of open payments that were made (?6 to ?7) and ran out (before ?3) while
-- everything was examined, from slot ?5 to slot ?2: nothing can have paid them elsewhere.
INSERT INTO cursors (key, slot, block_time, updated_at)
SELECT reference, ?2, ?3, ?4 FROM payments
WHERE status IN ('pending', 'processing') AND watch_key = ?1 AND expires_at < ?3
  AND created_at >= ?6 AND created_at < ?7
ON CONFLICT (key) DO UPDATE
SET slot = excluded.slot, block_time = max(block_time, excluded.block_time),
    updated_at = excluded.updated_at
WHERE excluded.slot > slot AND slot >= ?5 - 1;


-- -------------------------------------------------------------- coverage: slots that were examined

-- name: coverage_add
-- Together with every range that it overlaps or touches.
INSERT INTO coverage (key, first_slot, last_slot, updated_at)
SELECT ?1, min(?2, coalesce(min(first_slot), ?2)), max(?3, coalesce(max(last_slot), ?3)), ?4
FROM coverage
WHERE key = ?1 AND first_slot <= ?3 + 1 AND last_slot >= ?2 - 1
ON CONFLICT (key, first_slot) DO UPDATE
SET last_slot = max(last_slot, excluded.last_slot), updated_at = excluded.updated_at;

-- name: coverage_tidy
-- What lies within a wider range says nothing any more.
DELETE FROM coverage
WHERE key = ?1 AND EXISTS (
    SELECT 1 FROM coverage AS wider
    WHERE wider.key = ?1 AND wider.first_slot < coverage.first_slot
      AND wider.last_slot >= coverage.last_slot
);

-- name: coverage_of
SELECT first_slot, last_slot FROM coverage WHERE key = ? ORDER BY first_slot;


-- --------------------------------------------- gaps: slots in which something may have been missed

-- name: gap_open
-- The same gap is noted once, however often it is found.
INSERT INTO gaps (key, first_slot, last_slot, reason, source, opened_at, created_before)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key, first_slot, last_slot, reason, source) DO NOTHING;

-- name: gaps_close_up_to
-- A sweep cannot close what is kept by nobody: it passed over it.
UPDATE gaps SET closed_at = ?3
WHERE key = ?1 AND last_slot <= ?2 AND closed_at IS NULL AND reason <> 'pruned';

-- name: gaps_close_covered
-- All of what may have been missed was examined, whatever the reason.
UPDATE gaps SET closed_at = ?2
WHERE key = ?1 AND closed_at IS NULL AND EXISTS (
    SELECT 1 FROM coverage
    WHERE key = ?1 AND first_slot <= gaps.first_slot AND last_slot >= gaps.last_slot
);

-- name: gaps_close_pruned
-- Once all of it was examined after all, or nothing that may have been paid there can still be.
UPDATE gaps SET closed_at = ?2
WHERE key = ?1 AND reason = 'pruned' AND closed_at IS NULL AND (
    EXISTS (
        SELECT 1 FROM coverage
        WHERE key = ?1 AND first_slot <= gaps.first_slot AND last_slot >= gaps.last_slot
    )
    OR NOT EXISTS (
        SELECT 1 FROM payments
        WHERE status IN ('pending', 'processing') AND watch_key = ?1
          AND created_at < coalesce(created_before, opened_at)
        UNION ALL
        SELECT 1 FROM payments
        WHERE status = 'expired' AND watch_key = ?1 AND expires_at + grace_s >= ?2
          AND created_at < coalesce(created_before, opened_at)
        UNION ALL
        SELECT 1 FROM payments
        WHERE reference = ?1 AND watch_key IS NULL
          AND (
              status IN ('pending', 'processing')
              OR (status = 'expired' AND expires_at + grace_s >= ?2)
          )
          AND created_at < coalesce(created_before, opened_at)
    )
);

-- name: gaps_pruned
SELECT first_slot, last_slot FROM gaps
WHERE key = ? AND reason = 'pruned' AND closed_at IS NULL ORDER BY last_slot LIMIT ?;

-- name: gaps_listing
SELECT id, key, first_slot, last_slot, reason, source, opened_at, closed_at, created_before
FROM gaps
ORDER BY opened_at DESC, id DESC LIMIT ?;

-- name: gaps_listing_open
SELECT id, key, first_slot, last_slot, reason, source, opened_at, closed_at, created_before
FROM gaps
WHERE closed_at IS NULL ORDER BY key, last_slot LIMIT ?;


-- ----------------------------------------- reference_checks: whose own reference is looked at next

-- name: reference_checks_due
-- Of some shards: an id's last character is one of 32 (see `core.ids`), all equally likely.
SELECT c.payment_id, p.reference, p.watch_key, p.status, p.created_at, p.expires_at, p.grace_s
FROM reference_checks AS c JOIN payments AS p ON p.id = c.payment_id
WHERE c.due_at <= ?1
  AND instr('123456789abcdefghjkmnpqrstvwxyz', substr(c.payment_id, -1)) % 16
      IN (SELECT value FROM json_each(?3))
ORDER BY c.due_at LIMIT ?2;

-- name: reference_check_move
UPDATE reference_checks SET due_at = ?2 WHERE payment_id = ?1;

-- name: reference_check_ask
-- Sooner, never later; a payment that needs no check any more stays without one.
UPDATE reference_checks SET due_at = ?2 WHERE payment_id = ?1 AND due_at > ?2;

-- name: reference_checks_hasten
-- At once for open payments whose deadline the watch key's frontier has passed and their own has
-- not: they could expire, if only their own references were complete as well. As many as make for
-- ?4 that are due, the oldest deadlines first: after a long standstill they are a great many, and
-- a longer queue would not be done sooner. CROSS JOIN: the deadlines lead, not what is due.
UPDATE reference_checks SET due_at = ?3
WHERE payment_id IN (
    SELECT p.id FROM payments AS p INDEXED BY payments_open
    CROSS JOIN reference_checks AS c ON c.payment_id = p.id
    WHERE p.status IN ('pending', 'processing') AND p.watch_key = ?1 AND p.expires_at < ?2
      AND c.due_at > ?3
      AND NOT (p.status = 'processing' AND p.paid IN ('exact', 'over') AND p.late = 0)
      AND NOT EXISTS (
          SELECT 1 FROM cursors WHERE key = p.reference AND block_time > p.expires_at
      )
    ORDER BY p.expires_at
    LIMIT ?4 - (SELECT count(*) FROM (SELECT 1 FROM reference_checks WHERE due_at <= ?3 LIMIT ?4))
);

-- name: reference_check_end
DELETE FROM reference_checks WHERE payment_id = ?;


-- ------------------------------------------- cards: orders and charges at Paymob, and when to ask

-- name: card_order_insert
INSERT INTO card_orders (
    special_reference, payment_id, order_id, intention_id, checkout_url, created_at
) VALUES (?, ?, ?, ?, ?, ?);

-- name: card_order_learn
-- Their number of an order whose answer was lost. Once known it never changes: another one
-- makes the key NULL, which it refuses, and with it the whole batch.
UPDATE card_orders
SET order_id = ?2,
    special_reference = CASE WHEN coalesce(order_id, ?2) = ?2 THEN special_reference END
WHERE special_reference = ?1;

-- name: card_orders_by_ids
SELECT special_reference, payment_id, order_id, intention_id, checkout_url, created_at
FROM card_orders WHERE payment_id IN (SELECT value FROM json_each(?1))
ORDER BY payment_id, created_at, length(special_reference), special_reference;

-- name: card_payment_of_order
SELECT payment_id FROM card_orders WHERE order_id = ?;

-- name: charge_counts
SELECT state, count(*) FROM charges GROUP BY state;

-- name: charges_by_ids
SELECT id, payment_id, order_id, state, amount, refunded, made_at, seen_at, paid_at, updated_at
FROM charges WHERE payment_id IN (SELECT value FROM json_each(?1))
ORDER BY payment_id, id;

-- name: charges_as_read
-- The condition that all charges of a payment were read as they are (?2 is a JSON list with a
-- line for each), so that no decision rests on a part of them: otherwise the version becomes
-- NULL, which its column refuses, and with it the whole batch. Charges are never deleted.
UPDATE payments SET version = NULL
WHERE id = ?1 AND EXISTS (
    SELECT 1 FROM charges
    WHERE payment_id = ?1 AND NOT EXISTS (
        SELECT 1 FROM json_each(?2) AS known
        WHERE known.value = charges.id || ' ' || state || ' ' || refunded || ' '
            || coalesce(paid_at, '-')
    )
);

-- name: charge_save
-- A new one, or what became of one. Of another payment, order or amount than before, its state
-- becomes NULL, which its column refuses, and with it the whole batch.
INSERT INTO charges (
    id, payment_id, order_id, state, amount, refunded, made_at, seen_at, paid_at, updated_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET state = CASE
        WHEN payment_id = excluded.payment_id AND order_id = excluded.order_id
            AND amount = excluded.amount
        THEN excluded.state
    END,
    refunded = excluded.refunded, paid_at = excluded.paid_at, updated_at = excluded.updated_at;

-- name: payment_of_charge
SELECT payment_id FROM charges WHERE id = ?;

-- name: card_check_insert
INSERT INTO card_checks (payment_id, due_at) VALUES (?, ?);

-- name: card_checks_due
SELECT payment_id, due_at, asked FROM card_checks WHERE due_at <= ?1
ORDER BY due_at, payment_id LIMIT ?2;

-- name: card_check_answered
UPDATE card_checks SET due_at = ?2, asked = asked + 1 WHERE payment_id = ?1;

-- name: card_check_move
-- It was not answered: later, and what somebody asked for meanwhile stays.
UPDATE card_checks SET due_at = max(due_at, ?2) WHERE payment_id = ?1;

-- name: card_check_ask
-- Sooner, never later; a payment of which no news is expected stays without a check.
UPDATE card_checks SET due_at = ?2 WHERE payment_id = ?1 AND due_at > ?2;

-- name: card_check_end
DELETE FROM card_checks WHERE payment_id = ?;

-- name: card_audit_count
SELECT count(*) FROM payments
WHERE provider = 'paymob' AND created_at >= ?1 AND created_at <= ?2;

-- name: card_audit_page
-- Oldest first, after the payment (?3, ?4).
SELECT created_at, id FROM payments
WHERE provider = 'paymob' AND created_at >= ?1 AND created_at <= ?2
  AND (created_at, id) > (?3, ?4)
ORDER BY created_at, id
LIMIT ?5;


-- ----------------------------------------------- dead_letters: transactions that could not be read

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

-- name: dead_letters_holding
SELECT count(*) FROM dead_letters WHERE next_try_at IS NOT NULL;

-- name: dead_letters_count
SELECT count(*) FROM dead_letters;

-- name: dead_letters_summary
SELECT reason, next_try_at IS NULL, count(*) FROM dead_letters GROUP BY 1, 2;

-- name: dead_letters_listing
SELECT signature, key, slot, reason, detail, payload, attempts, next_try_at, created_at, updated_at
FROM dead_letters ORDER BY created_at DESC, signature LIMIT ?;

-- name: dead_letter_get
SELECT signature, key, slot, reason, detail, payload, attempts, next_try_at, created_at, updated_at
FROM dead_letters WHERE signature = ?;

-- name: dead_letters_among
SELECT signature, reason FROM dead_letters
WHERE signature IN (SELECT value FROM json_each(?1));

-- name: dead_letter_outcomes
-- What became of transactions that could be read after all.
SELECT v.signature, v.payment_id, v.credit, p.symbol, p.decimals, p.status
FROM verdicts AS v JOIN payments AS p ON p.id = v.payment_id
WHERE v.signature IN (SELECT value FROM json_each(?1))
ORDER BY v.signature, v.payment_id;

-- name: dead_letter_drop
-- The letter as it was at the very moment it went.
DELETE FROM dead_letters WHERE signature = ?
RETURNING signature, key, slot, reason, detail, payload, attempts, next_try_at, created_at,
    updated_at;


-- ------------------------------------------------------------ replays: runs, and how far they came

-- name: replay_begin
INSERT INTO replays (strategy, keys, first_slot, last_slot, report, started_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
RETURNING id;

-- name: replay_progress
UPDATE replays SET done_to = ?2, report = ?3, updated_at = ?4 WHERE id = ?1;

-- name: replay_finish
UPDATE replays SET done_to = ?2, report = ?3, updated_at = ?4, finished_at = ?4 WHERE id = ?1;

-- name: replays_unfinished
SELECT id, keys, done_to, report, started_at FROM replays
WHERE strategy = ?1 AND first_slot = ?2 AND last_slot = ?3 AND finished_at IS NULL
ORDER BY id DESC LIMIT ?4;


-- --------------------------------------------------------- audit: everything, to be reckoned again

-- name: audit_count
SELECT count(*) FROM payments
WHERE provider = 'solana' AND created_at >= ?1 AND created_at <= ?2;

-- name: audit_page
-- Oldest first, after the payment (?3, ?4).
SELECT created_at, id FROM payments
WHERE provider = 'solana' AND created_at >= ?1 AND created_at <= ?2
  AND (created_at, id) > (?3, ?4)
ORDER BY created_at, id
LIMIT ?5;

-- name: audit_events
SELECT payment_id, seq, type, version, ordinal, data FROM events
WHERE payment_id IN (SELECT value FROM json_each(?1))
ORDER BY payment_id, seq;

-- name: audit_frontiers
-- How far the keys are complete under which these payments are found.
SELECT key, slot, block_time, updated_at FROM cursors
WHERE key IN (
    SELECT reference FROM payments WHERE id IN (SELECT value FROM json_each(?1))
    UNION
    SELECT watch_key FROM payments WHERE id IN (SELECT value FROM json_each(?1))
);

-- name: audit_gaps
-- What is missing below those frontiers, and known to be.
SELECT key, first_slot, last_slot FROM gaps
WHERE closed_at IS NULL AND key IN (
    SELECT reference FROM payments WHERE id IN (SELECT value FROM json_each(?1))
    UNION
    SELECT watch_key FROM payments WHERE id IN (SELECT value FROM json_each(?1))
);

-- name: audit_log_holes
-- The first numbers up to the last one given that no event has, each with the last in a row.
WITH given (seq) AS (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events')
SELECT one.seq + 1 AS first,
    coalesce(
        (SELECT min(next.seq) - 1 FROM events AS next WHERE next.seq > one.seq),
        (SELECT seq FROM given)
    )
FROM (SELECT 0 AS seq UNION ALL SELECT seq FROM events) AS one
WHERE NOT EXISTS (SELECT 1 FROM events AS next WHERE next.seq = one.seq + 1)
  AND one.seq < (SELECT seq FROM given)
ORDER BY first
-- Each restore has left out one range, which is no loss.
LIMIT ?1 + (SELECT count(*) FROM deployment WHERE name GLOB 'events_skip_after_*');

-- name: audit_log_skipped
-- Event numbers that restores have left out: from behind the first up to the second.
SELECT CAST(substr(name, length('events_skip_after_') + 1) AS INTEGER), CAST(value AS INTEGER)
FROM deployment WHERE name GLOB 'events_skip_after_*';


-- ------------------------------------------------- webhook_events: what came in, and its audit trail

-- name: webhook_event_receive
-- A nonce that is known decides first: it may belong to another event, and then nothing changes.
INSERT INTO webhook_events (
    source, kind, dedupe_key, nonce, verdict, detail, body, headers, address, next_try_at,
    received_at, updated_at
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)
ON CONFLICT (source, nonce) DO UPDATE
SET repeats = repeats + (dedupe_key = excluded.dedupe_key),
    updated_at = CASE WHEN dedupe_key = excluded.dedupe_key
        THEN excluded.updated_at ELSE updated_at END
ON CONFLICT (source, dedupe_key) DO UPDATE
SET repeats = repeats + 1, updated_at = excluded.updated_at
RETURNING id, repeats, dedupe_key;

-- name: webhook_event_sample
INSERT INTO webhook_events (
    source, kind, dedupe_key, verdict, detail, body, headers, address, repeats, received_at,
    updated_at
) VALUES (?1, 'turned away', ?2, 'unauthenticated', ?3, x'', '{}', ?4, ?5, ?6, ?6)
ON CONFLICT (source, dedupe_key) DO UPDATE
SET repeats = repeats + excluded.repeats, detail = excluded.detail,
    updated_at = excluded.updated_at;

-- name: webhook_event_finish
UPDATE webhook_events
SET verdict = ?2, detail = ?3, attempts = attempts + 1, next_try_at = NULL, updated_at = ?4
WHERE id = ?1 AND verdict = 'waiting';

-- name: webhook_event_payment_insert
INSERT INTO webhook_event_payments (payment_id, event_id) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- name: webhook_event_again
UPDATE webhook_events SET attempts = ?2, next_try_at = ?3, detail = ?4, updated_at = ?5
WHERE id = ?1 AND verdict = 'waiting';

-- name: webhook_event_reopen
UPDATE webhook_events
SET verdict = 'waiting', detail = NULL, attempts = 0, next_try_at = ?2, updated_at = ?2
WHERE id = ?1 AND verdict IN ('done', 'ignored', 'refused', 'failed')
RETURNING id;

-- name: webhook_events_prune
DELETE FROM webhook_events
WHERE id IN (
    SELECT id FROM webhook_events
    WHERE received_at < ?1 AND verdict <> 'waiting' ORDER BY received_at LIMIT ?2
)
RETURNING id;

-- name: webhook_events_by_ids
-- In the order in which they came.
SELECT id, source, kind, dedupe_key, nonce, verdict, detail, headers, address, repeats, attempts,
    next_try_at, received_at, updated_at, length(body), (
        SELECT json_group_array(payment_id) FROM webhook_event_payments WHERE event_id = id
    ), body
FROM webhook_events WHERE id IN (SELECT value FROM json_each(?1)) ORDER BY id;

-- name: webhook_entries_by_ids
-- The same without the bodies, newest first.
SELECT id, source, kind, dedupe_key, nonce, verdict, detail, headers, address, repeats, attempts,
    next_try_at, received_at, updated_at, length(body), (
        SELECT json_group_array(payment_id) FROM webhook_event_payments WHERE event_id = id
    )
FROM webhook_events WHERE id IN (SELECT value FROM json_each(?1)) ORDER BY id DESC;

-- name: webhook_event_ids_waiting
-- In the order of the index, so that a long queue costs no more than a short one. The length of a
-- body is told without reading it.
SELECT id, length(body) FROM webhook_events INDEXED BY webhook_events_waiting
WHERE verdict = 'waiting' AND source = ?4 AND next_try_at <= ?1
  AND id % 16 IN (SELECT value FROM json_each(?5))
  AND id NOT IN (SELECT value FROM json_each(?2))
ORDER BY next_try_at, id LIMIT ?3;

-- name: webhook_event_ids
-- Newest first. The five differ in the index that leads them, so that none of them has to walk
-- past what it does not want. NULL leaves a filter out; ?3, ?4 and ?6 bound the page.
SELECT id FROM webhook_events WHERE id < ?6 ORDER BY id DESC LIMIT ?7;

-- name: webhook_event_ids_by_source
SELECT id FROM webhook_events WHERE source = ?1 AND id < ?6 ORDER BY id DESC LIMIT ?7;

-- name: webhook_event_ids_by_verdict
SELECT id FROM webhook_events
WHERE verdict = ?2 AND id < ?6 AND (?1 IS NULL OR source = ?1)
ORDER BY id DESC LIMIT ?7;

-- name: webhook_event_ids_by_time
-- Between the first and the last id of that time. The `+` has both looked up in the index of
-- times: it keeps them from being looked for along the ids.
SELECT id FROM webhook_events
WHERE id >= (SELECT min(+id) FROM webhook_events WHERE received_at >= ?3)
  AND id <= (SELECT max(+id) FROM webhook_events WHERE received_at < ?4)
  AND received_at >= ?3 AND received_at < ?4 AND id < ?6
  AND (?1 IS NULL OR source = ?1) AND (?2 IS NULL OR verdict = ?2)
ORDER BY id DESC LIMIT ?7;

-- name: webhook_event_ids_by_payment
SELECT id FROM webhook_events
WHERE id IN (SELECT event_id FROM webhook_event_payments WHERE payment_id = ?5)
  AND received_at >= ?3 AND received_at < ?4 AND id < ?6
  AND (?1 IS NULL OR source = ?1) AND (?2 IS NULL OR verdict = ?2)
ORDER BY id DESC LIMIT ?7;

-- name: webhook_event_oldest_waiting
-- The id from the index of what waits, so that no large row is read but one.
SELECT received_at FROM webhook_events WHERE id = (
    SELECT min(id) FROM webhook_events INDEXED BY webhook_events_waiting WHERE verdict = 'waiting'
);

-- name: webhook_event_counts
SELECT verdict, count(*) FROM webhook_events GROUP BY verdict;


-- ------------------------------------------------- leases: which indexers there are, and who does what

-- name: instance_beat
INSERT INTO instances (id, version, machine, process, started_at, beats, seen_at)
VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6)
ON CONFLICT (id) DO UPDATE SET beats = beats + 1, seen_at = excluded.seen_at;

-- name: leases_take
-- Of nobody, or of somebody who is not there: who left no row, or whose number did not change.
-- A token never goes back, also where the unit had a row that was deleted.
INSERT INTO leases (name, holder, token)
SELECT value, ?2, 1 + coalesce((SELECT token FROM leases WHERE name = 'deleted'), 0)
FROM json_each(?1) WHERE true
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = token + 1
WHERE NOT EXISTS (SELECT 1 FROM instances WHERE id = leases.holder)
   OR EXISTS (
       SELECT 1 FROM instances AS i JOIN json_each(?3) AS absent
       ON absent.key = i.id AND absent.value = i.beats WHERE i.id = leases.holder
   );

-- name: leases_give_back
UPDATE leases SET holder = '', token = token + 1
WHERE holder = ?2 AND name IN (SELECT value FROM json_each(?1));

-- name: leases_give_back_all
UPDATE leases SET holder = '', token = token + 1 WHERE holder = ?;

-- name: leases_delete_mark
-- The highest token of all rows that were ever deleted, these among them.
INSERT INTO leases (name, holder, token)
SELECT 'deleted', '', highest FROM (
    SELECT max(token) AS highest FROM leases
    WHERE holder = '' AND name IN (SELECT value FROM json_each(?1))
) WHERE highest IS NOT NULL
ON CONFLICT (name) DO UPDATE SET token = max(token, excluded.token);

-- name: leases_delete
DELETE FROM leases
WHERE holder = '' AND name <> 'deleted' AND name IN (SELECT value FROM json_each(?1));

-- name: instance_leave
DELETE FROM instances WHERE id = ?;

-- name: instances_forget
DELETE FROM instances
WHERE NOT EXISTS (SELECT 1 FROM leases WHERE holder = instances.id)
  AND EXISTS (
      SELECT 1 FROM json_each(?1) AS absent
      WHERE absent.key = instances.id AND absent.value = instances.beats
  );

-- name: lease_guard
-- Refuses the batch, as `payment_unchanged` does, when the work has changed hands, or is none any
-- more: a token cannot be NULL.
INSERT INTO leases (name, holder, token) SELECT ?1, ?2, NULL
WHERE NOT EXISTS (SELECT 1 FROM leases WHERE name = ?1 AND holder = ?2 AND token = ?3);

-- name: instances_all
SELECT id, version, machine, process, started_at, beats, seen_at FROM instances;

-- name: leases_all
SELECT name, holder, token FROM leases;


-- -------------------------------------------- health and measures: what the indexer says of itself

-- name: health_report
INSERT INTO health (instance, component, problem, since, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)
ON CONFLICT (component, instance) DO UPDATE
SET since = CASE WHEN problem IS excluded.problem THEN since ELSE excluded.since END,
    problem = excluded.problem, updated_at = excluded.updated_at;

-- name: health_forget
DELETE FROM health WHERE updated_at < ?1 AND instance <> ?2;

-- name: health_of_machine
-- What `instances` are called begins with the name of the machine and a colon.
SELECT max(updated_at) FROM health
WHERE component = ?1 AND substr(instance, 1, length(?2) + 1) = ?2 || ':';

-- name: health_all
-- And whether the process that said it is still there, as far as the others know.
SELECT component, problem, since, updated_at, instance,
    EXISTS (SELECT 1 FROM instances WHERE id = health.instance)
FROM health ORDER BY component, instance;

-- name: measure_report
INSERT INTO measures (instance, name, labels, kind, value, updated_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name, labels, instance) DO UPDATE
SET kind = excluded.kind, value = excluded.value, updated_at = excluded.updated_at;

-- name: measures_forget
DELETE FROM measures WHERE updated_at < ?;

-- name: measures_since
SELECT instance, name, labels, kind, value FROM measures WHERE updated_at >= ?
ORDER BY name, labels, instance;


-- ----------------------------------- api_keys and idempotency: who calls, and what was answered

-- name: api_key_insert
-- Not without the watch key that is meant for it (?8, by its name), where one is.
INSERT INTO api_keys (id, name, hash, scopes, created_at, expires_at, rate, watch_key)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, meant.key
FROM (SELECT 1) LEFT JOIN watch_keys AS meant
    ON meant.name = ?8 AND meant.purpose = 'reserved' AND meant.retired_at IS NULL
WHERE ?8 IS NULL OR meant.key IS NOT NULL
RETURNING watch_key;

-- name: api_key_free_name
-- A key that has ended by itself keeps nobody from its name.
UPDATE api_keys SET revoked_at = expires_at
WHERE name = ?1 AND revoked_at IS NULL AND expires_at <= ?2;

-- name: api_key_by_hash
SELECT id, name, scopes, created_at, revoked_at, expires_at, rate, watch_key FROM api_keys
WHERE hash = ?1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2);

-- name: api_keys_all
SELECT id, name, scopes, created_at, revoked_at, expires_at, rate, watch_key FROM api_keys
ORDER BY created_at, name;

-- name: api_key_revoke
UPDATE api_keys SET revoked_at = ?2 WHERE (id = ?1 OR name = ?1) AND revoked_at IS NULL
RETURNING id;

-- name: api_key_assign
-- To the reserved watch key of that name, if it is in use; NULL: to the shared ones.
UPDATE api_keys SET watch_key = meant.key
FROM (
    SELECT key FROM watch_keys WHERE name = ?2 AND purpose = 'reserved' AND retired_at IS NULL
    UNION ALL
    SELECT NULL WHERE ?2 IS NULL
) AS meant
WHERE (api_keys.id = ?1 OR api_keys.name = ?1) AND revoked_at IS NULL
RETURNING watch_key;

-- name: api_key_valid
SELECT id FROM api_keys WHERE (id = ?1 OR name = ?1) AND revoked_at IS NULL;

-- name: idempotency_find
SELECT fingerprint, status, headers, body, created_at FROM idempotency_keys
WHERE api_key_id = ? AND route = ? AND key = ?;

-- name: idempotency_claim
-- A lease for ?7 seconds, where nothing is answered yet and no lease of another's lasts. One that
-- ends later than any lease could (?8 seconds are the clocks apart at most) does not last either.
INSERT INTO idempotency_leases (api_key_id, route, key, fingerprint, holder, until)
SELECT ?1, ?2, ?3, ?4, ?5, ?6 + ?7
WHERE NOT EXISTS (
    SELECT 1 FROM idempotency_keys WHERE api_key_id = ?1 AND route = ?2 AND key = ?3
)
ON CONFLICT (api_key_id, route, key) DO UPDATE
SET fingerprint = excluded.fingerprint, holder = excluded.holder, until = excluded.until
WHERE until <= ?6 OR until > ?6 + ?7 + ?8;

-- name: idempotency_at_work
-- Whose lease lasts. The last parameter is for how long a lease may seem to last.
SELECT holder, fingerprint FROM idempotency_leases
WHERE api_key_id = ?1 AND route = ?2 AND key = ?3 AND until > ?4 AND until <= ?4 + ?5;

-- name: idempotency_renew
UPDATE idempotency_leases SET until = ?5
WHERE api_key_id = ?1 AND route = ?2 AND key = ?3 AND holder = ?4
RETURNING holder;

-- name: idempotency_release
DELETE FROM idempotency_leases
WHERE api_key_id = ?1 AND route = ?2 AND key = ?3 AND holder = ?4
RETURNING holder;

-- name: idempotency_insert
-- On the condition that the lease names the holder: otherwise the key becomes NULL, which its
-- column refuses, and with it the whole batch.
INSERT INTO idempotency_keys (
    api_key_id, route, key, fingerprint, status, headers, body, created_at
) VALUES (
    ?1,
    ?2,
    (SELECT key FROM idempotency_leases
     WHERE api_key_id = ?1 AND route = ?2 AND key = ?3 AND holder = ?4),
    ?5, ?6, ?7, ?8, ?9
);

-- name: idempotency_prune
-- A bounded number at a time: a write holds up all others.
DELETE FROM idempotency_keys
WHERE (api_key_id, route, key) IN (
    SELECT api_key_id, route, key FROM idempotency_keys
    WHERE created_at < ?1 ORDER BY created_at LIMIT ?2
);

-- name: idempotency_leases_prune
DELETE FROM idempotency_leases
WHERE (api_key_id, route, key) IN (
    SELECT api_key_id, route, key FROM idempotency_leases
    WHERE until < ?1 ORDER BY until LIMIT ?2
);


-- ---------------------------------------------------------------- deployment: what is decided once

-- name: deployment_get
SELECT value FROM deployment WHERE name = ?;

-- name: deployment_put
INSERT INTO deployment (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING;


-- ------------------------------------------------ numbering: what a restored database goes on from

-- name: numbering_note
-- Which numbers of events are left out; before the next statement, which forgets the last one.
INSERT INTO deployment (name, value)
SELECT 'events_skip_after_' || seq, ?1
FROM (SELECT coalesce(max(seq), 0) AS seq FROM sqlite_sequence WHERE name = 'events')
WHERE seq < ?1
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: numbering_go_on
UPDATE sqlite_sequence SET seq = ?1 WHERE seq < ?1;

-- name: numbering_begin
-- A table that never had a row has no number yet.
INSERT INTO sqlite_sequence (name, seq)
SELECT name, ?1 FROM sqlite_schema
WHERE type = 'table' AND sql LIKE '%PRIMARY KEY AUTOINCREMENT%'
  AND name NOT IN (SELECT name FROM sqlite_sequence);


-- ------------------------------------------- watch_keys: what stands beside a payment's reference

-- name: watch_key_take_in
-- The configured one, unless it is known; also one that was retired stays as it is.
INSERT INTO watch_keys (key, name, purpose, created_at, needed_until)
SELECT ?1, ?2, 'shared', ?3, coalesce(
    (SELECT max(expires_at + grace_s) FROM payments WHERE watch_key = ?1), 0
)
WHERE NOT EXISTS (SELECT 1 FROM watch_keys WHERE key = ?1);

-- name: watch_key_take_in_retired
-- One that the database had before it lost what it knew: watched, and for no new payment.
INSERT INTO watch_keys (key, name, purpose, created_at, retired_at)
SELECT ?1, ?2, 'shared', ?3, ?3
WHERE NOT EXISTS (SELECT 1 FROM watch_keys WHERE key = ?1);

-- name: watch_key_make_first
-- Where no payment could get one otherwise.
INSERT INTO watch_keys (key, name, purpose, created_at)
SELECT ?1, ?2, 'shared', ?3
WHERE NOT EXISTS (SELECT 1 FROM watch_keys WHERE purpose = 'shared' AND retired_at IS NULL);

-- name: watch_key_add
-- As long as fewer than ?5 are in use, and never one that payments know as something else.
INSERT INTO watch_keys (key, name, purpose, created_at)
SELECT ?1, ?2, ?3, ?4
WHERE (SELECT count(*) FROM watch_keys WHERE retired_at IS NULL) < ?5
  AND NOT EXISTS (SELECT 1 FROM payments WHERE reference = ?1)
  AND NOT EXISTS (
      SELECT 1 FROM payments INDEXED BY payments_by_amount
      WHERE status IN ('pending', 'processing', 'expired')
        AND coalesce(token_account, recipient) = ?1
  )
RETURNING key;

-- name: watch_key_retire
-- Never the last one that everybody may get.
UPDATE watch_keys SET retired_at = ?2
WHERE name = ?1 AND retired_at IS NULL AND (
    purpose = 'reserved' OR EXISTS (
        SELECT 1 FROM watch_keys AS other
        WHERE other.purpose = 'shared' AND other.retired_at IS NULL AND other.key <> watch_keys.key
    )
)
RETURNING key, name, purpose, created_at, retired_at;

-- name: watch_key_replace
-- The first of three: makes way for the one that takes its place.
UPDATE watch_keys SET retired_at = ?2 WHERE key = ?1 AND retired_at IS NULL RETURNING key;

-- name: watch_key_succeed
-- The second, under the name and for the purpose of the one that was retired just now, unless
-- somebody else has put another in its place.
INSERT INTO watch_keys (key, name, purpose, created_at)
SELECT ?2, name, purpose, ?3 FROM watch_keys AS old
WHERE old.key = ?1 AND old.retired_at = ?3 AND NOT EXISTS (
    SELECT 1 FROM watch_keys WHERE name = old.name AND retired_at IS NULL
)
RETURNING key, name, purpose, created_at, retired_at;

-- name: watch_key_move_callers
-- The third: whom the old one was reserved for gets the new one.
UPDATE api_keys SET watch_key = ?2
WHERE watch_key = ?1 AND EXISTS (SELECT 1 FROM watch_keys WHERE key = ?2);

-- name: watch_key_leave_callers
-- Whom a retired one was reserved for gets a shared one.
UPDATE api_keys SET watch_key = NULL
WHERE watch_key IN (SELECT key FROM watch_keys WHERE name = ?1 AND retired_at IS NOT NULL);

-- name: watch_keys_all
SELECT key, name, purpose, created_at, retired_at FROM watch_keys ORDER BY created_at, name, key;

-- name: watch_key_standing
-- What hangs on one key: open payments, how far the chain is known, whom it is reserved for.
SELECT
    (
        SELECT count(*) FROM payments INDEXED BY payments_open
        WHERE status IN ('pending', 'processing') AND watch_key = ?1
    ),
    (SELECT slot FROM cursors WHERE key = ?1),
    (SELECT block_time FROM cursors WHERE key = ?1),
    (
        SELECT json_group_array(name) FROM (
            SELECT name FROM api_keys WHERE watch_key = ?1 AND revoked_at IS NULL ORDER BY name
        )
    );


-- ------------------------------------------------------------------ webhooks out: their receivers

-- name: webhook_endpoint_create
-- One too many has a URL that is NULL, which its column refuses, and with it the whole batch.
INSERT INTO webhook_endpoints (
    id, url, event_types, description, signing_key, created_at, updated_at
)
SELECT ?1, CASE WHEN count(*) < ?7 THEN ?2 END, ?3, ?4, ?5, ?6, ?6
FROM webhook_endpoints WHERE state <> 'deleted'
RETURNING id;

-- name: webhook_endpoint_rotate
-- Only if nobody else rotated it since it was read: otherwise the generation becomes NULL, which
-- its column refuses, and with it the whole batch.
UPDATE webhook_endpoints
SET old_signing_key = signing_key, old_generation = generation, old_until = ?5,
    signing_key = ?3, generation = CASE WHEN generation = ?2 THEN ?2 + 1 END, updated_at = ?4
WHERE id = ?1 AND state <> 'deleted'
RETURNING id;

-- name: webhook_endpoint_enable
UPDATE webhook_endpoints
SET updated_at = CASE state WHEN 'enabled' THEN updated_at ELSE ?2 END,
    state = 'enabled', state_reason = NULL
WHERE id = ?1 AND state <> 'deleted'
RETURNING id;

-- name: webhook_endpoint_end
UPDATE webhook_endpoints SET state = ?2, state_reason = ?3, updated_at = ?4
WHERE id = ?1 AND state <> 'deleted' AND state <> ?2
RETURNING id;

-- name: webhook_deliveries_drop
-- What waits for a receiver that is not there any more.
UPDATE webhook_deliveries SET state = 'dropped', ended_at = ?2
WHERE endpoint_id = ?1 AND state = 'waiting'
  AND (SELECT state FROM webhook_endpoints WHERE id = ?1) <> 'enabled';

-- name: webhook_endpoint_get
SELECT id, url, event_types, description, state, state_reason, signing_key, generation,
    old_signing_key, old_generation, old_until, created_at, updated_at,
    (SELECT count(*) FROM webhook_deliveries WHERE endpoint_id = webhook_endpoints.id
        AND state = 'waiting'),
    (SELECT count(*) FROM webhook_deliveries WHERE endpoint_id = webhook_endpoints.id
        AND state = 'failed')
FROM webhook_endpoints WHERE id = ? AND state <> 'deleted';

-- name: webhook_endpoints_listing
SELECT id, url, event_types, description, state, state_reason, signing_key, generation,
    old_signing_key, old_generation, old_until, created_at, updated_at,
    (SELECT count(*) FROM webhook_deliveries WHERE endpoint_id = webhook_endpoints.id
        AND state = 'waiting'),
    (SELECT count(*) FROM webhook_deliveries WHERE endpoint_id = webhook_endpoints.id
        AND state = 'failed')
FROM webhook_endpoints WHERE state <> 'deleted' ORDER BY created_at, id;

-- name: webhook_endpoints_enabled
SELECT id, url, event_types, description, state, state_reason, signing_key, generation,
    old_signing_key, old_generation, old_until, created_at, updated_at
FROM webhook_endpoints WHERE state = 'enabled' ORDER BY id;


-- ----------------------------------------------------------------- webhooks out: their deliveries

-- name: webhook_deliveries_due
-- What one receiver is to be sent now. An event waits as long as an earlier one of its payment
-- does: `event_seq`, not `id`, is the order, because deliveries may be made up for later. What was
-- not tried yet is due at 0, whatever clock its writer had.
SELECT delivery.id, delivery.attempts,
    (SELECT count(*) FROM webhook_attempts WHERE delivery_id = delivery.id),
    coalesce(event.created_at, delivery.created_at), delivery.event_seq, delivery.payment_id,
    event.type, event.version, event.ordinal, event.data, payment.order_id
FROM webhook_deliveries AS delivery
LEFT JOIN events AS event ON event.seq = delivery.event_seq
LEFT JOIN payments AS payment ON payment.id = delivery.payment_id
WHERE delivery.endpoint_id = ?1 AND delivery.state = 'waiting' AND delivery.next_try_at <= ?2
  AND NOT EXISTS (
      SELECT 1 FROM webhook_deliveries AS earlier
      WHERE earlier.endpoint_id = ?1 AND earlier.payment_id = delivery.payment_id
        AND earlier.state = 'waiting' AND earlier.event_seq < delivery.event_seq
  )
ORDER BY delivery.next_try_at, delivery.id
LIMIT ?3;

-- name: webhook_deliveries_next
-- Of each receiver, among those that are not held back by an earlier one of their payment.
SELECT endpoint.value, (
    SELECT next_try_at FROM webhook_deliveries AS delivery
    WHERE endpoint_id = endpoint.value AND state = 'waiting'
      AND NOT EXISTS (
          SELECT 1 FROM webhook_deliveries AS earlier
          WHERE earlier.endpoint_id = endpoint.value AND earlier.payment_id = delivery.payment_id
            AND earlier.state = 'waiting' AND earlier.event_seq < delivery.event_seq
      )
    ORDER BY next_try_at LIMIT 1
) AS due_at
FROM json_each(?) AS endpoint WHERE due_at IS NOT NULL;

-- name: webhook_attempt_insert
INSERT INTO webhook_attempts (delivery_id, number, at, duration_ms, status, problem, response)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (delivery_id, number) DO NOTHING;

-- name: webhook_delivery_end
-- One that was dropped while it was under way, and arrived all the same, was delivered.
UPDATE webhook_deliveries SET state = ?2, ended_at = ?3, attempts = attempts + 1
WHERE id = ?1 AND (state = 'waiting' OR (state = 'dropped' AND ?2 = 'delivered'));

-- name: webhook_delivery_again
-- Written again because nobody knew whether it was, it counts once.
UPDATE webhook_deliveries SET next_try_at = ?2, attempts = attempts + 1
WHERE id = ?1 AND state = 'waiting' AND next_try_at <> ?2;

-- name: webhook_deliveries_hasten
-- Besides the schedule: the try that comes of it repeats the last one, and the pause after that.
-- Else a receiver that comes and goes would use up the tries of days within minutes.
UPDATE webhook_deliveries SET next_try_at = ?2, attempts = max(attempts - 1, 0)
WHERE endpoint_id = ?1 AND state = 'waiting' AND next_try_at > ?2;

-- name: webhook_deliveries_give_up
-- What a receiver that is not there has not taken for too long.
UPDATE webhook_deliveries SET state = 'failed', ended_at = ?3
WHERE endpoint_id = ?1 AND state = 'waiting' AND asked_at < ?2;

-- name: webhook_delivery_redeliver
UPDATE webhook_deliveries
SET state = 'waiting', attempts = 0, next_try_at = 0, asked_at = ?2, ended_at = NULL
WHERE id = ?1
  AND (SELECT state FROM webhook_endpoints WHERE id = webhook_deliveries.endpoint_id) = 'enabled'
RETURNING id;

-- name: webhook_deliveries_make_up
-- Deliveries of events of which a receiver has none, because it was disabled or not there yet.
INSERT INTO webhook_deliveries (
    endpoint_id, event_seq, payment_id, next_try_at, created_at, asked_at
)
SELECT endpoint.id, event.seq, event.payment_id, 0, ?3, ?3
FROM webhook_endpoints AS endpoint JOIN events AS event INDEXED BY events_by_age
WHERE endpoint.id = ?1 AND endpoint.state = 'enabled' AND event.created_at >= ?2 AND (
    endpoint.event_types = '[]'
    OR EXISTS (SELECT 1 FROM json_each(endpoint.event_types) WHERE value = event.type)
)
ORDER BY event.seq
ON CONFLICT (endpoint_id, event_seq) DO NOTHING;

-- name: webhook_deliveries_revive
-- Those of events from that time on that were given up or dropped.
UPDATE webhook_deliveries
SET state = 'waiting', attempts = 0, next_try_at = 0, asked_at = ?3, ended_at = NULL
WHERE endpoint_id = ?1 AND state IN ('failed', 'dropped')
  AND (SELECT created_at FROM events WHERE seq = event_seq) >= ?2
  AND (SELECT state FROM webhook_endpoints WHERE id = ?1) = 'enabled';

-- name: webhook_deliveries_waiting_since
SELECT count(*) FROM webhook_deliveries JOIN events ON events.seq = event_seq
WHERE endpoint_id = ?1 AND state = 'waiting' AND events.created_at >= ?2;

-- name: webhook_delivery_test
INSERT INTO webhook_deliveries (endpoint_id, next_try_at, created_at, asked_at)
SELECT id, 0, ?2, ?2 FROM webhook_endpoints WHERE id = ?1 AND state = 'enabled'
RETURNING id;

-- name: webhook_deliveries_prune
DELETE FROM webhook_deliveries
WHERE id IN (
    SELECT id FROM webhook_deliveries
    WHERE ended_at IS NOT NULL AND ended_at < ?1 ORDER BY ended_at LIMIT ?2
)
RETURNING id;

-- name: webhook_deliveries_page
-- Newest first. The three differ in the index that leads them; NULL leaves a filter out. What was
-- not tried yet is due since it was asked for.
SELECT delivery.id, endpoint_id, event_seq, delivery.payment_id, type, version, ordinal, state,
    attempts, coalesce(nullif(next_try_at, 0), asked_at), delivery.created_at, ended_at
FROM webhook_deliveries AS delivery LEFT JOIN events ON seq = event_seq
WHERE (?2 IS NULL OR state = ?2) AND (?4 IS NULL OR delivery.id < ?4)
ORDER BY delivery.id DESC LIMIT ?5;

-- name: webhook_deliveries_page_of_endpoint
SELECT delivery.id, endpoint_id, event_seq, delivery.payment_id, type, version, ordinal, state,
    attempts, coalesce(nullif(next_try_at, 0), asked_at), delivery.created_at, ended_at
FROM webhook_deliveries AS delivery LEFT JOIN events ON seq = event_seq
WHERE endpoint_id = ?1 AND (?2 IS NULL OR state = ?2) AND (?4 IS NULL OR delivery.id < ?4)
ORDER BY delivery.id DESC LIMIT ?5;

-- name: webhook_deliveries_page_of_payment
SELECT delivery.id, endpoint_id, event_seq, delivery.payment_id, type, version, ordinal, state,
    attempts, coalesce(nullif(next_try_at, 0), asked_at), delivery.created_at, ended_at
FROM webhook_deliveries AS delivery LEFT JOIN events ON seq = event_seq
WHERE delivery.payment_id = ?3 AND (?1 IS NULL OR endpoint_id = ?1)
  AND (?2 IS NULL OR state = ?2) AND (?4 IS NULL OR delivery.id < ?4)
ORDER BY delivery.id DESC LIMIT ?5;

-- name: webhook_delivery_get
SELECT delivery.id, endpoint_id, event_seq, delivery.payment_id, type, version, ordinal, state,
    attempts, coalesce(nullif(next_try_at, 0), asked_at), delivery.created_at, ended_at
FROM webhook_deliveries AS delivery LEFT JOIN events ON seq = event_seq
WHERE delivery.id = ?;

-- name: webhook_attempts_of
SELECT number, at, duration_ms, status, problem, response FROM webhook_attempts
WHERE delivery_id = ? ORDER BY number;

-- name: webhook_last_attempts
-- Of each receiver the last attempt at its youngest delivery that has one.
SELECT endpoint.value, number, at, duration_ms, status, problem, response
FROM json_each(?1) AS endpoint JOIN webhook_attempts AS attempt
WHERE attempt.delivery_id = (
    SELECT delivery.id FROM webhook_deliveries AS delivery
    WHERE delivery.endpoint_id = endpoint.value
      AND EXISTS (SELECT 1 FROM webhook_attempts WHERE delivery_id = delivery.id)
    ORDER BY delivery.id DESC LIMIT 1
)
AND attempt.number = (
    SELECT max(number) FROM webhook_attempts WHERE delivery_id = attempt.delivery_id
);

-- name: webhook_deliveries_given_up
-- Of receivers that are still to be told: a person has not looked at these.
SELECT count(*) FROM webhook_deliveries
WHERE state = 'failed'
  AND endpoint_id IN (SELECT id FROM webhook_endpoints WHERE state = 'enabled');

-- name: webhook_deliveries_counts
SELECT state, count(*) FROM webhook_deliveries GROUP BY state;

-- name: webhook_deliveries_oldest
SELECT min(created_at) FROM webhook_deliveries WHERE state = 'waiting';


-- --------------------------------------------------- writes: what became of batches without answer

-- name: revision_count
UPDATE revision SET value = value + 1 WHERE id = 1 RETURNING value;

-- name: revision_get
SELECT value FROM revision WHERE id = 1;

-- name: server_clock
-- What time it is where the database is; unix milliseconds.
SELECT CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER);

-- name: write_mark
-- Part of the batch itself: there when the batch was applied. Refused, and the batch with it, when
-- the number was taken away.
INSERT INTO writes (writer, number, state) VALUES (?, ?, 'applied');

-- name: writes_abandon
-- Takes the numbers of a JSON list away, those that are not there yet.
INSERT INTO writes (writer, number, state)
SELECT ?1, value, 'abandoned' FROM json_each(?2) WHERE true
ON CONFLICT (writer, number) DO NOTHING;

-- name: writes_applied
SELECT number FROM writes
WHERE writer = ?1 AND state = 'applied' AND number IN (SELECT value FROM json_each(?2));

-- name: writes_forget
-- What its writer knows of. Numbers that were taken away stay: their batches may still arrive.
DELETE FROM writes WHERE writer = ?1 AND number < ?2 AND state = 'applied';

-- name: writes_prune
-- Of writers that are gone, and numbers whose batches cannot be on their way any more.
DELETE FROM writes WHERE at < unixepoch() - 3600;
