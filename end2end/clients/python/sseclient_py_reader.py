"""Reads a stream with the PyPI packages `sseclient-py` and `requests`."""

import time

import requests
import sseclient

from begin import headers, show, task


def plain(url):
    yield from sseclient.SSEClient(requests.get(url, stream=True)).events()


def events(url, cursor="earliest", headers={}, wait=2):
    while True:
        try:
            sent = {**headers, "Last-Event-ID": cursor}
            # Without a timeout it waits for ever on a connection that died silently.
            with requests.get(url, headers=sent, stream=True, timeout=(10, 60)) as response:
                if response.status_code == 204:  # the end, with a limit
                    return
                if response.status_code < 500:  # a proxy sends 502 while the server restarts
                    response.raise_for_status()
                    for event in sseclient.SSEClient(response.iter_content(None)).events():
                        cursor = event.id or cursor
                        wait = int(event.retry) / 1000 if event.retry else wait
                        yield event
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            pass
        time.sleep(wait)


try:
    for event in events(task["url"], headers=headers) if task["tuned"] else plain(task["url"]):
        show(name=event.event, id=event.id, data=event.data)
    show(closed="the iteration ended")
except Exception as error:
    show(closed=repr(error))
