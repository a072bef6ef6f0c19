
# JSON in: one RFC 8259 document becomes msgpack in one pass, straight into a Pack.
#
# What the protocol rules decide: a name that comes twice counts once, with its last value, at the place of its last
# occurrence (cutting the earlier ones out is the cheaper way); whole numbers from -2^63 to 2^64-1 are exact, -0 is 0 and
# only -0.0 keeps its sign; longer ones and floats that overflow are kept as text, digit for digit; an unpaired surrogate
# escape becomes U+FFFD, in names too; a member `__proto__` is read, left out and counted. A byte order mark is no JSON.
# `screened`, for params.pxi, leaves out more names: see jsn_ignored.
# A document that is not UTF-8 anywhere is JSN_ENCODING whatever else is wrong with it, as if it had been decoded first.
#
# How the shortest msgpack comes out of one pass: a map or array gets one byte for its header, which is enough up to 15
# members. What is larger, and every earlier value of a repeated name, is noted as an edit; the edits, sorted by place,
# are carried out at the end in one copy. So work is linear in the document, times the logarithm of its edits. Repeated
# names are found when their map closes: few names by comparing all of them, many by a table with a keyed hash.

from libc.stdlib cimport qsort

cdef enum:
    JSN_NUMBER = 1024               # characters in a number
    JSN_FEW = 16                    # names that are compared one with another
    JSN_DEPTH = 1000                # recursion bound, whatever a caller asks for
    JSN_BYTES = 1 << 30             # a longer document is JSN_BAD; callers set limits far below

cdef const char* JSN_PROTO = "\xa9__proto__"                # as it stands in the Pack


cdef void jsn_free(Json* j) noexcept nogil:
    pk_free(&j.names)
    pk_free(&j.edits)
    pk_free(&j.table)
    pk_free(&j.copy)


cdef int jsn_pack(Json* j, const byte* p, Py_ssize_t n, Pack* out, int max_depth) noexcept nogil:
    # Appends the document to `out` and gives JSN_OK; else `out` is as long as before and j.error is the offset of the
    # first bad byte. The caller zeroes `j` before its first use, may use it again, and looks at out.failed.
    cdef Py_ssize_t start = out.len, good
    j.src = cur_of(p, n)
    j.out = out
    j.left = max_depth if max_depth < JSN_DEPTH else JSN_DEPTH
    j.top = j.left - 1
    j.result = JSN_OK
    j.protos = 0
    j.names.len = j.edits.len = 0
    if n < JSN_BYTES and jsn_value(j) and jsn_end(j):
        jsn_apply(j, start)
        return JSN_OK
    out.len = start
    j.error = j.src.at - p
    good = utf_valid(p, n)
    if good < n:
        j.error = good
        return JSN_ENCODING
    return j.result if j.result else JSN_BAD


cdef inline bint jsn_fail(Json* j, JsonResult result) noexcept nogil:
    j.result = result
    return False


cdef inline int jsn_peek(Json* j) noexcept nogil:
    # The next byte that is not white space (RFC 8259 section 2).
    cdef int c = cur_peek(&j.src)
    while c == 32 or c == 10 or c == 13 or c == 9:
        j.src.at += 1
        c = cur_peek(&j.src)
    return c


cdef bint jsn_end(Json* j) noexcept nogil:
    return jsn_peek(j) < 0


cdef bint jsn_value(Json* j) noexcept nogil:
    cdef int c = jsn_peek(j)
    if c == 34:
        return jsn_string(j)
    if c == 123:
        return jsn_object(j)
    if c == 91:
        return jsn_array(j)
    if c == 45 or chr_digit(c):
        return jsn_number(j)
    if c == 116:
        return jsn_word(j, "true", 4, 0xC3)
    if c == 102:
        return jsn_word(j, "false", 5, 0xC2)
    return jsn_word(j, "null", 4, 0xC0)


cdef bint jsn_word(Json* j, const char* word, Py_ssize_t length, int header) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(length):
        if not cur_take(&j.src, word[i]):
            return False
    pk_byte(j.out, header)
    return True


# -- Maps and arrays -------------------------------------------------------------------------------------------------

cdef inline bint jsn_enter(Json* j) noexcept nogil:
    # Takes the opening bracket.
    if j.left <= 0:
        return jsn_fail(j, JSN_DEEP)
    j.left -= 1
    j.src.at += 1
    return True


cdef inline bint jsn_leave(Json* j) noexcept nogil:
    j.left += 1
    return True


cdef bint jsn_array(Json* j) noexcept nogil:
    cdef Py_ssize_t at = j.out.len, count = 0
    if not jsn_enter(j):
        return False
    pk_byte(j.out, 0x90)
    if jsn_peek(j) != 93:
        while True:
            if not jsn_value(j):
                return False
            count += 1
            if jsn_peek(j) != 44:
                break
            j.src.at += 1
    jsn_head(j, at, 0x90, count)
    return cur_take(&j.src, 93) and jsn_leave(j)


cdef bint jsn_object(Json* j) noexcept nogil:
    cdef Py_ssize_t at = j.out.len, first = j.names.len
    if not jsn_enter(j):
        return False
    pk_byte(j.out, 0x80)
    if jsn_peek(j) != 125:
        while True:
            if not jsn_member(j):
                return False
            if jsn_peek(j) != 44:
                break
            j.src.at += 1
    jsn_head(j, at, 0x80, jsn_unique(j, first))
    j.names.len = first
    return cur_take(&j.src, 125) and jsn_leave(j)


cdef bint jsn_member(Json* j) noexcept nogil:
    cdef Py_ssize_t at = j.out.len, edits = j.edits.len
    cdef bint proto, ignored
    if jsn_peek(j) != 34 or not jsn_string(j):
        return False
    proto = j.out.len - at == 10 and memcmp(j.out.data + at, JSN_PROTO, 10) == 0
    ignored = proto or (j.screened and jsn_ignored(j, at))
    if not ignored:
        jsn_note(j, at)
    if jsn_peek(j) != 58:
        return False
    j.src.at += 1
    if not jsn_value(j):
        return False
    if ignored:                     # with everything that was noted inside its value
        j.out.len = at
        j.edits.len = edits
        j.protos += proto
    return True


cdef bint jsn_ignored(Json* j, Py_ssize_t at) noexcept nogil:
    # Rule: protocols "PitchTarget": names that begin with '$' or '_' or have a '.', at any depth. And a token that is not
    # at the top: nobody would look for it there, and it would be stored in clear.
    cdef Cursor name = cur_of(j.out.data + at, j.out.len - at)
    cdef int head = cur_next(&name), first
    if head >= 0xD9:
        name.at += 1 << (head - 0xD9)
    first = cur_peek(&name)
    if first < 0 or first == c'$' or first == c'_':
        return first >= 0
    if memchr(name.at, c'.', <size_t>cur_left(&name)) is not NULL:
        return True
    return j.left < j.top and cur_left(&name) == 12 and memcmp(name.at, b"access_token", 12) == 0


cdef inline void jsn_head(Json* j, Py_ssize_t at, int head, Py_ssize_t count) noexcept nogil:
    # Completes the header at `at`, or notes that it needs more room.
    if count >= 16:
        jsn_edit(j, at, 1, head, count)
    elif not j.out.failed:
        j.out.data[at] = <byte>(head | count)


# -- Names that come twice -------------------------------------------------------------------------------------------

cdef inline void jsn_note(Json* j, Py_ssize_t at) noexcept nogil:
    # The name that was just written at `at`. Its tag is its first eight bytes in the Pack, header included, so names of
    # up to seven bytes differ exactly when their tags do.
    cdef JsonName* name
    if not pk_room(&j.names, sizeof(JsonName)) or not pk_room(j.out, 8):
        return
    name = <JsonName*>(j.names.data + j.names.len)
    name.at = at
    name.len = j.out.len - at
    name.tag = utf_word(j.out.data + at)
    if name.len < 8:
        name.tag &= (1uLL << (8 * name.len)) - 1
    j.names.len += sizeof(JsonName)


cdef inline bint jsn_same(Json* j, const JsonName* a, const JsonName* b) noexcept nogil:
    if a.tag != b.tag or a.len != b.len:
        return False
    return a.len <= 8 or memcmp(j.out.data + a.at, j.out.data + b.at, <size_t>a.len) == 0


cdef inline Py_ssize_t jsn_unique(Json* j, Py_ssize_t first) noexcept nogil:
    # Cuts the earlier of equal names among those from offset `first` on; gives how many are left.
    cdef Py_ssize_t count = (j.names.len - first) // <Py_ssize_t>sizeof(JsonName)
    if count < 2:
        return count
    if count <= JSN_FEW:
        return jsn_few(j, <JsonName*>(j.names.data + first), count)
    return jsn_many(j, <JsonName*>(j.names.data + first), count)


cdef Py_ssize_t jsn_few(Json* j, const JsonName* names, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t left = count, i, k
    for i in range(count - 1):
        for k in range(i + 1, count):
            if jsn_same(j, &names[i], &names[k]):
                jsn_cut(j, &names[i])
                left -= 1
                break
    return left


cdef Py_ssize_t jsn_many(Json* j, const JsonName* names, Py_ssize_t count) noexcept nogil:
    # From the last to the first, so that the later one of two is in the table already.
    cdef Py_ssize_t size = 64, left = count, i
    cdef uint32_t* table
    cdef uint64_t at
    while size < 2 * count:
        size *= 2
    j.table.len = 0
    if j.out.failed or not pk_room(&j.table, 4 * size):
        return count
    table = <uint32_t*>j.table.data
    memset(table, 0, <size_t>(4 * size))
    for i in range(count - 1, -1, -1):
        at = hsh_bytes(j.out.data + names[i].at, names[i].len) & <uint64_t>(size - 1)
        while table[at] and not jsn_same(j, &names[i], &names[table[at] - 1]):
            at = (at + 1) & <uint64_t>(size - 1)
        if table[at]:
            jsn_cut(j, &names[i])
            left -= 1
        else:
            table[at] = <uint32_t>(i + 1)
    return left


# -- Edits -----------------------------------------------------------------------------------------------------------

cdef void jsn_edit(Json* j, Py_ssize_t at, Py_ssize_t drop, int head, Py_ssize_t count) noexcept nogil:
    cdef JsonEdit* edit
    if not pk_room(&j.edits, sizeof(JsonEdit)):
        return
    edit = <JsonEdit*>(j.edits.data + j.edits.len)
    edit.at = at
    edit.drop = drop
    edit.head = head
    edit.count = count
    j.edits.len += sizeof(JsonEdit)


cdef void jsn_cut(Json* j, const JsonName* name) noexcept nogil:
    # One member, up to the name that follows it. It joins the cut right behind it, which jsn_many has just made: a
    # thousand times the same name is one edit.
    cdef JsonEdit* last
    if j.edits.len > 0:
        last = <JsonEdit*>(j.edits.data + j.edits.len) - 1
        if last.head == 0 and last.at == name[1].at:
            last.drop += last.at - name.at
            last.at = name.at
            return
    jsn_edit(j, name.at, name[1].at - name.at, 0, 0)


cdef int jsn_order(const void* a, const void* b) noexcept nogil:
    cdef Py_ssize_t first = (<const JsonEdit*>a).at, second = (<const JsonEdit*>b).at
    return (first > second) - (first < second)


cdef void jsn_apply(Json* j, Py_ssize_t start) noexcept nogil:
    # Carries out the edits of what was written from `start` on. One inside something that was cut is passed over.
    cdef JsonEdit* edit = <JsonEdit*>j.edits.data
    cdef Py_ssize_t count = j.edits.len // <Py_ssize_t>sizeof(JsonEdit), read = start, i
    if jsn_failed(j) or count == 0:
        return
    qsort(edit, <size_t>count, sizeof(JsonEdit), jsn_order)
    j.copy.len = 0
    for i in range(count):
        if edit[i].at >= read:
            pk_raw(&j.copy, j.out.data + read, edit[i].at - read)
            jsn_wide_head(&j.copy, &edit[i])
            read = edit[i].at + edit[i].drop
    pk_raw(&j.copy, j.out.data + read, j.out.len - read)
    if not jsn_failed(j):
        j.out.len = start
        pk_raw(j.out, j.copy.data, j.copy.len)


cdef void jsn_wide_head(Pack* out, const JsonEdit* edit) noexcept nogil:
    if edit.head == 0x80:
        pk_map(out, edit.count)
    elif edit.head == 0x90:
        pk_array(out, edit.count)


cdef bint jsn_failed(Json* j) noexcept nogil:
    # Out of memory in one buffer is out of memory.
    if j.names.failed or j.edits.failed or j.table.failed or j.copy.failed:
        j.out.failed = True
    return j.out.failed


# -- Strings ---------------------------------------------------------------------------------------------------------

cdef inline bint jsn_run(Json* j) noexcept nogil:
    # Skips to '"', a backslash, a control character or the end. False: not UTF-8.
    cdef const byte* start = j.src.at
    cdef uint64_t word, marks = 0, high = 0
    while not marks and cur_left(&j.src) >= 8:
        word = utf_word(j.src.at)
        marks = chr_marks(word)
        if marks:
            word &= (marks & (0 - marks)) - 1               # the bytes before the mark
        high |= word
        j.src.at += chr_first(marks) if marks else 8
    while not marks and cur_peek(&j.src) >= 0x20 and j.src.at[0] != 34 and j.src.at[0] != 92:
        high |= <uint64_t>j.src.at[0]
        j.src.at += 1
    if not high & 0x8080808080808080u:
        return True
    return utf_valid(start, j.src.at - start) == j.src.at - start


cdef bint jsn_string(Json* j) noexcept nogil:
    # The caller has seen the '"'.
    cdef const byte* start = j.src.at + 1
    j.src.at = start
    if not jsn_run(j):
        return False
    if cur_peek(&j.src) == 34:
        pk_str(j.out, start, j.src.at - start)
        j.src.at += 1
        return True
    return jsn_escaped(j, start)


cdef bint jsn_escaped(Json* j, const byte* start) noexcept nogil:
    # Its length is known at its end: the text is written five bytes on and moved back behind its header.
    cdef Py_ssize_t at = j.out.len, length
    pk_raw(j.out, <const char*>"12345", 5)
    while True:
        pk_raw(j.out, start, j.src.at - start)
        if not cur_take(&j.src, 92):
            break
        if not jsn_escape(j):
            return False
        start = j.src.at
        if not jsn_run(j):
            return False
    if not cur_take(&j.src, 34) or j.out.failed:
        return False
    length = j.out.len - at - 5
    j.out.len = at
    pk_str_head(j.out, length)
    memmove(j.out.data + j.out.len, j.out.data + at + 5, <size_t>length)
    j.out.len += length
    return True


cdef bint jsn_escape(Json* j) noexcept nogil:
    # What follows the backslash.
    cdef int c = cur_peek(&j.src)
    if c == 117:
        return jsn_unicode(j)
    if c == 110:
        c = 10
    elif c == 116:
        c = 9
    elif c == 114:
        c = 13
    elif c == 98:
        c = 8
    elif c == 102:
        c = 12
    elif c != 34 and c != 92 and c != 47:
        return False
    j.src.at += 1
    pk_byte(j.out, c)
    return True


cdef inline int jsn_four(Cursor* src) noexcept nogil:
    # Takes uXXXX; -1: it is not that, and something was taken.
    cdef int code = 0, digit, i
    if not cur_take(src, 117):
        return -1
    for i in range(4):
        digit = chr_hex(cur_peek(src))
        if digit < 0:
            return -1
        src.at += 1
        code = code << 4 | digit
    return code


cdef bint jsn_unicode(Json* j) noexcept nogil:
    # One escape, or the two of a surrogate pair (RFC 8259 section 7).
    cdef int code = jsn_four(&j.src), low = -1
    cdef Cursor ahead = j.src
    if code < 0:
        return False
    if 0xD800 <= code < 0xDC00 and cur_take(&ahead, 92):
        low = jsn_four(&ahead)
    if 0xDC00 <= low < 0xE000:
        code = 0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00))
        j.src = ahead
    if 0xD800 <= code < 0xE000:
        code = UTF_REPLACEMENT
    if pk_room(j.out, 4):
        j.out.len += utf_put(j.out.data + j.out.len, code)
    return True


# -- Numbers ---------------------------------------------------------------------------------------------------------

cdef struct Number:
    uint64_t digits                 # all of them, without sign, point and exponent
    bint lost                       # they do not fit
    bint real                       # it has a fraction or an exponent
    int scale                       # value = digits x 10^scale


cdef inline bint jsn_digits(Cursor* src, Number* number) noexcept nogil:
    # Takes one digit or more.
    cdef const byte* start = src.at
    cdef uint64_t digit
    while chr_digit(cur_peek(src)):
        digit = <uint64_t>(cur_next(src) - 48)
        if number.digits > (0xFFFFFFFFFFFFFFFFu - digit) // 10:
            number.lost = True
        else:
            number.digits = number.digits * 10 + digit
    return src.at > start


cdef inline bint jsn_fraction(Cursor* src, Number* number) noexcept nogil:
    cdef const byte* start = src.at
    number.real = True
    if not jsn_digits(src, number):
        return False
    number.scale -= <int>(src.at - start) if src.at - start <= JSN_NUMBER else 0
    return True


cdef bint jsn_exponent(Cursor* src, Number* number) noexcept nogil:
    cdef bint negative = cur_take(src, 45)
    cdef int exponent = 0
    number.real = True
    if not negative:
        cur_take(src, 43)
    if not chr_digit(cur_peek(src)):
        return False
    while chr_digit(cur_peek(src)):
        if exponent < 100000:       # beyond that it is zero or infinite anyway
            exponent = exponent * 10 + src.at[0] - 48
        src.at += 1
    number.scale += -exponent if negative else exponent
    return True


cdef bint jsn_number(Json* j) noexcept nogil:
    # RFC 8259 section 6.
    cdef const byte* start = j.src.at
    cdef bint negative = cur_take(&j.src, 45)
    cdef Number number
    memset(&number, 0, sizeof(number))
    if not cur_take(&j.src, 48) and not jsn_digits(&j.src, &number):
        return False
    if cur_take(&j.src, 46) and not jsn_fraction(&j.src, &number):
        return False
    if (cur_take(&j.src, 101) or cur_take(&j.src, 69)) and not jsn_exponent(&j.src, &number):
        return False
    if j.src.at - start > JSN_NUMBER:
        j.src.at = start
        return False
    jsn_store(j, &number, negative, start)
    return True


cdef inline void jsn_store(Json* j, const Number* number, bint negative, const byte* start) noexcept nogil:
    if number.real:
        jsn_real(j, number, negative, start)
    elif number.lost or (negative and number.digits > (1uLL << 63)):
        pk_str(j.out, start, j.src.at - start)
    elif negative:
        pk_int(j.out, <int64_t>(0 - number.digits))
    else:
        pk_uint(j.out, number.digits)


cdef void jsn_real(Json* j, const Number* number, bint negative, const byte* start) noexcept nogil:
    cdef char text[JSN_NUMBER + 1]
    cdef Py_ssize_t length = j.src.at - start
    cdef double value
    if number.lost or not flt_scaled(number.digits, number.scale, &value):
        memcpy(text, start + negative, <size_t>(length - negative))
        text[length - negative] = 0
        value = flt_read(text)
    if value - value != 0:
        pk_str(j.out, start, length)
    else:
        pk_double(j.out, -value if negative else value)


def pack_json(bytes data not None, int max_depth=200):
    """(reason, msgpack) of one JSON document; the msgpack is empty where there is a reason.

    Reasons: bad_json, bad_encoding, too_deep. ValueError: `max_depth` is not in 0 to 1000.
    """
    cdef Json j
    cdef Pack out
    cdef int result
    if not 0 <= max_depth <= JSN_DEPTH:
        raise ValueError(f"max_depth must be 0 to {JSN_DEPTH}, not {max_depth}")
    memset(&j, 0, sizeof(j))
    memset(&out, 0, sizeof(out))
    try:
        result = jsn_pack(&j, data, len(data), &out, max_depth)
        if out.failed:
            raise MemoryError
        reason = (None, "bad_json", "bad_encoding", "too_deep")[result]
        return reason, (<const char*>out.data)[:out.len] if out.len else b""
    finally:
        pk_free(&out)
        jsn_free(&j)


def json_offset(bytes data not None):
    """Where one JSON document goes wrong: the offset of the first byte that cannot be right; its length: nowhere."""
    cdef Json j
    cdef Pack out
    cdef int result
    memset(&j, 0, sizeof(j))
    memset(&out, 0, sizeof(out))
    try:
        result = jsn_pack(&j, data, len(data), &out, JSN_DEPTH)
        if out.failed:
            raise MemoryError
        return len(data) if result == JSN_OK else j.error
    finally:
        pk_free(&out)
        jsn_free(&j)
