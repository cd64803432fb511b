"""The chain side: what was asked of nodes, and what they rang about.

    doorbells ← pubsub        "look at this signature": may be lost, doubled, or wrong
    truth     ← rpc           the transaction itself, proven final, from k of n nodes
                rpc           fail-over and retries over several endpoints
                heads         which endpoint is late, and whether the chain stands still
                endpoint      one URL: connections and health
                gate          one URL: how much at once, by priority
                wire · retry  pure: bytes of JSON-RPC, what an error means, how long to wait

Nothing here knows the database. A log notification is never a fact; the absence of an answer
is never "not paid".
"""
