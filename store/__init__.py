"""The store: one database, and the few verbs that everybody uses of it."""
