"""A sample agent, written as people write one for Databricks Apps: it knows nothing of Valetkey.

It listens where DATABRICKS_APP_PORT says, takes the user's token from `x-forwarded-access-token`, and works with
unmodified clients (see work.py). The suite calls it through the sidecar's inbound port.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import calls
import surroundings
import work

log = logging.getLogger("agent")

#: How long `/stream` waits to be told to go on.
STEP_SECONDS_MAX = 20.0
#: What the suite asked `/stream` to say next.
steps: queue.Queue[str] = queue.Queue()

Headers = list[tuple[str, str]]
Answer = dict[str, Any]


class Ask:
    """One request: query parameters, headers as they came, and the user's token if there is one."""

    def __init__(self, target: str, headers: Headers) -> None:
        parts = urlsplit(target)
        self.path = parts.path
        self.query = dict(parse_qsl(parts.query))
        self.headers = headers

    def token(self) -> str | None:
        """The forwarded token, first of duplicates, as the usual frameworks do it."""
        return next((v for n, v in self.headers if n.lower() == "x-forwarded-access-token"), None)

    def client(self) -> Any:
        """A client for whoever the request says shall act: `as=app`, otherwise the user."""
        return work.app_client() if self.query.get("as") == "app" else work.user_client(self.token())


def whoami(ask: Ask) -> Answer:
    """Both identities, and every header this agent got."""
    return {"app": work.name_of(work.app_client()), "user": work.name_of(ask.client()), "headers": ask.headers}


def sql(ask: Ask) -> Answer:
    """One statement on one warehouse."""
    return work.run_sql(ask.client(), ask.query["warehouse"], ask.query["statement"])


def search(ask: Ask) -> Answer:
    """One vector search query with the dedicated client."""
    token = None if ask.query.get("as") == "app" else ask.token()
    return work.search(token, ask.query["index"], ask.query["text"], ask.query["columns"].split(","))


def upload(ask: Ask) -> Answer:
    """Makes up a file of so many bytes and sends it to a volume."""
    return work.upload(ask.client(), ask.query["path"], int(ask.query["bytes"]))


def download(ask: Ask) -> Answer:
    """Reads a file of a volume to its end and forgets it."""
    return work.download(ask.client(), ask.query["path"])


def discard(ask: Ask) -> Answer:
    """Deletes a file of a volume."""
    ask.client().files.delete(ask.query["path"])
    return {}


def row(ask: Ask) -> Answer:
    """The main call of one kind of object, on the object named."""
    is_user = ask.query["as"] == "user"
    user = work.user_client(ask.token())
    acting = calls.Acting(
        client=user if is_user else work.app_client(),
        token=ask.token() if is_user else None,
        user=user,
        words=ask.query,
    )
    return calls.CALLS[ask.query["call"]](acting, ask.query["object"])


def env(ask: Ask) -> Answer:
    """Everything this process can find out about itself and, if asked to try, about its parent."""
    return surroundings.own() | (surroundings.parent() if ask.query.get("parent") == "yes" else {})


def step(ask: Ask) -> Answer:
    """Lets `/stream` say one more word."""
    steps.put(ask.query["word"])
    return {}


def chat(ask: Ask) -> Iterator[Answer]:
    """A chat completion, each piece passed on at once."""
    yield from work.chat(ask.client(), ask.query["model"], ask.query["text"])


def stream(_: Ask) -> Iterator[Answer]:
    """Says what `/step` brings, one event each, until the word is `end`."""
    yield {"word": "begin"}
    while (word := steps.get(timeout=STEP_SECONDS_MAX)) != "end":
        yield {"word": word}


ANSWERS: dict[str, Callable[[Ask], Answer]] = {
    "/whoami": whoami,
    "/sql": sql,
    "/search": search,
    "/upload": upload,
    "/download": download,
    "/discard": discard,
    "/row": row,
    "/env": env,
    "/step": step,
}
STREAMS: dict[str, Callable[[Ask], Iterator[Answer]]] = {"/chat": chat, "/stream": stream}


class Handler(BaseHTTPRequestHandler):
    """Plain HTTP/1.1: JSON answers, and event streams in chunks."""

    protocol_version = "HTTP/1.1"
    # A response leaves as two writes; without this the second one waits for the peer's delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        ask = Ask(self.path, list(self.headers.items()))
        log.info("%s with headers %s", self.path, ask.headers)
        if ask.path in STREAMS:
            self.send_events(STREAMS[ask.path](ask))
        elif ask.path in ANSWERS:
            self.send_answer(*attempt(ANSWERS[ask.path], ask))
        else:
            self.send_answer(404, {"error": "no such page"})

    do_POST = do_GET

    def send_answer(self, status: int, answer: Answer) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_events(self, events: Iterator[Answer]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in events:
                self.send_event(event)
        except Exception as fault:  # noqa: BLE001 - told to the caller, whatever it is
            self.send_event(told(fault))
        self.wfile.write(b"0\r\n\r\n")

    def send_event(self, event: Answer) -> None:
        data = f"data: {json.dumps(event)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        log.info(format, *args)


def attempt(answer: Callable[[Ask], Answer], ask: Ask) -> tuple[int, Answer]:
    """The answer, or what went wrong in a form the suite can look at."""
    try:
        return 200, answer(ask)
    except Exception as fault:  # noqa: BLE001 - told to the caller, whatever it is
        log.info("failed:\n%s", traceback.format_exc())
        return 500, told(fault)


def told(fault: BaseException) -> Answer:
    """A fault as data; of a group, which says nothing itself, the first one inside."""
    while inside := getattr(fault, "exceptions", ()):
        fault = inside[0]
    kind = type(fault)
    return {"error": kind.__name__, "bases": [base.__name__ for base in kind.__mro__], "message": str(fault)}


class Server(ThreadingHTTPServer):
    """A thread for each connection, and room for many to arrive at once."""

    daemon_threads = True
    request_queue_size = 256


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="agent: %(name)s: %(message)s")
    port = int(os.environ["DATABRICKS_APP_PORT"])
    log.info("listening on port %d, arguments %s", port, sys.argv)
    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
