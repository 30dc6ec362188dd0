"""A small agent of the standard library alone: what it was started with, one call as the user, one as the app.

`wait FILE` as arguments: listens only when that file exists. Files that it writes to its folder tell what it is doing.
"""

import base64
import http.server
import json
import os
import pathlib
import signal
import sys
import threading
import time
import urllib.error
import urllib.request

HOST = os.environ["DATABRICKS_HOST"]
LOOK_EVERY_SECONDS = 0.01
WAIT_SECONDS_MAX = 20


def wait_for(name):
    """Until the test has written the file; then the agent goes on, or gives up."""
    for _ in range(int(WAIT_SECONDS_MAX / LOOK_EVERY_SECONDS)):
        if pathlib.Path(name).exists():
            return
        time.sleep(LOOK_EVERY_SECONDS)
    sys.exit(f"{name} did not appear")


def fetch(url, headers, form=None):
    request = urllib.request.Request(url, data=form, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS_MAX) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as fault:
        return fault.code, json.load(fault)


def as_user(token):
    return fetch(HOST + "/api/2.0/preview/scim/v2/Me", {"Authorization": "Bearer " + token})


def as_app():
    pair = os.environ["DATABRICKS_CLIENT_ID"] + ":" + os.environ["DATABRICKS_CLIENT_SECRET"]
    basic = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    form = b"grant_type=client_credentials&scope=all-apis"
    status, token = fetch(HOST + "/oidc/v1/token", basic, form)
    if status != 200:
        return status, token
    bearer = {"Authorization": "Bearer " + token["access_token"]}
    return fetch(HOST + "/api/2.0/mlflow/experiments/get?experiment_id=100000000000001", bearer)


class Agent(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        token = self.headers.get("x-forwarded-access-token", "")
        if self.path == "/die":
            os._exit(5)
        elif self.path == "/slow":
            pathlib.Path("slow-began").touch()
            wait_for("go")
            status, body = as_user(token)
        elif self.path == "/app":
            status, body = as_app()
        elif self.path == "/told":
            status, body = 200, {"environment": dict(os.environ), "headers": list(self.headers.items())}
        else:
            status, body = as_user(token)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # the end waits for requests in flight


if sys.argv[1:2] == ["wait"]:
    wait_for(sys.argv[2])
server = Server(("127.0.0.1", int(os.environ["DATABRICKS_APP_PORT"])), Agent)


def stop(*_):
    pathlib.Path("asked-to-stop").touch()
    # From a thread, because it waits for the loop that this handler interrupts.
    threading.Thread(target=server.shutdown).start()


signal.signal(signal.SIGTERM, stop)
server.serve_forever()
server.server_close()
