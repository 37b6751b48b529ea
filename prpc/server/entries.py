"""What is asked of an entry before its call may run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from prpc.brokers.base import Delivery
from prpc.exceptions import BadArgumentsError
from prpc.protocol.facts import CallFacts
from prpc.server.logs import logger
from prpc.server.registry import RegisteredFunction

__all__ = ["ask_for", "id_of", "is_strict", "misfit"]


def ask_for(
    delivery: Delivery, message_id: UUID, facts: CallFacts, function: RegisteredFunction | None, then: Callable[[bool], None]
) -> asyncio.Future[bool]:
    """Ask the broker whether the entry may run; `then` is told. Where it is told False, nothing is left to do.

    `function`: None where no code of a user would run.
    """

    def claimed(answer: asyncio.Future[bool]) -> None:
        if answer.cancelled():
            return then(False)
        if (error := answer.exception()) is not None:
            logger.error("an entry could not be claimed, whoever takes it over will try again: %s", error)
            return then(False)
        if not answer.result():
            logger.warning("%s: another entry of this call came first, or another server has it; it is not run", message_id)
        return then(answer.result())

    idempotent = function is not None and function.idempotent
    # Readers tell the runs of a stream apart by the attempt, so its start is written down although it may run twice.
    repeatable = function is None or (idempotent and not function.streams)
    claim = delivery.claim(message_id, facts.reply_to, repeatable=repeatable, again=idempotent and facts.attempt > 1)
    future = asyncio.ensure_future(claim)
    future.add_done_callback(claimed)
    return future


def is_strict(facts: CallFacts, raw: bool) -> bool:
    """Whether annotations bind the caller.

    Clients of before name no reply address. Their servers never looked at annotations, so their calls go on as they did:
    what fits is converted, what does not is the function's own affair.
    """
    return facts.reply_to is not None or raw


def misfit(name: str, facts: CallFacts, streams: bool) -> BadArgumentsError | None:
    """The error for a caller that expects items where there is a result, or the other way round; None where all is well."""
    if facts.feeds and facts.reply_to is None:
        text = f"{name}() was sent a stream by a caller without a mailbox"
    elif streams and (facts.window is None or facts.reply_to is None):
        text = f"{name}() streams its items: call it through its generated stub, or by client.stream({name!r}, ...)"
    elif facts.window is not None and not streams:
        text = f"{name}() does not stream: call it through its generated stub, or by client.call({name!r}, ...)"
    else:
        return None
    return BadArgumentsError(text, function=name)


def id_of(text: str | None) -> UUID | None:
    """The id that a broken message names, if it can be read."""
    try:
        return None if text is None else UUID(text)
    except ValueError:
        return None
