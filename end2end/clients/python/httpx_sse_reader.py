"""Reads a stream with the PyPI package `httpx-sse`."""

import time

import httpx
from httpx_sse import connect_sse

from begin import headers, show, task


def plain(url):
    with httpx.Client() as client, connect_sse(client, "GET", url) as source:
        yield from source.iter_sse()


def events(url, cursor="earliest", headers={}, wait=2):
    # Heartbeats come every 15 s, and the default limit is 5 s.
    with httpx.Client(timeout=httpx.Timeout(10, read=60)) as client:
        while True:
            try:
                sent = {**headers, "Last-Event-ID": cursor}
                with connect_sse(client, "GET", url, headers=sent) as source:
                    status = source.response.status_code
                    if status == 204:  # the end, with a limit
                        return
                    if status < 500:  # a proxy sends 502 while the server restarts
                        source.response.raise_for_status()
                        for event in source.iter_sse():
                            cursor = event.id or cursor
                            wait = event.retry / 1000 if event.retry else wait
                            yield event
            except httpx.TransportError:
                pass
            time.sleep(wait)


try:
    for event in events(task["url"], headers=headers) if task["tuned"] else plain(task["url"]):
        show(name=event.event, id=event.id, data=event.data)
    show(closed="the iteration ended")
except Exception as error:
    show(closed=repr(error))
