"""A whole Axiom Pay on a local Solana runtime, for stories from beginning to end."""
