# SPDX-License-Identifier: LGPL-2.1-or-later
# A web server over TLS that gives parts of the files in the current folder, and fails in ways that the path asks for.
# usage: range_server.py CERT KEY PORT-FILE; requests are counted in the file "requests"
import http.server, os, ssl, sys, threading

lock = threading.Lock()
count = 0

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def plain(self, status, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        global count
        with lock:
            count += 1
            n = count
            with open("requests", "w") as f:
                f.write(str(n))
        parts = self.path.strip("/").split("/")
        mode, name = (parts[0], parts[1]) if len(parts) == 2 else ("", parts[0])
        if mode == "away":
            return self.plain(302, [("Location", "/" + name)])
        if mode == "clear":
            return self.plain(302, [("Location", "http://localhost:1/" + name)])
        if mode == "closed" or (mode == "flaky" and n % 3 == 0):
            return self.plain(503)
        if mode == "secret":
            return self.plain(403)
        if not os.path.isfile(name):
            return self.plain(404)
        size = os.path.getsize(name)
        first, last = 0, size - 1
        wanted = self.headers.get("Range")
        if wanted and mode != "whole":
            first, last = (int(x) for x in wanted.split("=")[1].split("-"))
            last = min(last, size - 1)
            self.send_response(206)
            if mode == "wrong":
                first = first + 1 if first else 0
            self.send_header("Content-Range", "bytes %d-%d/%d" % (first, last, size))
        else:
            self.send_response(200)
        self.send_header("ETag", '"%d"' % (n if mode == "changing" else 1))
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        with open(name, "rb") as f:
            f.seek(first)
            body = f.read(last - first + 1)
        if mode == "flaky" and n % 3 == 1 and len(body) > 1:
            self.wfile.write(body[:len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.wfile.write(body)

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(sys.argv[3], "w") as f:
    f.write(str(server.server_address[1]))
server.serve_forever()
