"""The indexer: watches the chain and settles payments."""
