"""A real libSQL server on this machine, for the cluster of the demonstration and the tests."""
