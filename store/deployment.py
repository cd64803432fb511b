"""Facts about this deployment that are written once, such as `genesis_hash`."""

from store.database import Database, Statement
from store.queries import QUERIES


async def get(database: Database, name: str) -> str | None:
    """The fact; None when it was never written."""
    [found] = await database.read([Statement(QUERIES["deployment_get"], (name,))])
    return str(found[0][0]) if found else None


async def put_once(database: Database, name: str, value: str) -> str:
    """Writes the fact if nobody has, and returns what stands: the first one wins."""
    _, found = await database.write(
        [
            Statement(QUERIES["deployment_put"], (name, value)),
            Statement(QUERIES["deployment_get"], (name,)),
        ]
    )
    return str(found[0][0])
