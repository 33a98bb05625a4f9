"""What stands between qualm and a store's emulator: a proxy with faults; and the servers that give logins.

Needs Python 3.11 and `cryptography`.
"""

import base64
import http.client
import json
import socket
import struct
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

FAULTS = ["reset", "429", "503", "500", "short"]


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that goes is none."""


def serve(handler, all):
    server = Quiet(("127.0.0.1", 0), handler)
    server.all = all
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


class Proxy:
    """Hands requests on as they are, the host's name included, since signatures are of it."""

    def __init__(self, port):
        self.target = port
        self.lock = threading.Lock()
        self.calm()
        self.port = serve(Pass, self)

    def calm(self):
        self.log = []
        self.calm_faults(None)
        self.bearer = None  # the token without which nothing is given
        self.headers = lambda path: {}  # added to answers with contents
        self.before = lambda turn: None

    def calm_faults(self, fault):
        """From here on, every third request meets this fault, or none does."""
        self.every, self.turn, self.fault = 3 if fault else 0, 0, fault

    def url(self):
        return f"http://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def json(self, value, status=200):
        self.answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def form(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        return dict(urllib.parse.parse_qsl(body))


class Pass(Handler):
    def do_GET(self):
        proxy = self.server.all
        with proxy.lock:
            proxy.turn += 1
            turn = proxy.turn
            proxy.log.append((self.path, dict(self.headers)))
        proxy.before(turn)
        fault = proxy.fault if proxy.every and turn % proxy.every == 0 else None
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return self.connection.close()
        if fault in ["429", "500", "503"]:
            return self.answer(int(fault), {} if fault == "500" else {"Retry-After": "1"})
        if proxy.bearer and self.headers.get("Authorization") != f"Bearer {proxy.bearer}":
            return self.answer(401)
        wanted = self.headers.get("If-Match")
        added = proxy.headers(self.path)
        if wanted and added.get("ETag", wanted) != wanted:
            return self.answer(412)
        upstream = http.client.HTTPConnection("127.0.0.1", proxy.target, timeout=30)
        upstream.putrequest("GET", self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if not (proxy.bearer and name.lower() == "authorization"):
                upstream.putheader(name, value)
        upstream.endheaders()
        answer = upstream.getresponse()
        body = answer.read()
        upstream.close()
        self.send_response(answer.status)
        kept = {name: value for name, value in answer.getheaders()
                if name.lower() not in ["connection", "transfer-encoding", "content-length", "date", "server"]}
        for name, value in (kept | (added if answer.status in [200, 206] else {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "short":
            self.close_connection = True
            body = body[: len(body) // 2]
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True


class Logins:
    """The servers of Amazon, Google and Microsoft that give keys and tokens, as far as they are needed."""

    def __init__(self):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.aws = {}  # the keys of a machine
        self.log = []
        self.seconds = 3600
        self.port = serve(Login, self)

    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def service_account(self):
        form = serialization.PrivateFormat.PKCS8
        pem = self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
        return {
            "type": "service_account", "client_email": "qualm@test", "private_key": pem, "private_key_id": "k1",
            "token_uri": f"{self.url()}/token",
        }

    def user(self):
        return {
            "type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "secret-refresh",
            "token_uri": f"{self.url()}/token",
        }

    def is_signed(self, assertion):
        """Whether a service account says so of itself (RFC 7523)."""
        decode = lambda part: base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        header, claims, signature = assertion.split(".")
        text = f"{header}.{claims}".encode()
        self.key.public_key().verify(decode(signature), text, padding.PKCS1v15(), hashes.SHA256())
        header, claims, now = json.loads(decode(header)), json.loads(decode(claims)), time.time()
        return (
            header["alg"] == "RS256" and header["kid"] == "k1" and claims["iss"] == "qualm@test"
            and claims["aud"] == f"{self.url()}/token" and "devstorage.read_only" in claims["scope"]
            and now - 60 < claims["iat"] < now + 60 and claims["iat"] < claims["exp"] <= claims["iat"] + 3600
        )


class Login(Handler):
    def token(self):
        self.json({"access_token": "secret-token", "expires_in": self.server.all.seconds, "token_type": "Bearer"})

    def do_PUT(self):
        self.server.all.log.append(self.path)
        if self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
            return self.answer(200, {}, b"session")
        self.answer(404)

    def do_GET(self):
        all = self.server.all
        all.log.append(self.path)
        roles = "/latest/meta-data/iam/security-credentials/"
        path, query = self.path.partition("?")[::2]
        query = dict(urllib.parse.parse_qsl(query))
        if self.path.startswith(roles) and self.headers.get("X-aws-ec2-metadata-token") != "session":
            return self.answer(401)
        if self.path == roles:
            return self.answer(200, {}, b"role-1")
        if self.path in [roles + "role-1", "/container"]:
            if path == "/container" and self.headers.get("Authorization") != "secret-container":
                return self.answer(401)
            until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + all.seconds))
            return self.json({"Code": "Success", "Expiration": until} | all.aws)
        google = "/computeMetadata/v1/instance/service-accounts/default/token"
        if path == google and self.headers.get("Metadata-Flavor") == "Google":
            return self.token()
        if path == "/metadata/identity/oauth2/token" and self.headers.get("Metadata") == "true":
            return self.token() if query["resource"] == "https://storage.azure.com" else self.answer(400)
        self.answer(404)

    def do_POST(self):
        all, form = self.server.all, self.form()
        all.log.append(self.path)
        if self.path == "/token":
            kind = form["grant_type"]
            if kind == "refresh_token" and (form["refresh_token"], form["client_secret"]) == ("secret-refresh", "s"):
                return self.token()
            if kind == "urn:ietf:params:oauth:grant-type:jwt-bearer" and all.is_signed(form["assertion"]):
                return self.token()
            return self.json({"error": "invalid_grant"}, 400)
        if self.path == "/tenant/oauth2/v2.0/token":
            right = form["scope"] == "https://storage.azure.com/.default" and form["client_id"] == "app"
            proof = form.get("client_secret") or form.get("client_assertion")
            return self.token() if right and proof == "secret-proof" else self.json({"error": "invalid_client"}, 401)
        self.answer(404)
