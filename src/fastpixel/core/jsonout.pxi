
# msgpack out: reads stored batches and writes them as strict JSON.
#
# Source: the msgpack specification; RFC 8259 for what is written. A batch comes from a disk, so nothing is believed: all
# reads go through the cursor, counts are compared with what is left, nesting is bounded, and text that is not UTF-8 is
# repaired. What JSON cannot say is null: NaN, infinities, bin, extensions other than the timestamp, times outside the
# years 1 to 9999. Escaped are '"', '\\', control characters (C0, DEL, C1) and U+2028 and U+2029, so that a line stays a
# line in every reader. Names that are no text are written as text; a map or an array as a name is malformed.
# It must not know what a record means, but for the name `receivedAt`, by which batches are merged.

cdef enum:
    OUT_DEPTH = 512                 # above what any door lets in


# Headers 0xC0 to 0xDF: what they announce, and the bytes of the number that follows.
cdef byte[32] OUT_KIND = [
    ITEM_NIL, ITEM_BAD, ITEM_FALSE, ITEM_TRUE, ITEM_BIN, ITEM_BIN, ITEM_BIN, ITEM_EXT,
    ITEM_EXT, ITEM_EXT, ITEM_FLOAT, ITEM_DOUBLE, ITEM_UINT, ITEM_UINT, ITEM_UINT, ITEM_UINT,
    ITEM_INT, ITEM_INT, ITEM_INT, ITEM_INT, ITEM_FIXEXT, ITEM_FIXEXT, ITEM_FIXEXT, ITEM_FIXEXT,
    ITEM_FIXEXT, ITEM_STR, ITEM_STR, ITEM_STR, ITEM_ARRAY, ITEM_ARRAY, ITEM_MAP, ITEM_MAP,
]
cdef byte[32] OUT_WIDTH = [
    0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4,
]


# -- Reading ---------------------------------------------------------------------------------------------------------

cdef inline bint out_number(Cursor* src, int width, uint64_t* number) noexcept nogil:
    # A big-endian number.
    cdef int i
    if cur_left(src) < width:
        return False
    number[0] = 0
    for i in range(width):
        number[0] = number[0] << 8 | <uint64_t>cur_next(src)
    return True


cdef inline bint out_payload(Cursor* src, Item* item) noexcept nogil:
    item.text = src.at
    if <uint64_t>cur_left(src) < item.num:
        return False
    src.at += item.num
    return True


cdef inline bint out_extension(Cursor* src, Item* item) noexcept nogil:
    item.ext = cur_next(src)
    item.kind = ITEM_EXT
    if item.ext >= 0x80:
        item.ext -= 0x100
        return out_payload(src, item)
    return item.ext >= 0 and out_payload(src, item)


cdef bint out_wide(Cursor* src, Item* item, int header) noexcept nogil:
    # The headers of the two tables.
    cdef int width = OUT_WIDTH[header - 0xC0]
    item.kind = <ItemKind>OUT_KIND[header - 0xC0]
    if not out_number(src, width, &item.num):
        return False
    if item.kind == ITEM_STR or item.kind == ITEM_BIN:
        return out_payload(src, item)
    if item.kind == ITEM_INT and item.num >> (8 * width - 1) & 1 and width < 8:
        item.num |= ~<uint64_t>0 << (8 * width)
    if item.kind == ITEM_FIXEXT:
        item.num = 1u << (header - 0xD4)
    if item.kind == ITEM_FIXEXT or item.kind == ITEM_EXT:
        return out_extension(src, item)
    return item.kind != ITEM_BAD


cdef inline bint out_item(Cursor* src, Item* item) noexcept nogil:
    # Takes one header, and the text or payload it announces, but no members. False: cut off or no msgpack.
    cdef int header = cur_next(src)
    if 0xC0 <= header < 0xE0:
        return out_wide(src, item, header)
    if header < 0x80 or header >= 0xE0:
        item.kind = ITEM_UINT if header < 0x80 else ITEM_INT
        item.num = <uint64_t>(header if header < 0x80 else header - 0x100)
        return header >= 0
    if header >= 0xA0:
        item.kind = ITEM_STR
        item.num = <uint64_t>(header & 0x1F)
        return out_payload(src, item)
    item.kind = ITEM_ARRAY if header & 0x10 else ITEM_MAP
    item.num = <uint64_t>(header & 0x0F)
    return True


cdef bint out_skip(Cursor* src) noexcept nogil:
    # Takes one whole value of any depth: it counts what is announced and not yet taken. False: not whole.
    cdef Item item
    cdef int64_t pending = 1
    while pending:
        if not out_item(src, &item):
            return False
        pending -= 1
        if item.kind >= ITEM_ARRAY:
            pending += <int64_t>item.num << (item.kind == ITEM_MAP)
            if pending > cur_left(src):
                return False
    return True


cdef bint out_has_at_most(Cursor src, Py_ssize_t values) noexcept nogil:
    # Whether there are no more of them: scalars, names, maps and arrays, at any depth.
    # Each takes a byte or more, so short documents need not be looked at.
    cdef Item item
    if cur_left(&src) <= values:
        return True
    while values and out_item(&src, &item):
        values -= 1
    return cur_left(&src) == 0


cdef bint out_moment(const Item* item, Time* moment) noexcept nogil:
    # A timestamp in any of its three forms. False: something else, or outside the years 1 to 9999.
    cdef Cursor src = cur_of(item.text, <Py_ssize_t>item.num) if item.kind == ITEM_EXT else cur_of(NULL, 0)
    cdef uint64_t high = 0, low = 0
    if item.kind != ITEM_EXT or item.ext != -1:
        return False
    if item.num == 4 and out_number(&src, 4, &low):
        moment.seconds = <int64_t>low
        moment.nanos = 0
    elif item.num == 8 and out_number(&src, 8, &low):
        moment.seconds = <int64_t>(low & 0x3FFFFFFFFu)
        moment.nanos = <uint32_t>(low >> 34)
    elif item.num == 12 and out_number(&src, 4, &high) and out_number(&src, 8, &low):
        moment.seconds = <int64_t>low
        moment.nanos = <uint32_t>high
    else:
        return False
    return moment.nanos < 1000000000u and time_usable(moment)


# -- Writing ---------------------------------------------------------------------------------------------------------

cdef void out_time(Pack* out, const Time* moment) noexcept nogil:
    # RFC 3339 with milliseconds, rounded down.
    cdef byte text[TIME_TEXT]
    time_text(moment[0], text)
    pk_byte(out, c'"')
    pk_raw(out, text, TIME_TEXT)
    pk_byte(out, c'"')


cdef void out_uint(Pack* out, uint64_t value) noexcept nogil:
    cdef char text[20]
    cdef int at = 20
    while at == 20 or value:
        at -= 1
        text[at] = <char>(48 + value % 10)
        value //= 10
    pk_raw(out, text + at, 20 - at)


cdef void out_int(Pack* out, int64_t value) noexcept nogil:
    if value < 0:
        pk_byte(out, 45)
    out_uint(out, -<uint64_t>value if value < 0 else <uint64_t>value)


cdef void out_double(Pack* out, double value) noexcept nogil:
    cdef char text[FLT_TEXT]
    if value - value != 0:                      # NaN and infinities
        pk_raw(out, <const char*>"null", 4)
    else:
        pk_raw(out, text, flt_write(value, text))


cdef void out_bits(Pack* out, const Item* item) noexcept nogil:
    cdef uint32_t half = <uint32_t>item.num
    cdef float narrow
    cdef double value
    if item.kind == ITEM_FLOAT:
        memcpy(&narrow, &half, 4)
        value = narrow
    else:
        memcpy(&value, &item.num, 8)
    out_double(out, value)


cdef inline bint out_escaped(int code) noexcept nogil:
    return code < 0x20 or code == 34 or code == 92 or 0x7F <= code < 0xA0 or code == 0x2028 or code == 0x2029


cdef inline void out_skip_ascii(Cursor* src) noexcept nogil:
    # Skips to the next byte that is not printable ASCII, or is '"' or a backslash.
    cdef uint64_t word, marks
    while cur_left(src) >= 8:
        word = utf_word(src.at)
        marks = chr_marks(word) | (word & 0x8080808080808080u)
        marks |= ((word ^ 0x7F7F7F7F7F7F7F7Fu) - 0x0101010101010101u) & 0x8080808080808080u & ~word
        if marks:
            src.at += chr_first(marks)
            return
        src.at += 8
    while cur_left(src) > 0 and src.at[0] < 0x7F and not out_escaped(src.at[0]):
        src.at += 1


cdef inline void out_skip_plain(Cursor* src) noexcept nogil:
    # Skips what is written as it is.
    cdef Cursor ahead
    cdef int code
    while True:
        out_skip_ascii(src)
        ahead = src[0]
        code = utf_next(&ahead)
        if code < 0x80 or out_escaped(code):
            return
        src[0] = ahead


cdef void out_escape(Pack* out, int code) noexcept nogil:
    # One code point that out_escaped names, or -1 for what was ill-formed.
    cdef const char* names = "\b\t\n\v\f\r\"\\"
    cdef const char* letters = "btn.fr\"\\"
    cdef const char* hexes = "0123456789abcdef"
    cdef char text[6]
    cdef int i
    if code < 0:
        pk_raw(out, <const char*>"\xef\xbf\xbd", 3)
        return
    for i in range(8):
        if names[i] == code and code != 11:
            pk_byte(out, 92)
            pk_byte(out, letters[i])
            return
    text[0] = 92
    text[1] = 117
    for i in range(4):
        text[2 + i] = hexes[code >> (12 - 4 * i) & 15]
    pk_raw(out, text, 6)


cdef void out_text(Pack* out, const byte* p, Py_ssize_t n) noexcept nogil:
    cdef Cursor src = cur_of(p, n)
    cdef const byte* run
    pk_byte(out, 34)
    while True:
        run = src.at
        out_skip_plain(&src)
        pk_raw(out, run, src.at - run)
        if cur_left(&src) == 0:
            break
        out_escape(out, utf_next(&src))
    pk_byte(out, 34)


cdef void out_scalar(Pack* out, const Item* item) noexcept nogil:
    cdef Time moment
    if item.kind == ITEM_STR:
        out_text(out, item.text, <Py_ssize_t>item.num)
    elif item.kind == ITEM_UINT:
        out_uint(out, item.num)
    elif item.kind == ITEM_INT:
        out_int(out, <int64_t>item.num)
    elif item.kind == ITEM_TRUE:
        pk_raw(out, <const char*>"true", 4)
    elif item.kind == ITEM_FALSE:
        pk_raw(out, <const char*>"false", 5)
    elif item.kind == ITEM_FLOAT or item.kind == ITEM_DOUBLE:
        out_bits(out, item)
    elif out_moment(item, &moment):
        out_time(out, &moment)
    else:
        pk_raw(out, <const char*>"null", 4)


cdef bint out_name(Cursor* src, Pack* out) noexcept nogil:
    # A member's name; what is no text is quoted.
    cdef Item item
    cdef Time moment
    if not out_item(src, &item) or item.kind >= ITEM_ARRAY:
        return False
    if item.kind == ITEM_STR or out_moment(&item, &moment):
        out_scalar(out, &item)
    else:
        pk_byte(out, 34)
        out_scalar(out, &item)
        pk_byte(out, 34)
    return True


cdef bint out_members(Cursor* src, Pack* out, uint64_t count, int depth) noexcept nogil:
    cdef uint64_t i
    for i in range(count):
        if i:
            pk_byte(out, 44)
        if not out_name(src, out):
            return False
        pk_byte(out, 58)
        if not out_value(src, out, depth):
            return False
    return True


cdef bint out_elements(Cursor* src, Pack* out, uint64_t count, int depth) noexcept nogil:
    cdef uint64_t i
    for i in range(count):
        if i:
            pk_byte(out, 44)
        if not out_value(src, out, depth):
            return False
    return True


cdef bint out_value(Cursor* src, Pack* out, int depth) noexcept nogil:
    # Takes one value and writes it. False: malformed, or more than `depth` maps and arrays in one another; what was
    # written then is rubbish.
    cdef Item item
    cdef bint good
    if not out_item(src, &item):
        return False
    if item.kind < ITEM_ARRAY:
        out_scalar(out, &item)
        return True
    if depth <= 0:
        return False
    pk_byte(out, 123 if item.kind == ITEM_MAP else 91)
    if item.kind == ITEM_MAP:
        good = out_members(src, out, item.num, depth - 1)
    else:
        good = out_elements(src, out, item.num, depth - 1)
    pk_byte(out, 125 if item.kind == ITEM_MAP else 93)
    return good


cdef bint out_line(Cursor* src, Pack* out, const Pack* prefix, uint64_t seq) noexcept nogil:
    # One record and a line feed; with a prefix (escaped already), "seq" is its last member.
    cdef Item item
    if not out_item(src, &item) or item.kind != ITEM_MAP:
        return False
    pk_byte(out, 123)
    if not out_members(src, out, item.num, OUT_DEPTH - 1):
        return False
    if prefix.len:
        if item.num:
            pk_byte(out, 44)
        pk_raw(out, <const char*>'"seq":', 6)
        pk_raw(out, prefix.data, prefix.len - 1)            # without its closing quote
        out_uint(out, seq)
        pk_byte(out, 34)
    pk_raw(out, <const char*>"}\n", 2)
    return True


# -- Batches ---------------------------------------------------------------------------------------------------------

cdef bint out_later(const Time* a, const Time* b) noexcept nogil:
    return a.seconds > b.seconds or (a.seconds == b.seconds and a.nanos > b.nanos)


cdef void out_see(Seen* seen, const Time* moment) noexcept nogil:
    if not seen.moments or out_later(&seen.least, moment):
        seen.least = moment[0]
    if not seen.moments or out_later(moment, &seen.greatest):
        seen.greatest = moment[0]
    seen.moments += 1


cdef bint out_scan(Cursor* src, Seen* seen) noexcept nogil:
    # Takes one record and notes its receivedAt.
    cdef Item item, name
    cdef Cursor ahead
    cdef Time moment
    cdef uint64_t i, pairs
    if not out_item(src, &item) or item.kind != ITEM_MAP:
        return False
    pairs = item.num
    for i in range(pairs):
        if not out_item(src, &name) or name.kind >= ITEM_ARRAY:
            return False
        ahead = src[0]
        if not out_skip(src):
            return False
        if name.kind == ITEM_STR and name.num == 10 and memcmp(name.text, <const char*>"receivedAt", 10) == 0:
            if out_item(&ahead, &item) and out_moment(&item, &moment):
                out_see(seen, &moment)
    seen.records += 1
    return True


cdef inline bint out_is_map(const Cursor* src) noexcept nogil:
    return 0x80 <= cur_peek(src) < 0x90 or 0xDE <= cur_peek(src) < 0xE0


cdef object out_broken(bytes value, const Cursor* src, Py_ssize_t records):
    cdef Py_ssize_t at = src.at - <const byte*>value
    return ValueError(f"a batch must be whole msgpack maps: record {records} is broken at byte {at} of {len(value)}")


def split(bytes value not None):
    """The records of one batch. ValueError: not whole msgpack maps."""
    cdef Cursor src = cur_of(value, len(value))
    cdef const byte* start
    cdef list records = []
    while cur_left(&src) > 0:
        start = src.at
        if not out_is_map(&src) or not out_skip(&src):
            raise out_broken(value, &src, len(records))
        records.append((<const char*>start)[:src.at - start])
    return records


def scan(bytes value not None):
    """(records, least receivedAt, greatest receivedAt) of one batch; 0 for both where no record has a usable one.

    ValueError: not whole msgpack maps.
    """
    cdef Cursor src = cur_of(value, len(value))
    cdef Seen seen
    cdef bint good = True
    memset(&seen, 0, sizeof(seen))
    with nogil:
        while good and cur_left(&src) > 0:
            good = out_scan(&src, &seen)
    if not good:
        raise out_broken(value, &src, seen.records)
    return seen.records, out_nanos(&seen.least), out_nanos(&seen.greatest)


cdef object out_nanos(const Time* moment):
    # A Python number: the years 1 to 9999 do not fit in 64 bits of nanoseconds.
    return <object>moment.seconds * 1000000000 + moment.nanos


def json_lines(bytes value not None, str prefix not None="", uint64_t first=0):
    """Strict NDJSON of a batch. With a prefix, record i gets a last member "seq": "<prefix><first + i>".

    ValueError: not whole msgpack maps.
    """
    cdef Cursor src = cur_of(value, len(value))
    cdef bytes name = prefix.encode("utf-8", "replace")
    cdef Py_ssize_t records = 0
    cdef bint good = True
    cdef Pack out, quoted
    memset(&out, 0, sizeof(out))
    memset(&quoted, 0, sizeof(quoted))
    try:
        if name:
            out_text(&quoted, name, len(name))
        with nogil:
            pk_room(&out, 2 * cur_left(&src))               # lines are longer than records; most fit
            while good and cur_left(&src) > 0 and not out.failed:
                good = out_line(&src, &out, &quoted, first + <uint64_t>records)
                records += good
        if out.failed or quoted.failed:
            raise MemoryError
        if not good:
            raise out_broken(value, &src, records)
        return (<const char*>out.data)[:out.len]
    finally:
        pk_free(&out)
        pk_free(&quoted)
