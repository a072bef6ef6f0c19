# Prebuilt answers.
#
# Every reply a Plan can give is rendered once per reason; sending one is a copy. The Date is patched in all of them when
# the second changes. What varies per request lies between head and blank line: the Origin that is echoed, a new visitor's
# id, and the Connection header. No answer carries anything that was read from a cookie.
#
# What a handler makes for one request, and what answers a preflight, is rendered by reply_text and reply_preflight.
#
# Rules: protocols "GIF answer" and "CORS"; RFC 9110 for Date, Allow and HEAD.

GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
_STATUS_TEXTS = {
    200: "OK", 204: "No Content", 304: "Not Modified", 307: "Temporary Redirect", 400: "Bad Request",
    401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 503: "Service Unavailable",
}
_NO_STORE = (
    "Cache-Control: no-store, no-cache, must-revalidate, private, max-age=0\r\n"
    "Pragma: no-cache\r\n"
    "Expires: 0\r\n"
)
_STATIC = (
    "X-Content-Type-Options: nosniff\r\n"
    "Cross-Origin-Resource-Policy: cross-origin\r\n"
)
_EXPOSE = "Access-Control-Expose-Headers: X-Fastpixel\r\n"
_ANY_ORIGIN = f"{_EXPOSE}Access-Control-Allow-Origin: *\r\n".encode()
_DATE = "Thu, 01 Jan 1970 00:00:00 GMT"

cdef enum:
    DATE_LEN = 29
    MAX_ORIGIN = 255


@cython.final
cdef class Replies:
    """All prebuilt answers of a Plan. A reply has a number; its template also depends on the reason."""

    cdef Template* templates        # [reply][reason + 1]
    cdef int count
    cdef int capacity
    cdef dict numbers
    cdef int64_t second             # of the Date that they show
    cdef readonly int bad_request
    cdef readonly int not_found
    cdef readonly int timed_out
    cdef readonly int too_large
    cdef readonly int line_too_long
    cdef readonly int head_too_large
    cdef readonly int robots
    cdef readonly int robots_only   # 405
    cdef bytes cookie               # what stands before a visitor's id in a header line,
    cdef bytes cookie_https         # and behind it
    cdef bytes cookie_http

    def __cinit__(self):
        self.numbers = {}
        self.second = -1
        self.bad_request = self.add_text(400, "bad request\n")
        self.not_found = self.add_text(404, "not found\n")
        self.timed_out = self.add_text(408, "request timeout\n")
        self.too_large = self.add_text(413, "request size exceeds max limit\n")
        self.line_too_long = self.add_text(414, "request line too long\n")
        self.head_too_large = self.add_text(431, "request headers too large\n")
        self.robots = self.add_text(200, "User-agent: *\nDisallow: /\n")
        self.robots_only = self.add_text(405, "method not allowed\n", (("Allow", "GET, HEAD"),))
        self.cookie = self.cookie_https = self.cookie_http = b""

    def __dealloc__(self):
        cdef int i
        for i in range(self.count * (REASON_COUNT + 1)):
            free(self.templates[i].data)
        free(self.templates)

    def add_text(self, int status, str body, tuple headers=()):
        """The number of a plain text reply that says the same whatever the reason."""
        return self._add((status, "text/plain; charset=utf-8", body, headers), {})

    def add(self, reply, errors):
        """The number of a fastpixel.dialect.Reply whose body is text; `errors`: the dialect's texts by reason."""
        return self._add((reply.status, reply.content_type, reply.body, reply.headers), errors)

    cdef int _add(self, tuple reply, dict errors) except -1:
        cdef int reason
        key = (reply, tuple(errors.items()) if reply[2] == "reason" else ())
        if key in self.numbers:
            return self.numbers[key]
        self._grow()
        for reason in range(NO_REASON, REASON_COUNT):
            self._template(&self.templates[self.count * (REASON_COUNT + 1) + reason + 1], reply, errors, reason)
        self.numbers[key] = self.count
        self.count += 1
        if self.second >= 0:
            self.show_date(self.second)
        return self.count - 1

    cdef int _grow(self) except -1:
        cdef int capacity = max(16, 2 * self.capacity)
        cdef Template* templates
        if self.count < self.capacity:
            return 0
        templates = <Template*>realloc(self.templates, <size_t>capacity * (REASON_COUNT + 1) * sizeof(Template))
        if templates is NULL:
            raise MemoryError()
        self.templates = templates
        self.capacity = capacity
        return 0

    cdef int _template(self, Template* out, tuple reply, dict errors, int reason) except -1:
        status, content_type, body, headers = reply
        text = GIF if body == "gif" else _reason_text(errors, reason) if body == "reason" else body.encode()
        head = _head_text(status, content_type, len(text), headers, reason, _DATE)
        cdef bytes whole = head.encode() + _ANY_ORIGIN + b"\r\n" + text
        out.data = <byte*>malloc(len(whole))
        if out.data is NULL:
            raise MemoryError()
        memcpy(out.data, <const byte*>whole, len(whole))
        out.date_at = head.index(_DATE)
        out.head_len = len(head)
        out.cors_len = out.head_len + len(_ANY_ORIGIN)
        out.body_at = out.cors_len + 2
        out.len = len(whole)
        return 0

    cdef void set_date(self, int64_t second) noexcept nogil:
        # Called with the clock of each request; works when the second has changed.
        if second != self.second:
            self.second = second
            self.show_date(second)

    cdef void show_date(self, int64_t second) noexcept nogil:
        cdef byte date[DATE_LEN]
        cdef int i
        reply_date(second, date)
        for i in range(self.count * (REASON_COUNT + 1)):
            memcpy(self.templates[i].data + self.templates[i].date_at, date, DATE_LEN)

    cdef void render(self, const Answer* answer, const byte* origin, bint failed, Pack* out) noexcept nogil:
        # Appends the answer. `failed`: its batch could not be stored.
        cdef int reply = answer.unavailable if failed else answer.reply
        cdef int reason = R_SPOOL_FULL if failed else answer.reason
        cdef const Template* template = &self.templates[reply * (REASON_COUNT + 1) + reason + 1]
        cdef uint32_t length = template.body_at if answer.flags & A_HEAD else template.len
        if answer.origin_len == 0 and not answer.flags & (A_CLOSE | A_KEEP | A_COOKIE | A_NO_CORS):
            pk_raw(out, template.data, length)
            return
        pk_raw(out, template.data, template.head_len)
        if answer.flags & A_NO_CORS:
            pass
        elif answer.origin_len:
            reply_origin(origin, answer.origin_len, out)
        else:
            pk_raw(out, template.data + template.head_len, template.cors_len - template.head_len)
        if answer.flags & A_COOKIE and not failed:
            self.render_cookie(origin + answer.origin_len, answer.flags & A_SECURE, out)
        if answer.flags & A_CLOSE:
            pk_raw(out, b"Connection: close\r\n", 19)
        elif answer.flags & A_KEEP:
            pk_raw(out, b"Connection: keep-alive\r\n", 24)
        pk_raw(out, template.data + template.cors_len, length - template.cors_len)


    cdef void render_cookie(self, const byte* id, bint secure, Pack* out) noexcept nogil:
        # The line that a new visitor gets; what it is made of never changes, so its bytes may be read without the GIL.
        cdef PyObject* end = <PyObject*>self.cookie_https if secure else <PyObject*>self.cookie_http
        pk_raw(out, bytes_at(<PyObject*>self.cookie), bytes_len(<PyObject*>self.cookie))
        pk_raw(out, id, UUID_TEXT)
        pk_raw(out, bytes_at(end), bytes_len(end))

    cdef int set_cookie(self, visitor) except -1:
        # config.Visitor. https pages of other sites need SameSite=None, which browsers take with Secure only.
        domain = f"; Domain={visitor.domain}" if visitor.domain else ""
        shared = f"; Max-Age={int(visitor.max_age)}; Path=/{domain}"
        self.cookie = f"Set-Cookie: {visitor.name}=".encode()
        self.cookie_https = f"{shared}; SameSite=None; Secure; HttpOnly\r\n".encode()
        self.cookie_http = f"{shared}; SameSite=Lax; HttpOnly\r\n".encode()
        return 0


cdef void reply_origin(const byte* origin, Py_ssize_t length, Pack* out) noexcept nogil:
    # Echoed with credentials: vendors' scripts use sendBeacon, which sends cookies.
    pk_raw(out, b"Access-Control-Expose-Headers: X-Fastpixel\r\nAccess-Control-Allow-Origin: ", 73)
    pk_raw(out, origin, length)
    pk_raw(out, b"\r\nAccess-Control-Allow-Credentials: true\r\n", 42)


cdef bint reply_origin_ok(Cursor origin) noexcept nogil:
    # Visible ASCII only, so that nothing odd is echoed; else the answer is as for no Origin.
    cdef int got
    if not 0 < cur_left(&origin) <= MAX_ORIGIN:
        return False
    while cur_left(&origin):
        got = cur_next(&origin)
        if not 0x21 <= got <= 0x7E:
            return False
    return True


cdef void reply_date(int64_t second, byte* out) noexcept nogil:
    # IMF-fixdate (RFC 9110, 5.6.7).
    cdef int year, month, day
    cdef int64_t days = second // 86400
    cdef int64_t rest = second % 86400
    cdef const char* names
    time_civil(days, &year, &month, &day)
    memcpy(out, b"Thu, 01 Jan 1970 00:00:00 GMT", DATE_LEN)
    names = b"ThuFriSatSunMonTueWed"
    memcpy(out, names + 3 * (days % 7), 3)
    names = b"JanFebMarAprMayJunJulAugSepOctNovDec"
    time_put(out + 5, day, 2)
    memcpy(out + 8, names + 3 * (month - 1), 3)
    time_put(out + 12, year, 4)
    time_put(out + 17, <int>(rest // 3600), 2)
    time_put(out + 20, <int>(rest // 60 % 60), 2)
    time_put(out + 23, <int>(rest % 60), 2)


def _reason_text(errors, int reason):
    name = "" if reason == NO_REASON else REASONS[reason]
    return f"{errors.get(name, name)}\n".encode()


def _head_text(status, content_type, length, headers, int reason, date):
    # Status line and headers up to those that depend on the request.
    names = {name.lower() for name, _ in headers}
    head = f"HTTP/1.1 {status} {_STATUS_TEXTS[status]}\r\nDate: {date}\r\n"
    if status != 204 and status != 304:
        head += f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n"
    if "cache-control" not in names:
        head += _NO_STORE
    head += _STATIC
    if "vary" not in names:
        head += "Vary: Origin\r\n"
    for name, value in headers:
        if "\r" in value or "\n" in value:
            raise ValueError(f"the header {name} must be one line, not {value!r}")
        head += f"{name}: {value}\r\n"
    if reason != NO_REASON:
        head += f"X-Fastpixel: dropped; reason={REASONS[reason]}\r\n"
    return head


cdef bytes reply_text(tuple reply, errors, int reason, bytes origin, int flags, int64_t second):
    # A whole answer that is made for one request. `reply`: status, content type, body, headers.
    cdef byte date[DATE_LEN]
    reply_date(second, date)
    status, content_type, body, headers = reply
    if not isinstance(body, bytes):
        body = GIF if body == "gif" else _reason_text(errors, reason) if body == "reason" else body.encode()
    head = _head_text(status, content_type, len(body), headers, reason, date[:DATE_LEN].decode())
    if not flags & A_NO_CORS:
        head += _cors_text(origin)
    head += _connection_text(flags)
    return head.encode("latin-1") + b"\r\n" + (b"" if flags & A_HEAD or status == 204 or status == 304 else body)


def _cors_text(origin):
    if origin:
        return f"{_EXPOSE}Access-Control-Allow-Origin: {origin.decode()}\r\nAccess-Control-Allow-Credentials: true\r\n"
    return _ANY_ORIGIN.decode()


def _connection_text(int flags):
    if flags & A_CLOSE:
        return "Connection: close\r\n"
    return "Connection: keep-alive\r\n" if flags & A_KEEP else ""


cdef bytes reply_preflight(const Request* request, int methods, bytes origin, int flags):
    # Fetch standard, CORS-preflight; rule: protocols "CORS". Made by hand: it is rare and echoes request headers.
    cdef byte date[DATE_LEN]
    reply_date(request.received.seconds, date)
    head = f"HTTP/1.1 204 No Content\r\nDate: {date[:DATE_LEN].decode()}\r\nVary: Origin\r\n" + _cors_text(origin)
    asked = head_bytes(request, H_REQUEST_METHOD)
    if not methods and _METHOD_NAME.fullmatch(asked):
        head += f"Access-Control-Allow-Methods: {asked.decode()}\r\n"
    elif methods:
        head += f"Access-Control-Allow-Methods: {_method_list(methods)}\r\n"
    headers = head_bytes(request, H_REQUEST_HEADERS)
    if _HEADER_LIST.fullmatch(headers):
        head += f"Access-Control-Allow-Headers: {headers.decode()}\r\n"
    return (head + "Access-Control-Max-Age: 600\r\n" + _connection_text(flags) + "\r\n").encode("latin-1")
