# A reject: what a person needs to see why an event was refused, and, where a changed configuration would have taken it,
# everything that a retry needs.
#
# Rules (the record's contract, "A reject"): unknown_key, source_disabled, origin_not_allowed and rate_limited keep the
# whole body, others 4 KiB of it. Authorization, cookies and tokens are never kept: only the headers below are, and a
# dialect whose requests may hold secrets redacts them (dialect.Route.redact). The privacy rules of events hold: of a
# visitor who is to be anonymous nothing is kept that could tell who it was, and addresses that clients wrote are
# shortened or taken out wherever a dialect would read them. That a visitor objects is kept as one more header, whichever
# of the two said it, for a retry may meet a source whose policy is another one.

_REJECT_HEADERS = (
    (b"host", H_HOST), (b"origin", H_ORIGIN), (b"referer", H_REFERER), (b"user-agent", H_USER_AGENT),
    (b"accept", H_ACCEPT), (b"content-type", H_CONTENT_TYPE), (b"content-encoding", H_CONTENT_ENCODING),
)
# Where clients write addresses: parameters, and members of JSON, which a parameter may hold, too, as it is or as base64.
_IP_NAME = re.compile(rb"(?i)context\.ip|_ip|(?:device\.)?ip_v[46]")
_IP_MEMBER = re.compile(rb'("(?:ip|_ip|ip_v4|ip_v6)"\s*:\s*")([^"]*)')

cdef enum:
    REJECT_BODY = 4096


cdef int rej_pack(
    Intake intake, Pack* out, Request* request, const Route* route, int reason, bint whole, const Source* policy
) except -1:
    cdef Plan plan = intake.plan
    cdef bytes key = plan.key()
    cdef bytes target = _head_span_bytes(request, request.target)
    cdef bytes sent = request.body[:request.body_len] if request.body_len else b""
    cdef bytes body = sent
    cdef Py_ssize_t kept
    headers = {name: head_bytes(request, header) for name, header in _REJECT_HEADERS if request.headers[<int>header].len}
    if request.gpc:
        headers[b"sec-gpc"] = b"1"
    ip = request.ip[:request.ip_len] if request.ip_len else b""
    redact = plan.routes[route.index][1].redact
    if request.gpc and policy.gpc != GPC_IGNORE:
        # A variable of the path may be a session.
        pattern = plan.routes[route.index][1].path.encode()
        target, body, ip = pattern if route.variables else target.partition(b"?")[0], b"", b""
    elif redact is not None:
        target, body = intake.desk.redacted(intake, request, route, redact)
    if policy.ip != IP_KEEP:
        body = rej_plain(body, headers, intake.max_body_bytes)
        target, body, ip = rej_masked(target, body, ip, policy.ip == IP_TRUNCATE)
    kept = len(body) if whole else min(len(body), <Py_ssize_t>REJECT_BODY)
    if kept < len(body):
        body = body[:rej_whole_chars(body, kept)]
    pk_map(out, 6 + (len(key) > 0) + (len(body) > 0) + (body != sent) + (len(ip) > 0))
    pk_str(out, b"receivedAt", 10)
    pk_seconds(out, request.received.seconds, request.received.nanos)
    rej_text(out, b"protocol", plan.protocols[route.protocol].encode())
    rej_text(out, b"reason", REASONS[reason].encode())
    rej_text(out, b"method", _head_span_bytes(request, request.method_name))
    rej_text(out, b"target", target)
    pk_str(out, b"headers", 7)
    pk_map(out, len(headers))
    for name, value in headers.items():
        rej_text(out, name, value)
    if key:
        rej_text(out, b"writeKey", key)
    if body:
        rej_body(out, body, len(body))
    if body != sent:
        rej_text(out, b"bodySha256", sha256(sent).hexdigest().encode())
    if ip:
        rej_text(out, b"ip", ip)
    return 0


cdef bytes rej_plain(bytes body, dict headers, Py_ssize_t limit):
    # Addresses in a body that is compressed can be found when it is not; what cannot be read is not kept.
    if headers.get(b"content-encoding", b"identity").lower() == b"identity" or not body:
        return body
    del headers[b"content-encoding"]
    try:
        inflater = decompressobj(31)
        plain = inflater.decompress(body, limit)
    except ZlibError:
        return b""
    return plain if inflater.eof and not inflater.unused_data else b""


cdef tuple rej_masked(bytes target, bytes body, bytes ip, bint truncate):
    path, mark, query = target.partition(b"?")
    if body.lstrip()[:1] in (b"{", b"["):
        body = rej_members(body, truncate)
    elif body.count(b"&") < MAX_PAIRS:
        body = rej_pairs(body, truncate)
    else:                           # no retry would take it, and looking through it would take long
        body = b""
    return path + mark + rej_pairs(query, truncate), body, rej_address(ip, truncate)


cdef bytes rej_members(bytes text, bint truncate):
    def member(found):
        return found[1] + rej_address(found[2], truncate)

    return _IP_MEMBER.sub(member, text)


cdef bytes rej_pairs(bytes text, bint truncate):
    pairs = [pair.partition(b"=") for pair in text.split(b"&")]
    return b"&".join([name + equals + rej_value(name, value, truncate) for name, equals, value in pairs])


cdef bytes rej_value(bytes name, bytes value, bint truncate):
    # Of a pair as it was sent. What has no address stays as it is, byte for byte.
    cdef bytes plain = unquote_to_bytes(value.replace(b"+", b" ")), kept
    if _IP_NAME.fullmatch(unquote_to_bytes(name)):
        kept = rej_address(plain, truncate)
    else:
        kept = rej_document(plain, truncate)
    return value if kept == plain else quote(kept).encode()


cdef bytes rej_document(bytes text, bint truncate):
    # JSON, or base64 of it.
    cdef bytes kept = rej_members(text, truncate)
    cdef bytes document = None if kept != text else unbase64(text.strip())
    if document is None:
        return kept
    kept = rej_members(document, truncate)
    return text if kept == document else urlsafe_b64encode(kept).rstrip(b"=")


cdef bytes rej_address(bytes text, bint truncate):
    cdef char short[INET6_ADDRSTRLEN]
    cdef Py_ssize_t length = prx_truncate(cur_of(text, len(text)), short) if truncate else 0
    return short[:length]


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
