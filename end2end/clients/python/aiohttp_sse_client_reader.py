"""Reads a stream with the PyPI package `aiohttp-sse-client`."""

import asyncio

import aiohttp
from aiohttp_sse_client.client import EventSource

from begin import headers, show, task


async def plain(url):
    async with EventSource(url) as source:
        async for event in source:
            yield event


async def events(url, cursor="earliest", headers={}, wait=2):
    # The default ends every stream after 5 minutes. Older versions read no lines of 128 KiB.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
    settings = {"timeout": timeout, "read_bufsize": 2**19, "raise_for_status": True}
    async with aiohttp.ClientSession(**settings) as session:
        while True:
            try:
                # Written exactly so, since the client sets it too.
                sent = {**headers, "Last-Event-Id": cursor}
                # By itself it would wait for 10 s and more.
                again = {"max_connect_retry": 0}
                async with EventSource(url, session=session, headers=sent, **again) as source:
                    async for event in source:
                        cursor = event.last_event_id or cursor
                        yield event
            except aiohttp.ClientResponseError as error:
                if error.status < 500:  # a proxy sends 502 while the server restarts
                    raise
            except (aiohttp.ClientError, asyncio.TimeoutError):
                pass
            await asyncio.sleep(wait)


async def main():
    try:
        url = task["url"]
        # The default wait would only make the test slow.
        reader = events(url, headers=headers, wait=0.2) if task["tuned"] else plain(url)
        async for event in reader:
            show(name=event.type or "message", id=event.last_event_id, data=event.data)
        show(closed="the iteration ended")
    except Exception as error:
        show(closed=repr(error))


asyncio.run(main())
