"""`axiompay indexer` that beats faster than people need.

Work changes hands in beats, and who waits for that in a test shall not wait for long. For how long
one that is silent keeps its work is as ever.
"""

import sys
from typing import Final

from indexer import tenure
from indexer.cli import main


#: Seconds between two beats of every process.
BEAT_S: Final = 0.4


if __name__ == "__main__":
    tenure.BEAT_S = BEAT_S  # type: ignore[misc]  # a shorter wait
    sys.exit(main(["indexer"]))
