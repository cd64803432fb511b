"""`./run contract`: the published description against the served API, as deep as wanted.

Exit codes: 0 everything is as described, 1 something is not, 2 wrong usage.
"""

# ruff: noqa: T201 - a command prints

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.contract.fuzzer import examine, served


EXAMPLES: Final = 100
#: Of all operations together; each phase makes that many of each.
SECONDS_PER_EXAMPLE_MAX: Final = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, runs, tells; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="./run contract",
        description="Calls every operation of the API with data that its description allows and "
        "data that it forbids, and holds each answer against the description.",
    )
    parser.add_argument(
        "--examples",
        type=_count,
        default=EXAMPLES,
        help=f"cases of each phase for each operation (default {EXAMPLES}; the tests take 10)",
    )
    parser.add_argument(
        "--seed", type=int, help="makes other cases than those that are the same each time"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="OPERATION", help="this one alone, by name"
    )
    options = parser.parse_args(arguments)
    began_at = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="axiompay-contract-") as folder,
        served(Path(folder)) as api,
    ):
        found = examine(
            api,
            Path(folder),
            examples=options.examples,
            seed=options.seed,
            only=tuple(options.only),
            timeout_s=SECONDS_PER_EXAMPLE_MAX * max(10, options.examples),
            shown=True,
        )
        complaints = Counter(line["event"] for line in api.complaints())
    if not found.report:
        return 1
    tested = found.report["operations"]["tested"]
    print(f"{tested} operations, {found.cases} cases, {time.monotonic() - began_at:.0f} s")
    for event, count in complaints.items():
        print(f"logged {count} times: {event}")
    unreached = found.unreached()
    if unreached:
        print(f"never succeeded: {', '.join(unreached)}")
    return 0 if found.succeeded and not unreached else 1


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
