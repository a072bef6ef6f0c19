# Parameters: cuts a query string or a form body into pairs of raw bytes.
#
# Rules (protocols, "Query decoding"): '&' separates, the first '=' splits, a pair with an empty name is skipped, a name
# without '=' has an empty value. Nothing is decoded here; a pair says whether there is anything to decode.

cdef enum:                          # what a name or value has
    CC_CODED = 1                    # '%', '+', or bytes >= 0x80
    CC_PERCENT = 2
    CC_SEMICOLON = 4
    CC_DOT = 8


cdef bint qry_next(Cursor* source, Pair* pair) noexcept nogil:
    # Takes the next pair with a name; False at the end.
    while source.at < source.end:
        qry_cut(source, pair)
        if cur_left(&pair.name) > 0:
            return True
    return False


cdef inline void qry_cut(Cursor* source, Pair* pair) noexcept nogil:
    # Up to '&', a block at a time: this is where most of a request is read.
    cdef const byte* at = source.at
    cdef const byte* equals = NULL
    cdef Block block
    cdef unsigned int part, mark, stop = 0
    cdef int seen = 0
    pair.name_flags = 0
    while stop == 0 and at < source.end:
        block = blk_load(at, source.end - at)
        part = blk_part(source.end - at)
        stop = blk_is(block, c'&') & part
        if stop:
            part = (stop & (~stop + 1)) - 1
        mark = blk_is(block, c'=') & part if equals is NULL else 0
        if mark:
            mark = (mark & (~mark + 1)) - 1
            pair.name_flags = seen | qry_flags(block, mark)
            equals = at + blk_first(mark + 1)
            part &= ~mark
            seen = 0
        seen |= qry_flags(block, part)
        at = at + blk_first(stop) if stop else at + min(source.end - at, <Py_ssize_t>BLOCK)
    qry_set(pair, source.at, at, equals, seen)
    source.at = at + 1 if stop else at


cdef inline int qry_flags(Block block, unsigned int part) noexcept nogil:
    cdef unsigned int percent = blk_is(block, c'%')
    cdef int flags = 0
    if (percent | blk_is(block, c'+') | blk_high(block)) & part:
        flags = CC_CODED | (CC_PERCENT if percent & part else 0)
    if blk_is(block, c'.') & part:
        flags |= CC_DOT
    if blk_is(block, c';') & part:
        flags |= CC_SEMICOLON
    return flags


cdef inline void qry_set(Pair* pair, const byte* start, const byte* end, const byte* equals, int seen) noexcept nogil:
    if equals is NULL:
        pair.name = cur_of(start, end - start)
        pair.name_flags = seen
        pair.value = cur_of(end, 0)
        pair.value_flags = 0
    else:
        pair.name = cur_of(start, equals - start)
        pair.value = cur_of(equals + 1, end - equals - 1)
        pair.value_flags = seen


cdef bint qry_is_bad(const Pair* pair) noexcept nogil:
    # What Go's url.ParseQuery refuses, and RudderStack's gateway with it: a raw ';' or a bad escape.
    cdef int flags = pair.name_flags | pair.value_flags
    if flags & CC_SEMICOLON:
        return True
    return flags & CC_PERCENT and (pct_is_bad(pair.name) or pct_is_bad(pair.value))
