"""A disk that can be full: SQLite's files, as ever, until a test says that there is no room.

with Disk() as disk:
    database = await open_database(url)
    disk.full = True        # every write is refused from now on
    disk.full = False       # there is room again
"""

from types import TracebackType
from typing import Any, Final, Self

import apsw


_NAME: Final = "disk that can be full"


class Disk:
    """What every connection opened inside writes to. A context manager.

    Attributes:
        full: writes are refused, as the system refuses them.
        refused: how many were.
    """

    def __init__(self) -> None:
        self.full = False
        self.refused = 0
        self._vfs: apsw.VFS | None = None

    def __enter__(self) -> Self:
        disk, below = self, apsw.vfs_names()[0]

        class File(apsw.VFSFile):
            def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - the library's name
                if disk.full:
                    disk.refused += 1
                    raise apsw.FullError("no room")
                super().xWrite(data, offset)

        class Vfs(apsw.VFS):
            def __init__(self) -> None:
                super().__init__(_NAME, below, makedefault=True)

            def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - the same
                return File(below, name, flags)

        self._vfs = Vfs()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._vfs is not None
        self._vfs.unregister()
        before = next(name for name in apsw.vfs_names() if name != _NAME)
        apsw.set_default_vfs(before)
