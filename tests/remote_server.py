"""A web server, a Hugging Face hub and the content server that it redirects to, on 127.0.0.1, with faults.

Three ports of one host, so that a client which takes the host for the origin is found out. Everything that is
asked for is logged. Needs Python 3.11 alone.
"""

import hashlib
import json
import os
import socket
import struct
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 64 << 10
FAULTS = ["reset", "429", "500", "short", "shifted", "stall"]


class Servers:
    """The three servers, and how they behave."""

    def __init__(self):
        self.roots = {}  # of the hub: ORG/NAME -> folder
        self.folder = None  # of the web server
        self.log = []  # (server, path, whether a token came, range)
        self.bytes = 0
        self.lock = threading.RLock()
        self.calm()
        self.ports = {}
        for name in ["hub", "content", "web"]:
            server = Server(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            server.name, server.all = name, self
            self.ports[name] = server.server_address[1]
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def calm(self):
        """No faults, and nothing counted."""
        self.faults, self.every, self.turn = [], 0, 0
        self.latency = 0  # seconds before an answer
        self.etag = "first"
        self.etag_after = None  # after so many answers, the files are others
        self.ranges = True
        self.private = False
        self.expire = 0  # signed addresses of the content server work so often; 0: always
        self.uses = {}
        self.log.clear()
        self.bytes = 0

    def url(self, name):
        return f"http://127.0.0.1:{self.ports[name]}"

    def fault(self):
        """The fault of this request, if it is its turn."""
        with self.lock:
            self.turn += 1
            if self.every and self.turn % self.every == 0:
                return self.faults[self.turn // self.every % len(self.faults)]
        return None


class Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that goes is none."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        servers, name = self.server.all, self.server.name
        token = self.headers.get("Authorization")
        with servers.lock:
            servers.log.append((name, self.path, token, self.headers.get("Range")))
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        if name == "hub":
            self.hub(servers, url.path, url.query)
        elif name == "content":
            self.content(servers, path, url.query)
        else:
            file = os.path.normpath(servers.folder + path)
            self.file(servers, file, {"ETag": f'"{servers.etag}-{os.path.basename(file)}"'})

    def hub(self, servers, path, query):
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        if servers.private and self.headers.get("Authorization") != "Bearer secret":
            return self.plain(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if api else parts[:2])
        root = servers.roots.get(repo)
        if root is None:
            return self.plain(404, {"X-Error-Code": "RepoNotFound"})
        if api and parts[4] == "revision":
            if parts[5] not in ["main", "refs/pr/1", COMMIT]:
                return self.plain(404, {"X-Error-Code": "RevisionNotFound"})
            return self.json({"id": repo, "sha": COMMIT, "siblings": []})
        if api and parts[4] == "tree":
            files = sorted(
                os.path.relpath(os.path.join(folder, file), root)
                for folder, _, names in os.walk(root)
                for file in names
            )
            half = len(files) // 2
            second = "cursor=" in query
            link = f"<{servers.url('hub')}{path}?recursive=true&cursor=x>; rel=\"next\""
            entries = [self.entry(root, file) for file in (files[half:] if second else files[:half])]
            return self.json(entries, {} if second else {"Link": link})
        # ORG/NAME/resolve/COMMIT/PATH
        file = os.path.join(root, *parts[4:])
        if not os.path.isfile(file):
            return self.plain(404, {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": COMMIT}
        if os.path.getsize(file) < LARGE:
            return self.file(servers, file, headers | {"ETag": '"small"'})
        digest = digest_of(file) if servers.etag == "first" else "0" * 64
        with servers.lock:
            number = len(servers.uses)
            servers.uses[str(number)] = 0
        target = f"{servers.url('content')}/{repo}/{'/'.join(parts[4:])}?Signature=sign-{number}"
        headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(os.path.getsize(file))}
        self.plain(302, headers | {"Location": target})

    def entry(self, root, file):
        path = os.path.join(root, file)
        size = os.path.getsize(path)
        entry = {"type": "file", "path": file, "size": size, "oid": "0" * 40}
        if size >= LARGE:
            entry["lfs"] = {"oid": digest_of(path), "size": size, "pointerSize": 134}
        return entry

    def content(self, servers, path, query):
        if self.headers.get("Authorization"):
            return self.plain(400, {})
        number = query.removeprefix("Signature=sign-")
        with servers.lock:
            servers.uses[number] += 1
            if servers.expire and servers.uses[number] > servers.expire:
                return self.plain(403, {})
        org, name, rest = path.strip("/").split("/", 2)
        self.file(servers, os.path.join(servers.roots[f"{org}/{name}"], rest), {"ETag": f'"{servers.etag}"'})

    def file(self, servers, path, headers):
        if not os.path.isfile(path):
            return self.plain(404, {})
        size, asked = os.path.getsize(path), self.headers.get("Range")
        with servers.lock:
            if servers.etag_after is not None:
                servers.etag_after -= 1
                if servers.etag_after < 0:
                    servers.etag = "second"
                    headers = {key: value.replace("first", "second") for key, value in headers.items()}
        wanted = self.headers.get("If-Match")
        if wanted and wanted != headers.get("ETag"):
            return self.plain(412, {})
        time.sleep(servers.latency)
        fault = servers.fault()
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return self.connection.close()
        if fault in ["429", "500"]:
            return self.plain(int(fault), {"Retry-After": "1"} if fault == "429" else {})
        if fault == "stall":
            time.sleep(3)
        first, last = 0, size - 1
        if asked and servers.ranges:
            first, end = asked.removeprefix("bytes=").split("-")
            first, last = int(first), min(int(end), size - 1)
            if first >= size:
                return self.plain(416, {"Content-Range": f"bytes */{size}"})
            shift = 1 if fault == "shifted" else 0
            headers = headers | {"Content-Range": f"bytes {first + shift}-{last + shift}/{size}"}
            self.send_response(206)
        else:
            self.send_response(200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        left = last - first + 1
        if fault == "short":
            left //= 2
            self.close_connection = True
        try:
            with open(path, "rb") as file:
                file.seek(first)
                while left:
                    piece = file.read(min(left, 1 << 18))
                    self.wfile.write(piece)
                    left -= len(piece)
                    with servers.lock:
                        servers.bytes += len(piece)
        except OSError:
            self.close_connection = True

    def json(self, value, headers=None):
        self.plain(200, {"Content-Type": "application/json"} | (headers or {}), json.dumps(value).encode())

    def plain(self, status, headers, body=b"no"):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        with self.server.all.lock:
            self.server.all.bytes += len(body)


DIGESTS = {}


def digest_of(path):
    if path not in DIGESTS:
        with open(path, "rb") as file:
            DIGESTS[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return DIGESTS[path]
