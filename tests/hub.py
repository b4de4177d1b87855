"""A stand-in for the Hugging Face hub: the part of its HTTP interface that its Python library needs here."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secret"
API = re.compile(r"/api/(models|datasets)/([\w.-]+/[\w.-]+)(?:/(revision|tree|preupload|commit|branch)/([^/]+))?(/.*)?")
FILE = re.compile(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")


class Hub:
    """What the hub holds: files by kind and name, revision and path; and which repositories are private."""

    def __init__(self, address: str):
        self.address = address
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.asked: list[str] = []  # paths of files that were sent


def commit_of(revision: str) -> str:
    """What stands for a revision's commit; a commit stands for itself."""
    return revision if re.fullmatch("[0-9a-f]{40}", revision) else hashlib.sha1(revision.encode()).hexdigest()


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub at an address of this machine, until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, body: object, status: int = 200, **headers: str) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(data))} | headers).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def repo(self, name: str) -> dict[str, dict[str, bytes]] | None:
            """A repository that the sender may see; else the refusal is sent."""
            allowed = name not in held.private or self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if name in held.repos and allowed:
                return held.repos[name]
            self.answer({"error": "Repository not found"}, 401, X_Error_Code="RepoNotFound")
            return None

        def files(self, repo: dict[str, dict[str, bytes]], revision: str) -> dict[str, bytes] | None:
            for name, files in repo.items():
                if revision in (name, commit_of(name)):
                    return files
            self.answer({"error": f"Invalid rev id: {revision}"}, 404, X_Error_Code="RevisionNotFound")
            return None

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            if found := FILE.fullmatch(path):
                kind, name, revision, file = found.groups()
                repo = self.repo(f"{'datasets' if kind else 'models'}/{name}")
                files = None if repo is None else self.files(repo, revision)
                if files is None:
                    return None
                if file not in files:
                    return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
                held.asked.append(file)
                etag = hashlib.sha1(files[file]).hexdigest()
                return self.answer(files[file], ETag=f'"{etag}"', X_Repo_Commit=commit_of(revision))
            if found := API.fullmatch(path):
                kind, name, what, revision, _ = found.groups()
                repo = self.repo(f"{kind}/{name}")
                files = None if repo is None else self.files(repo, revision or "main")
                if files is None:
                    return None
                if what == "tree":
                    sizes = {file: (len(data), hashlib.sha1(data).hexdigest()) for file, data in files.items()}
                    return self.answer(
                        [
                            {"type": "file", "path": file, "size": size, "oid": oid}
                            for file, (size, oid) in sizes.items()
                        ]
                    )
                sha = commit_of(revision or "main")
                siblings, private = [{"rfilename": file} for file in files], f"{kind}/{name}" in held.private
                return self.answer({"id": name, "sha": sha, "private": private, "siblings": siblings})
            return self.answer({"error": "no such place"}, 404)

        def do_POST(self):
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = unquote(urlsplit(self.path).path)
            if path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.answer({"error": "Invalid username or password."}, 401)
            if path == "/api/repos/create":
                asked = json.loads(data)
                name = f"{asked['organization']}/{asked['name']}"
                new = f"models/{name}" not in held.repos  # what is there stays as public as it is
                held.repos.setdefault(f"models/{name}", {"main": {}})
                if new and (asked.get("private") or asked.get("visibility") == "private"):
                    held.private.add(f"models/{name}")
                return self.answer({"url": f"{held.address}/{name}"})
            kind, name, what, revision, _ = API.fullmatch(path).groups()
            repo = held.repos[f"{kind}/{name}"]
            if what == "branch":
                repo.setdefault(revision, {})
                return self.answer({})
            if what == "preupload":
                files = json.loads(data)["files"]
                known = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
                return self.answer({"files": known})
            for line in data.splitlines():
                part = json.loads(line)
                if part["key"] == "file":
                    repo[revision][part["value"]["path"]] = base64.b64decode(part["value"]["content"])
                if part["key"] == "deletedFile":
                    del repo[revision][part["value"]["path"]]
            url = f"{held.address}/{name}/commit/{commit_of(revision)}"
            return self.answer({"commitUrl": url, "commitOid": commit_of(revision), "success": True})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held = Hub(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
