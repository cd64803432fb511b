"""A transaction as it is: fetched, decoded, proven final, agreed on by k of n endpoints.

**Final is proven, not asked for.** The `commitment` of a request is not believed: some servers
ignore it. A transaction is final when its slot is no higher than a finalized slot that the same
endpoint had named *before* it gave the transaction: had that slot been named after, a fork
could have been dropped in between, and the transaction with it.

**Nothing is read out of nothing.** Null, or a slot that is not final yet, is `Absent`: ask
again later. Another endpoint may know more, so the others are asked first.
"""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from indexer.core.decode import decode_transaction
from indexer.core.transaction import Transaction, Undecided
from indexer.core.types import Commitment
from indexer.errors import DecodeError, SourceError, SourceUnavailable
from indexer.sources.endpoint import Endpoint
from indexer.sources.failover import CALL_S_MAX, ROUNDS_MAX
from indexer.sources.retry import backoff, is_retryable
from indexer.sources.rpc import Rpc


#: Endpoints that must say that they know nothing of a signature, where there are as many.
DENIALS_MIN: Final = 2

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Absent:
    """Not there, or not final yet: nothing may be concluded.

    Attributes:
        seen_slot: where it was found, not final; None when it was not found at all.
    """

    signature: str
    seen_slot: int | None


class QuorumNotReached(SourceUnavailable):
    """Fewer endpoints than asked for gave the same transaction."""


async def read_transaction(
    rpc: Rpc, signature: str, commitment: Commitment, *, min_slot: int | None = None
) -> Transaction | Undecided | Absent:
    """The transaction, proven to have the commitment asked for.

    At `finalized`, `rpc.quorum` endpoints must agree on everything but `block_time` and
    `index`, which nodes estimate or leave out. At `confirmed` the first answer is enough: it is
    shown to people, never settled on. `min_slot`, where the transaction is believed to be, saves
    a request when it is right and costs one when it is wrong.

    Raises:
        QuorumNotReached: endpoints disagree, or too few of them answered.
        SourceUnavailable, SourceRejected: no endpoint answered.
        DecodeError: every endpoint's answer was unreadable; carries one of them.
    """
    try:
        async with asyncio.timeout(CALL_S_MAX):
            return await _read(rpc, signature, commitment, min_slot or 0)
    except TimeoutError as error:
        raise SourceUnavailable(f"{signature}: no answer within {CALL_S_MAX:g} s") from error


async def is_forgotten(rpc: Rpc, signature: str, slot: int) -> bool:
    """Too few endpoints to be believed have any memory of a signature that should be final.

    As many as must agree deny it (two at the least, where there are as many), and fewer than
    that affirm it. Only those count whose finalized slot has reached `slot`. An endpoint that
    does not answer says nothing.

    Raises:
        SourceUnavailable: every endpoint rests.
    """
    denials, known = 0, 0
    for endpoint in await rpc.awake():
        try:
            final_slot = await endpoint.finalized_slot(at_least=slot)
            [status] = await rpc.signature_statuses(
                [signature], search_history=True, endpoint=endpoint
            )
        except SourceError as error:
            _log.info("signature.not_said", endpoint=endpoint.name, error=str(error))
            continue
        if status is not None:
            known += 1
        else:
            denials += final_slot >= slot
    wanted = max(min(DENIALS_MIN, len(rpc.endpoints)), rpc.quorum)
    return known < rpc.quorum and denials >= wanted


async def _read(
    rpc: Rpc, signature: str, commitment: Commitment, min_slot: int
) -> Transaction | Undecided | Absent:
    """Goes round the endpoints until something can be said, or `ROUNDS_MAX` is reached."""
    wanted = rpc.quorum if commitment is Commitment.FINALIZED else 1
    delays = backoff(rpc.draw)
    for _ in range(ROUNDS_MAX - 1):
        answers = _Answers(signature, wanted)
        await _ask_round(rpc, answers, commitment, min_slot)
        if not answers.may_change:
            return answers.conclusion()
        await asyncio.sleep(next(delays))
    answers = _Answers(signature, wanted)
    await _ask_round(rpc, answers, commitment, min_slot)
    return answers.conclusion()


async def _ask_round(rpc: Rpc, answers: "_Answers", commitment: Commitment, min_slot: int) -> None:
    """As many endpoints at once as must agree, then the others one by one while it matters."""

    async def ask(endpoint: Endpoint) -> None:
        try:
            answer = await _ask(rpc, endpoint, answers.signature, commitment, min_slot)
        except (SourceError, DecodeError) as error:
            answers.errors.append(error)
        else:
            answers.add(endpoint, answer)

    awake = await rpc.awake()
    if len(awake) < answers.wanted:
        too_few = f"{answers.signature}: {len(awake)} endpoints awake, {answers.wanted} must agree"
        answers.errors.append(QuorumNotReached(too_few))
        return
    if answers.wanted > 1:
        await asyncio.gather(*(ask(endpoint) for endpoint in awake[: answers.wanted]))
        awake = awake[answers.wanted :]
    for endpoint in awake:
        if answers.agreed is not None:
            return
        await ask(endpoint)


async def _ask(
    rpc: Rpc, endpoint: Endpoint, signature: str, commitment: Commitment, min_slot: int
) -> Transaction | Undecided | Absent:
    """What one endpoint says; at `finalized` only what it proves."""
    if commitment is not Commitment.FINALIZED:
        return await _fetch(rpc, endpoint, signature, commitment)
    for _ in range(2):
        final_slot = await endpoint.finalized_slot(at_least=min_slot)
        answer = await _fetch(rpc, endpoint, signature, commitment)
        if not isinstance(answer, Transaction) or answer.slot <= final_slot:
            return answer
        min_slot = answer.slot
        if await endpoint.finalized_slot(at_least=min_slot) < min_slot:
            break
        # Final by now, but was it when it was read? Read it once more.
    return Absent(signature, min_slot)


async def _fetch(
    rpc: Rpc, endpoint: Endpoint, signature: str, commitment: Commitment
) -> Transaction | Undecided | Absent:
    # Not `jsonParsed`: it drops the extra accounts of a transfer, and with them the references.
    options = {"commitment": commitment, "encoding": "json"}
    raw = await rpc.call_versioned("getTransaction", signature, options, endpoint)
    if raw == b"null":
        return Absent(signature, None)
    return decode_transaction(raw, signature=signature)


@dataclass(slots=True)
class _Answers:
    """What the endpoints said of one transaction in one round."""

    signature: str
    wanted: int
    found: list[tuple[Endpoint, Transaction]] = field(default_factory=list)
    absent: Absent | None = None
    undecided: Undecided | None = None
    errors: list[SourceError | DecodeError] = field(default_factory=list)

    def add(self, endpoint: Endpoint, answer: Transaction | Undecided | Absent) -> None:
        if isinstance(answer, Transaction):
            self.found.append((endpoint, answer))
        elif isinstance(answer, Undecided):
            self.undecided = answer
        elif self.absent is None or answer.seen_slot is not None:
            self.absent = answer

    @property
    def agreed(self) -> Transaction | None:
        """The first of enough equal ones."""
        if self.wanted == 1:
            return self.found[0][1] if self.found else None
        for group in self._groups():
            if len(group) >= self.wanted:
                return group[0][1]
        return None

    @property
    def may_change(self) -> bool:
        """Nothing can be said yet, and an endpoint that failed may tell in a moment."""
        if self.agreed is not None or self.absent is not None or len(self._groups()) > 1:
            return False
        return any(is_retryable(error) for error in self.errors)

    def conclusion(self) -> Transaction | Undecided | Absent:
        """What follows from all of it; see `read_transaction`."""
        agreed, groups = self.agreed, self._groups()
        sides = [[endpoint.name for endpoint, _ in group] for group in groups]
        if len(groups) > 1:
            outvoted = agreed is not None
            _log.error(
                "quorum.disagreement", signature=self.signature, sides=sides, outvoted=outvoted
            )
        if agreed is not None:
            return agreed
        if len(groups) > 1:
            raise QuorumNotReached(f"{self.signature}: endpoints disagree about it: {sides}")
        if self.absent is not None:
            seen = [transaction.slot for _, transaction in self.found]
            return replace(self.absent, seen_slot=max(seen)) if seen else self.absent
        if self.found:
            raise QuorumNotReached(
                f"{self.signature}: {len(self.found)} of {self.wanted} endpoints answered"
            ) from next(iter(self.errors), None)
        for kind in (SourceUnavailable, DecodeError):
            for error in self.errors:
                if isinstance(error, kind):
                    raise error
        if self.undecided is not None:
            return self.undecided
        raise self.errors[0]

    def _groups(self) -> list[list[tuple[Endpoint, Transaction]]]:
        """Those that say the same, together; in the order of the endpoints."""
        groups: dict[Transaction, list[tuple[Endpoint, Transaction]]] = {}
        for endpoint, transaction in self.found:
            same = replace(transaction, block_time=None, index=None)
            groups.setdefault(same, []).append((endpoint, transaction))
        return list(groups.values())
