"""Equal questions at once are one: the first asks, the others wait for the same answer.

Whoever gives up leaves the others alone, the first one too: the question is a task of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar


_T = TypeVar("_T")


@dataclass(slots=True)
class _Question(Generic[_T]):
    """One that is under way."""

    task: asyncio.Task[_T]
    waiting: int = 0


class Merging(Generic[_T]):
    """The questions that are under way."""

    def __init__(self, name: str, *, goes_on: bool) -> None:
        """Nothing is under way.

        Args:
            name: of the tasks.
            goes_on: also when nobody waits any more, because what comes of it is kept.
        """
        self._name = name
        self._goes_on = goes_on
        self._questions: dict[Hashable, _Question[_T]] = {}

    def __len__(self) -> int:
        return len(self._questions)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._questions

    async def run(self, key: Hashable, ask: Callable[[], Awaitable[_T]]) -> _T:
        """What `ask` returns or raises, called now or by whoever asked the same before.

        It must come to an end by itself: here nobody sets it a limit.
        """
        question = self._questions.get(key)
        if question is None:
            question = self._begin(key, ask)
        question.waiting += 1
        try:
            return await asyncio.shield(question.task)
        finally:
            question.waiting -= 1
            if not (question.waiting or self._goes_on or question.task.done()):
                self._forget(key, question)  # who asks now must not get a canceled answer
                question.task.cancel()

    async def close(self) -> None:
        """Ends all that is under way."""
        tasks = [question.task for question in self._questions.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: Hashable, ask: Callable[[], Awaitable[_T]]) -> _Question[_T]:
        async def asked() -> _T:
            return await ask()

        question = _Question(asyncio.create_task(asked(), name=self._name))
        self._questions[key] = question
        question.task.add_done_callback(lambda _: self._ended(key, question))
        return question

    def _ended(self, key: Hashable, question: _Question[_T]) -> None:
        self._forget(key, question)
        if not question.task.cancelled():
            question.task.exception()  # of a failure that nobody waited for, nobody is told

    def _forget(self, key: Hashable, question: _Question[_T]) -> None:
        if self._questions.get(key) is question:
            del self._questions[key]
