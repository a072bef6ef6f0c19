# A request's head: request line and the few headers that are kept, read from the raw bytes.
#
# httptools judges the syntax of these bytes (Connection and Wires feed it); here stands what it leaves open, and
# where the kept headers lie: HTTP/1.0 or HTTP/1.1 only, exactly one Host in 1.1, one Content-Length of digits only, no
# Content-Length beside Transfer-Encoding, and no coding but `chunked` (RFC 9112, sections 3, 6 and 7).

cdef enum:                          # HeadStatus
    HEAD_DONE
    HEAD_BAD

cdef enum:
    MAX_FORWARDED = 8


cdef int head_parse(const byte* data, Py_ssize_t length, Request* out) noexcept nogil:
    # Reads up to the blank line; it is HEAD_BAD if there is none. The spans mean IN_HEAD.
    cdef Cursor source = cur_of(data, length)
    cdef Cursor line
    memset(out, 0, sizeof(Request))
    out.head = data
    if not head_line(&source, &line) or not head_request_line(line, out):
        return HEAD_BAD
    out.line_len = <uint32_t>(source.at - data)
    while True:
        if not head_line(&source, &line):
            return HEAD_BAD
        if cur_left(&line) == 0:
            break
        if not head_field(line, out):
            return HEAD_BAD
    out.head_len = <uint32_t>(source.at - data)
    if out.hosts > 1 or (out.minor == 1 and out.hosts == 0):
        return HEAD_BAD
    if out.chunked and (out.has_length or out.minor == 0):
        return HEAD_BAD
    if out.minor == 0 and not out.keep_alive:
        out.close = True
    return HEAD_DONE


cdef Py_ssize_t head_end(const byte* at, Py_ssize_t length, Py_ssize_t scanned) noexcept nogil:
    # Bytes up to and with the first CRLFCRLF; 0: there is none.
    cdef const byte* found = at + scanned
    cdef const byte* end = at + length
    while True:
        found = <const byte*>memchr(found, c'\n', <size_t>(end - found))
        if found is NULL:
            return 0
        found += 1
        if end - found >= 2 and found[0] == c'\r' and found[1] == c'\n' and (found - 2)[0] == c'\r' and found - at >= 2:
            return found + 2 - at


cdef bint head_bare_lf(const byte* at, Py_ssize_t length) noexcept nogil:
    cdef const byte* found = at
    cdef const byte* end = at + length
    while True:
        found = <const byte*>memchr(found, c'\n', <size_t>(end - found))
        if found is NULL:
            return False
        if found == at or (found - 1)[0] != c'\r':
            return True
        found += 1


cdef bint head_is_plain(const Request* request) noexcept nogil:
    # Whether httptools may see it as it is.
    return not request.non_ascii and not request.upgrade and request.method != M_CONNECT


cdef bint head_line(Cursor* source, Cursor* line) noexcept nogil:
    # Takes a line that ends with CRLF.
    cdef const byte* end = <const byte*>memchr(source.at, c'\n', <size_t>cur_left(source))
    if end is NULL or end == source.at or (end - 1)[0] != c'\r':
        return False
    line.at = source.at
    line.end = end - 1
    source.at = end + 1
    return True


cdef bint head_request_line(Cursor line, Request* out) noexcept nogil:
    # METHOD SP target SP HTTP/1.x
    cdef const byte* start = line.at
    if cur_left(&line) < 14 or memcmp(line.end - 9, b" HTTP/1.", 8) != 0:
        return False
    out.minor = (line.end - 1)[0] - c'0'
    if out.minor != 0 and out.minor != 1:
        return False
    line.end -= 9
    while 65 <= cur_peek(&line) <= 90 or cur_peek(&line) == c'-':
        line.at += 1
    out.method_name = head_span(out, start, line.at)
    out.method = head_method(start, line.at - start)
    if not cur_take(&line, c' ') or cur_left(&line) == 0:
        return False
    out.target = head_span(out, line.at, line.end)
    if not head_target_bytes(line, out):
        return False
    head_target(line, out)
    return True


cdef bint head_target_bytes(Cursor target, Request* out) noexcept nogil:
    # No blanks and control characters; bytes >= 0x80 are noted.
    cdef Block block
    cdef unsigned int odd
    while cur_left(&target) > 0:
        block = blk_load(target.at, cur_left(&target))
        odd = blk_odd(block) & blk_part(cur_left(&target))
        if odd:
            if odd & ~blk_high(block):
                return False
            out.non_ascii = True
        target.at += BLOCK
    return True


cdef int head_method(const byte* name, Py_ssize_t length) noexcept nogil:
    if length == 3 and memcmp(name, b"GET", 3) == 0:
        return M_GET
    if length == 4 and memcmp(name, b"HEAD", 4) == 0:
        return M_HEAD
    if length == 4 and memcmp(name, b"POST", 4) == 0:
        return M_POST
    if length == 3 and memcmp(name, b"PUT", 3) == 0:
        return M_PUT
    if length == 7 and memcmp(name, b"OPTIONS", 7) == 0:
        return M_OPTIONS
    return M_CONNECT if length == 7 and memcmp(name, b"CONNECT", 7) == 0 else M_OTHER


cdef void head_target(Cursor target, Request* out) noexcept nogil:
    # Path and query. Absolute form (RFC 9112, 3.2.2): what stands before the path is not looked at.
    cdef const byte* mark
    if cur_peek(&target) != c'/':
        head_skip_authority(&target)
    mark = <const byte*>memchr(target.at, c'?', <size_t>cur_left(&target))
    if mark is NULL:
        out.path = head_span(out, target.at, target.end)
    else:
        out.path = head_span(out, target.at, mark)
        out.query = head_span(out, mark + 1, target.end)


cdef void head_skip_authority(Cursor* target) noexcept nogil:
    cdef Cursor rest = target[0]
    if not (head_prefix(&rest, b"http://", 7) or head_prefix(&rest, b"https://", 8)):
        return
    while cur_left(&rest) and cur_peek(&rest) != c'/' and cur_peek(&rest) != c'?':
        rest.at += 1
    target[0] = rest


cdef bint head_prefix(Cursor* text, const char* prefix, Py_ssize_t length) noexcept nogil:
    # Takes the prefix (in lower case) whatever the text's case.
    if cur_left(text) < length or not head_same(text.at, prefix, length):
        return False
    text.at += length
    return True


cdef bint head_same(const byte* text, const char* lower, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(length):
        if chr_lower(text[i]) != lower[i]:
            return False
    return True


cdef inline Span head_span(const Request* request, const byte* at, const byte* end) noexcept nogil:
    return span_of(IN_HEAD, at - request.head, end - at)


cdef bint head_field(Cursor line, Request* out) noexcept nogil:
    # `name: value`; the value without the blanks around it.
    cdef const byte* name = line.at
    cdef const byte* colon = head_colon(&line)
    cdef Cursor value
    if colon is NULL or colon == name:
        return False
    value = cur_of(colon + 1, line.end - colon - 1)
    while cur_peek(&value) == c' ' or cur_peek(&value) == c'\t':
        value.at += 1
    while value.end > value.at and ((value.end - 1)[0] == c' ' or (value.end - 1)[0] == c'\t'):
        value.end -= 1
    return head_keep(name, colon - name, value, out)


cdef inline const byte* head_colon(const Cursor* line) noexcept nogil:
    # NULL: there is none. It is mostly among the first bytes.
    cdef unsigned int mask
    if cur_left(line) >= BLOCK:
        mask = blk_is(blk_at(line.at), c':')
        if mask:
            return line.at + blk_first(mask)
    return <const byte*>memchr(line.at, c':', <size_t>cur_left(line)) if cur_left(line) else NULL


cdef bint head_keep(const byte* name, Py_ssize_t length, Cursor value, Request* out) noexcept nogil:
    # By length first: most names are looked at no further. False: the request is malformed.
    cdef int header = -1
    if length == 4:
        if head_named(name, b"host", 4):
            header = H_HOST
            out.hosts += 1
    elif length == 6:
        if head_named(name, b"accept", 6):
            header = H_ACCEPT
        elif head_named(name, b"origin", 6):
            header = H_ORIGIN
        elif head_named(name, b"cookie", 6):
            header = H_COOKIE
        elif head_named(name, b"expect", 6):
            out.expect = cur_left(&value) == 12 and head_same(value.at, b"100-continue", 12)
    elif length == 3:
        if head_named(name, b"dnt", 3):
            out.gpc |= head_says_one(value)
    elif length == 7:
        if head_named(name, b"referer", 7):
            header = H_REFERER
        elif head_named(name, b"upgrade", 7):
            out.upgrade = True
        elif head_named(name, b"sec-gpc", 7):
            out.gpc |= head_says_one(value)
    elif length == 10:
        if head_named(name, b"user-agent", 10):
            header = H_USER_AGENT
        elif head_named(name, b"connection", 10):
            head_connection(value, out)
    elif length == 12:
        if head_named(name, b"content-type", 12):
            header = H_CONTENT_TYPE
    elif length == 14:
        if head_named(name, b"content-length", 14):
            return head_length(value, out)
    elif length == 15:
        if head_named(name, b"x-forwarded-for", 15):
            head_forwarded(head_span(out, value.at, value.end), out)
    elif length == 16:
        if head_named(name, b"proxy-connection", 16):
            head_connection(value, out)     # llhttp reads it as Connection too, and both must see the same end
        elif head_named(name, b"content-encoding", 16):
            header = H_CONTENT_ENCODING
    elif length == 17:
        if head_named(name, b"transfer-encoding", 17):
            if out.chunked or cur_left(&value) != 7 or not head_same(value.at, b"chunked", 7):
                return False
            out.chunked = True
        elif head_named(name, b"x-forwarded-proto", 17):
            header = H_FORWARDED_PROTO
    elif length == 29:
        if head_named(name, b"access-control-request-method", 29):
            header = H_REQUEST_METHOD
    elif length == 30:
        if head_named(name, b"access-control-request-headers", 30):
            header = H_REQUEST_HEADERS
    if header >= 0:
        out.headers[header] = head_span(out, value.at, value.end)
    return True


cdef inline bint head_named(const byte* name, const char* lower, Py_ssize_t length) noexcept nogil:
    # Whether a name of that length is the one in lower case. The first two letters tell nearly always.
    return chr_lower(name[0]) == lower[0] and chr_lower(name[1]) == lower[1] and head_same(name, lower, length)


cdef inline bint head_says_one(Cursor value) noexcept nogil:
    return cur_left(&value) == 1 and value.at[0] == c'1'


cdef void head_forwarded(Span span, Request* out) noexcept nogil:
    # Of many such headers the last ones count: those that the nearest proxies wrote.
    if out.forwarded_count == MAX_FORWARDED:
        memmove(&out.forwarded[0], &out.forwarded[1], (MAX_FORWARDED - 1) * sizeof(Span))
        out.forwarded_count -= 1
    out.forwarded[out.forwarded_count] = span
    out.forwarded_count += 1


cdef void head_connection(Cursor value, Request* out) noexcept nogil:
    # A list of options; mostly the one that browsers send.
    cdef const byte* start
    if cur_left(&value) == 10 and head_same(value.at, b"keep-alive", 10):
        out.keep_alive = True
        return
    while cur_left(&value):
        while cur_left(&value) and (cur_peek(&value) == c',' or cur_peek(&value) == c' ' or cur_peek(&value) == c'\t'):
            value.at += 1
        start = value.at
        while cur_left(&value) and cur_peek(&value) != c',' and cur_peek(&value) != c' ' and cur_peek(&value) != c'\t':
            value.at += 1
        if value.at - start == 5 and head_same(start, b"close", 5):
            out.close = True
        elif value.at - start == 10 and head_same(start, b"keep-alive", 10):
            out.keep_alive = True


cdef bint head_length(Cursor value, Request* out) noexcept nogil:
    # Digits only, once, and fewer than nineteen of them.
    if out.has_length or not 0 < cur_left(&value) < 19:
        return False
    out.has_length = True
    while cur_left(&value):
        if not chr_digit(cur_peek(&value)):
            return False
        out.length = out.length * 10 + <uint64_t>(cur_next(&value) - c'0')
    return True


cdef Cursor head_value(const Request* request, int header) noexcept nogil:
    cdef Span span = request.headers[header]
    return cur_of(request.head + (span.at & SPAN_MASK), span.len)


cdef bint head_is(const Request* request, int header, const char* lower) noexcept nogil:
    cdef Cursor value = head_value(request, header)
    cdef Py_ssize_t length = <Py_ssize_t>strlen(lower)
    return cur_left(&value) == length and head_same(value.at, lower, length)


cdef bint head_has(Cursor text, const char* lower) noexcept nogil:
    # Whether the text contains it, whatever its case.
    cdef Py_ssize_t length = <Py_ssize_t>strlen(lower)
    while cur_left(&text) >= length:
        if head_same(text.at, lower, length):
            return True
        text.at += 1
    return False


cdef bint head_is_json(const Request* request) noexcept nogil:
    # application/json, */json and */*+json; parameters after ';' do not matter.
    cdef Cursor value = head_value(request, H_CONTENT_TYPE)
    cdef const byte* end = <const byte*>memchr(value.at, c';', <size_t>cur_left(&value)) if cur_left(&value) else NULL
    if end is not NULL:
        value.end = end
    value = num_trim(value)
    if cur_left(&value) < 5 or not head_same(value.end - 4, b"json", 4):
        return False
    return (value.end - 5)[0] == c'/' or (value.end - 5)[0] == c'+'


cdef bint head_is_encoded(const Request* request) noexcept nogil:
    # A body in a coding that is not read.
    return request.headers[H_CONTENT_ENCODING].len > 0 and not head_is(request, H_CONTENT_ENCODING, b"identity")


cdef int head_accepts(const Request* request) noexcept nogil:
    # Rule: RudderStack page, `reply = "auto"`.
    cdef Cursor value = head_value(request, H_ACCEPT)
    if head_has(value, b"image/"):
        return ACCEPT_IMAGE
    if head_has(value, b"text/plain") or head_has(value, b"application/json"):
        return ACCEPT_TEXT
    return ACCEPT_OTHER
