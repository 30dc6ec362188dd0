"""An agent that tries to walk around the sidecar. Prints one JSON object: the way -> what came of it."""
import base64, json, os, socket, sys, urllib.error, urllib.request

host, port = sys.argv[1].split(":")
workspace = (host, int(port))
found = {}


def attempt(name, way):
    try:
        found[name] = way()
    except urllib.error.HTTPError as error:
        found[name] = f"answer {error.code}"
    except OSError as error:
        found[name] = type(error).__name__ if error.errno is None else os.strerror(error.errno)


def direct():
    with socket.create_connection(workspace, 5) as s:
        s.sendall(b"GET /oidc/.well-known/openid-configuration HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return s.recv(12).decode()


def not_blocking():
    with socket.socket() as s:
        s.setblocking(False)
        s.connect(workspace)


def multipath():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as s:
        s.connect(workspace)
        return "connected"


def fast_open():
    with socket.socket() as s:
        return f"sent {s.sendto(b'GET / HTTP/1.1', socket.MSG_FASTOPEN, workspace)}"


def fast_open_by_message():
    with socket.socket() as s:
        return f"sent {s.sendmsg([b'GET / HTTP/1.1'], [], socket.MSG_FASTOPEN, workspace)}"


def fast_open_by_option():
    with socket.socket() as s:
        s.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
        s.connect(workspace)
        return f"sent {s.send(b'GET / HTTP/1.1')}"


def in_a_child():
    code = f"import socket; socket.create_connection({workspace!r}, 5)"
    return "connected" if os.spawnlp(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0 else "not connected"


def listening():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        return "listens"


def through_the_sidecar():
    base = os.environ["DATABRICKS_HOST"]
    pair = f'{os.environ["DATABRICKS_CLIENT_ID"]}:{os.environ["DATABRICKS_CLIENT_SECRET"]}'
    basic = {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    form = b"grant_type=client_credentials&scope=all-apis"
    with urllib.request.urlopen(urllib.request.Request(base + "/oidc/v1/token", form, basic)) as answer:
        token = json.load(answer)["access_token"]
    bearer = {"authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(base + sys.argv[2], None, bearer)) as answer:
        return f"answer {answer.status}"


def status():
    with urllib.request.urlopen(os.environ["VALETKEY_ADMIN_URL"] + "/status") as answer:
        return json.load(answer)["confinement"]["state"]


sys.stderr = open(os.devnull, "w")
for way in (direct, not_blocking, multipath, fast_open, fast_open_by_message, fast_open_by_option, in_a_child, listening, through_the_sidecar, status):
    attempt(way.__name__, way)
print(json.dumps(found))
