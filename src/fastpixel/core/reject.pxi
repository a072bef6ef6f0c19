# A reject: what a person needs to see why an event was refused, and, where a changed configuration would have taken it,
# everything that a retry needs.
#
# Rules (the record's contract, "A reject"): unknown_key, source_disabled, origin_not_allowed and rate_limited keep the
# whole body, others 4 KiB of it. Authorization, cookies and tokens are never kept: only the headers below are.

_REJECT_HEADERS = (
    (b"host", H_HOST), (b"origin", H_ORIGIN), (b"referer", H_REFERER), (b"user-agent", H_USER_AGENT),
    (b"accept", H_ACCEPT), (b"content-type", H_CONTENT_TYPE), (b"content-encoding", H_CONTENT_ENCODING),
)

cdef enum:
    REJECT_BODY = 4096


cdef int rej_pack(
    Pack* out, Plan plan, const Request* request, const Route* route, int reason, bint whole
) except -1:
    cdef Py_ssize_t kept = request.body_len if whole else min(request.body_len, <Py_ssize_t>REJECT_BODY)
    cdef bytes key = plan.key()
    cdef bint cut = kept < request.body_len
    if cut:
        kept = rej_whole_chars(request.body, kept)
    headers = [(name, head_bytes(request, header)) for name, header in _REJECT_HEADERS if request.headers[<int>header].len]
    pk_map(out, 6 + (len(key) > 0) + (kept > 0) + cut + (request.ip_len > 0))
    pk_str(out, b"receivedAt", 10)
    pk_seconds(out, request.received.seconds, request.received.nanos)
    rej_text(out, b"protocol", plan.protocols[route.protocol].encode())
    rej_text(out, b"reason", REASONS[reason].encode())
    rej_text(out, b"method", _head_span_bytes(request, request.method_name))
    rej_text(out, b"target", _head_span_bytes(request, request.target))
    pk_str(out, b"headers", 7)
    pk_map(out, len(headers))
    for name, value in headers:
        rej_text(out, name, value)
    if key:
        rej_text(out, b"writeKey", key)
    if kept:
        rej_body(out, request.body, kept)
    if cut:
        rej_text(out, b"bodySha256", sha256(request.body[:request.body_len]).hexdigest().encode())
    if request.ip_len:
        rej_text(out, b"ip", request.ip[:request.ip_len])
    return 0


cdef int rej_text(Pack* out, bytes name, bytes value) except -1:
    cdef bytes text = value.decode("utf-8", "replace").encode()
    pk_str(out, <const byte*>name, len(name))
    pk_str(out, <const byte*>text, len(text))
    return 0


cdef Py_ssize_t rej_whole_chars(const byte* body, Py_ssize_t length) noexcept nogil:
    # Where to cut text so that no character is cut; bytes that are not text are cut anywhere.
    cdef Py_ssize_t valid = utf_valid(body, length)
    return valid if length - valid < 4 else length


cdef void rej_body(Pack* out, const byte* body, Py_ssize_t length) noexcept nogil:
    # Text if it is UTF-8, else msgpack's bin: a retry needs the bytes as they were.
    pk_str(out, b"body", 4)
    if utf_valid(body, length) == length:
        pk_str(out, body, length)
        return
    pk_bin(out, body, length)


cdef bytes _head_span_bytes(const Request* request, Span span):
    return (<const char*>request.head + (span.at & SPAN_MASK))[:span.len]
