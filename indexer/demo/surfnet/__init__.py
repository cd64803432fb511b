"""A real Solana runtime on this machine, for the demo and the tests.

`install` fetches the pinned runtime once into the cache folder, `launcher` runs it in a Node
process of its own. It speaks Solana's RPC and PubSub on random loopback ports, executes the real
programs, and forgets everything when it stops.
"""
