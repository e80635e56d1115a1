"""What Schemathesis must know about the server beyond its OpenAPI document."""

import json
import re
import time

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def line_of_json(context, value):
    return json.dumps(value).encode()


# A request with one line has an answer with one line.
@schemathesis.deserializer("application/x-ndjson")
def answer_to_line(context, response):
    return json.loads(response.content)


@schemathesis.hook
def before_call(context, case, kwargs):
    query = case.query or {}
    # The server would rightly wait: a poll for its time, a probe between its events.
    for name, most in (("wait", 55), ("every", 600_000)):
        if str(query.get(name, "")).isdecimal() and int(query[name]) <= most:
            query[name] = 0
    # OpenAPI cannot say that a time is in the past.
    if str(query.get("since", "")) > time.strftime("%Y-%m-%dT", time.gmtime()):
        query["since"] = "10m"
    # Nor that the product of two is limited: a probe has at most 2 MiB of padding.
    events, padding = (str(query.get(name, "")) for name in ("events", "bytes"))
    if events.isdecimal() and padding.isdecimal() and int(events) <= 1000 and 0 < int(padding) <= 8192:
        query["events"] = min(int(events), 2 * 1024 * 1024 // int(padding))
    # Nor that one parameter needs another.
    if "split" not in query:
        query.pop("while", None)
    if "while" not in query:
        query.pop("patience", None)
    # Nor that one excludes others: those who read backwards name no position and do not wait.
    headers = {name.lower(): value for name, value in (case.headers or {}).items()}
    others = ("last_event_id", "since", "wait", "conflate", "max_delay")
    if re.fullmatch(r"[0-9a-f]{16}-[0-9]+(\.[0-9]+)?", str(query.get("before", ""))):
        if headers.get("last-event-id") or any(name in query for name in others):
            query.pop("before")
    # Nor that an end has no name, and as done no body.
    if "end" in query and "split" not in query:
        query["end"] = "failed"
        query.pop("name", None)
        query.pop("reopen", None)
    elif query.get("end") == "failed":
        query["end"] = "done"
    # It counts a name in characters, and the server counts it in bytes.
    name = query.get("name")
    if isinstance(name, str) and len(name) <= 255 < len(name.encode(errors="replace")):
        query["name"] = "n"
