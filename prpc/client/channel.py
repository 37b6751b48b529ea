"""One queue of one broker as this process reaches it: a pump in each loop that calls, and one behind plain code."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

from prpc.brokers import adapter_of
from prpc.brokers.base import ServerRecord
from prpc.call_context import inherited_timeout
from prpc.client.call import Call
from prpc.client.client import CallPump
from prpc.client.feeds import PLAIN, Feeding, take_out
from prpc.client.middleware import Layers, Middleware, OutgoingCall
from prpc.client.options import CallOptions
from prpc.client.portal import current_portal, guard, running_loop
from prpc.client.readings import Reading, StreamCall
from prpc.client.track import Track
from prpc.codec import Codec, Limits
from prpc.exceptions import ConfigurationError
from prpc.protocol.repeats import RepeatPolicy, Repeats
from prpc.prpcmessage import PRPCMessage
from prpc.settings import Settings

__all__ = ["Channel", "default_channel", "set_default_channel", "swap_default_channel"]


#: Whether all these types are of values that are no streams: every call passes here.
_are_plain = PLAIN.issuperset


class Channel:
    """Settings, codec and middleware, and the pumps made from them as they are needed. For any thread and any loop."""

    def __init__(self, settings: Settings, middleware: Sequence[Middleware] = ()) -> None:
        self.settings = settings
        self._middleware = tuple(middleware)
        self._codec = Codec(Limits(settings.max_message_bytes, settings.max_message_depth, settings.max_message_items))
        self._policy = RepeatPolicy(
            settings.call_retries, settings.call_attempt_timeout, settings.call_backoff, settings.call_backoff_max
        )
        self._pumps: dict[asyncio.AbstractEventLoop, CallPump] = {}
        #: The pump in the background loop, for plain code.
        self._plain: CallPump | None = None

    def pump(self) -> CallPump:
        """The pump of the running loop; in plain code the one in the background loop."""
        loop = running_loop()
        pump = self._plain if loop is None else self._pumps.get(loop)
        return pump if pump is not None and pump.usable else self._make(loop)

    def _make(self, running: asyncio.AbstractEventLoop | None) -> CallPump:
        with guard():
            loop = current_portal().loop if running is None else running
            self._pumps = {key: pump for key, pump in self._pumps.items() if pump.usable}
            pump = self._pumps.get(loop)
            if pump is None:
                pump = self._pumps[loop] = CallPump(self.settings, self._codec, loop)
                # Here and not in the pump's thread: a process that forks would leave its child with half a module.
                with suppress(ConfigurationError):  # which connecting raises, as the call's outcome
                    adapter_of(self.settings.type_broker)
            if running is None:
                self._plain = pump
            return pump

    def submit(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        schema: str | None = None,
        reading: Reading | None = None,
    ) -> Call:
        """Send a call without waiting. Raises EncodeError where an argument cannot be written."""
        pump = self.pump()
        plain = _are_plain(map(type, args)) and (not kwargs or _are_plain(map(type, kwargs.values())))
        if self._middleware or reading is not None or not plain:
            return self._submit_any(pump, name, args, kwargs, options, schema, reading)
        call = self._call(pump, uuid4(), name, args, kwargs, options, schema, None)
        if options.idempotent:
            self._set_repeats(call, options)
        pump.submit(call)
        return call

    def _submit_any(
        self,
        pump: CallPump,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        schema: str | None,
        reading: Reading | None,
    ) -> Call:
        args, kwargs, streams = take_out(args, kwargs)
        feeding = Feeding(streams, in_loop=running_loop() is not None) if streams else None
        if self._middleware:
            return self._submit_layered(pump, name, args, kwargs, options, schema, reading, feeding)
        message_id = uuid4() if reading is None else reading.key[0]
        call = self._call(pump, message_id, name, args, kwargs, options, schema, reading)
        if reading is not None:
            reading.call = weakref.ref(call)
        call.feeds = feeding
        if options.idempotent and feeding is None:
            self._set_repeats(call, options)
        pump.submit(call)
        return call

    def submit_stream(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: CallOptions, schema: str | None = None
    ) -> StreamCall:
        """Send the call of a streaming function, whose items come to its `reading`. Raises like `submit`."""
        call = self.submit(name, args, kwargs, options, schema, Reading(uuid4(), self.settings.stream_window))
        assert isinstance(call, StreamCall)
        return call

    def _set_repeats(self, call: Call, options: CallOptions) -> None:
        policy = options.policy(self._policy)
        if policy.retries:
            call.repeats = Repeats(policy, call.expires)

    def _call(
        self,
        pump: CallPump,
        message_id: UUID,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        schema: str | None,
        reading: Reading | None,
    ) -> Call:
        message = PRPCMessage(name, tuple(args), dict(kwargs), message_id, datetime.now(UTC))
        body = self._codec.write_call(message)
        if reading is None:
            call = Call(message, body, options, schema, pump)
        else:
            call = StreamCall(message, body, options, schema, pump, reading)
        self._set_deadline(call)
        return call

    def _set_deadline(self, call: Call) -> None:
        timeout = call.options.timeout
        if timeout is None and call.window is None:  # streams without end are usual
            timeout = self.settings.call_timeout
        left = inherited_timeout()
        if left is not None and (timeout is None or left < timeout):
            timeout = left
        if timeout is not None:
            call.timeout = timeout
            call.expires = monotonic() + timeout

    def _submit_layered(
        self,
        pump: CallPump,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        schema: str | None,
        reading: Reading | None,
        feeding: Feeding | None,
    ) -> Call:
        layers = Layers(pump, self._middleware)
        message_id = uuid4() if reading is None else reading.key[0]
        message = PRPCMessage(name, tuple(args), dict(kwargs), message_id, datetime.now(UTC))
        if reading is None:
            call = Call(message, None, options, schema, layers)
        else:
            call = StreamCall(message, None, options, schema, layers, reading)
            reading.call = weakref.ref(call)
        call.feeds = feeding
        self._set_deadline(call)
        layers.submit(call, partial(self._send_layered, pump, call))
        return call

    def _send_layered(self, pump: CallPump, outer: Call, changed: OutgoingCall) -> Call:
        options = replace(outer.options, timeout=None, headers=dict(changed.headers))
        reading = outer.reading if isinstance(outer, StreamCall) else None
        call = self._call(pump, outer.message_id, changed.function, changed.args, changed.kwargs, options, outer.schema, reading)
        call.timeout, call.expires, call.feeds = outer.timeout, outer.expires, outer.feeds
        call.track = outer.track = outer.track or Track()
        if options.idempotent and outer.feeds is None:
            self._set_repeats(call, options)
        pump.submit(call)
        return call

    async def servers(self) -> Sequence[ServerRecord]:
        """The servers that announce themselves on the queue now, asked in the running loop."""
        return await self.pump().servers()

    async def close(self) -> None:
        """Flush and close every pump, wherever it lives. Later calls make new ones."""
        with guard():
            pumps, self._pumps, self._plain = list(self._pumps.values()), {}, None
        here = running_loop()
        for pump in pumps:
            if not pump.usable:
                continue
            if pump.loop is here:
                await pump.close()
            elif pump.loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(pump.close(), pump.loop))

    def close_from_plain_code(self) -> None:
        """`close` for plain code. The pump of a loop that runs in this very thread closes as that loop goes on."""
        loop = running_loop()
        if loop is not None:
            with guard():
                pump = self._pumps.pop(loop, None)
            if pump is not None and pump.usable:
                pump.close_soon()
        if self._pumps:
            current_portal().run(self.close())


_default: Channel | None = None


def default_channel() -> Channel:
    """The channel of calls that name no client: from the environment, made on first use."""
    global _default
    if _default is None:
        with guard():
            if _default is None:
                _default = Channel(Settings.from_env())
    return _default


def set_default_channel(channel: Channel | None) -> None:
    """Replace the default; None: read the environment anew on next use."""
    swap_default_channel(channel)


def swap_default_channel(channel: Channel | None) -> Channel | None:
    """As `set_default_channel`; returns the former default, None where there was none yet."""
    global _default
    former, _default = _default, channel
    return former
