"""Google's object storage as its XML API is documented, as far as a client of plain objects goes:
PUT with x-goog-if-generation-match, GET with ranges, HEAD, DELETE, and lists in pages.

The emulators that the registries have speak the JSON API and overwrite what must not be there.
It keeps objects in memory, and says on standard output where it listens.
"""

import hashlib
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 100
objects = {}  # bucket/name -> (generation, content)
generation = 0
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, content=b"", headers=None, length=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def name(self):
        return unquote(urlsplit(self.path).path).lstrip("/")

    def about(self, known):
        number, content = known
        return {
            "ETag": '"%s"' % hashlib.md5(content).hexdigest(),
            "x-goog-generation": str(number),
            "Last-Modified": formatdate(usegmt=True),
        }

    def do_PUT(self):
        global generation
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = self.name()
        wanted = self.headers.get("x-goog-if-generation-match")
        with lock:
            known = objects.get(name, (0, b""))
            if wanted is not None and int(wanted) != known[0]:
                return self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            generation += 1
            objects[name] = (generation, content)
            headers = self.about(objects[name])
        self.answer(200, headers=headers)

    def do_DELETE(self):
        with lock:
            known = objects.pop(self.name(), None)
        self.answer(404 if known is None else 204)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        name = self.name()
        if "/" not in name:
            return self.list(name, query)
        with lock:
            known = objects.get(name)
        if known is None:
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        headers, content = self.about(known), known[1]
        wanted = self.headers.get("Range")
        if wanted is None:
            return self.answer(200, content, headers, len(content))
        first, last = wanted.removeprefix("bytes=").split("-")
        start = int(first) if first else max(len(content) - int(last), 0)
        end = min(int(last) + 1 if first and last else len(content), len(content))
        if start >= len(content):
            return self.answer(416)
        headers["Content-Range"] = "bytes %d-%d/%d" % (start, end - 1, len(content))
        self.answer(206, content[start:end], headers)

    def list(self, bucket, query):
        prefix = bucket + "/" + query.get("prefix", [""])[0]
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        with lock:
            known = {n: o for n, o in objects.items() if n.startswith(prefix)}
        names = sorted(n for n in known if n.split("/", 1)[1] > after)
        page, rest = names[:PAGE], names[PAGE:]
        parts = []
        for name in page:
            key = escape(name.split("/", 1)[1])
            tag, size = self.about(known[name])["ETag"], len(known[name][1])
            parts.append(
                f"<Contents><Key>{key}</Key><Size>{size}</Size><ETag>{escape(tag)}</ETag>"
                "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
            )
        if rest:
            token = escape(page[-1].split("/", 1)[1])
            parts.append(f"<NextContinuationToken>{token}</NextContinuationToken>")
        text = "<ListBucketResult>" + "".join(parts) + "</ListBucketResult>"
        self.answer(200, text.encode(), {"Content-Type": "application/xml"})


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_port} is where it listens", flush=True)
server.serve_forever()
