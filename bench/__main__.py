"""Runs all benchmarks, or the ones named: `python -m bench [NAME …]`."""

import sys
from importlib import import_module
from typing import Final


#: Modules of this package, each with a `main()`, and what it measures. `libsql_client_turns` is a
#: child of one of them, in an environment of its own.
BENCHMARKS: Final = {
    "sqlite_drivers": "durable commits and reads: the store beside aiosqlite",
    "writers": "one writer's rate: a file beside a libSQL server",
    "durability": "syncs for each commit, seen by strace: a file beside a libSQL server",
    "replicas": "API reads on a libSQL server with none, one and two replicas",
    "many_open": "the statements of the store beside a great many open payments",
    "libsql_drivers": "batches and reads on a libSQL server: libsql-client beside the store",
    "rpc_clients": "getTransaction: HTTP clients for JSON-RPC",
    "blocks": "full blocks matched against 100,000 open payments: replay by blocks",
    "limiter": "rate limits: what counting a request costs, in process and in Redis",
    "deliveries": "webhooks a second to one receiver, alone and beside a slow and a dead one",
    "settle": "from finalized payments on a real runtime to settled payments in the store",
}


def main(names: list[str]) -> int:
    """Exit code: 0 all ran, 2 there is no such benchmark."""
    if unknown := [name for name in names if name not in BENCHMARKS]:
        print(f"no benchmark {', '.join(unknown)}; there are:", file=sys.stderr)
        for name, what in BENCHMARKS.items():
            print(f"  {name:16} {what}", file=sys.stderr)
        return 2
    for name in names or BENCHMARKS:
        print(f"# {name}: {BENCHMARKS[name]}", flush=True)
        import_module(f"bench.{name}").main()
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
