# UUIDv7 (RFC 9562) and the text form of any UUID. Random bits come from a pool that getrandom fills; the pool is made
# after exec, because workers are spawned and never forked.

cdef enum:
    POOL_BYTES = 256                # getrandom never gives fewer bytes than this

cdef byte POOL[POOL_BYTES]
cdef int POOL_AT = POOL_BYTES


cdef bint uuid_random(byte* out, int count) noexcept nogil:
    # False: the kernel has no random bytes for us, which does not happen after boot.
    global POOL_AT
    if POOL_AT + count > POOL_BYTES:
        if getrandom(POOL, POOL_BYTES, 0) != POOL_BYTES:
            return False
        POOL_AT = 0
    memcpy(out, POOL + POOL_AT, <size_t>count)
    memset(POOL + POOL_AT, 0, <size_t>count)
    POOL_AT += count
    return True


cdef bint uuid_7(Time now, byte* text) noexcept nogil:
    # 48 bits of milliseconds, then 74 random bits.
    cdef byte raw[16]
    cdef uint64_t ms = <uint64_t>(now.seconds * 1000 + now.nanos // 1000000)
    cdef int i
    if not uuid_random(raw + 6, 10):
        return False
    for i in range(6):
        raw[i] = <byte>(ms >> (8 * (5 - i)))
    uuid_text(raw, 7, text)
    return True


cdef void uuid_text(byte* raw, int version, byte* text) noexcept nogil:
    # Sets version and variant, then writes 36 characters.
    cdef const char* digits = b"0123456789abcdef"
    cdef int i, at = 0
    raw[6] = <byte>((raw[6] & 0x0F) | version << 4)
    raw[8] = <byte>((raw[8] & 0x3F) | 0x80)
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            text[at] = c'-'
            at += 1
        text[at] = <byte>digits[raw[i] >> 4]
        text[at + 1] = <byte>digits[raw[i] & 15]
        at += 2


cdef bint uuid_is_7(Cursor text) noexcept nogil:
    # Whether it is a UUIDv7 as uuid_7 writes them.
    cdef int i, got
    if cur_left(&text) != UUID_TEXT or text.at[14] != c'7' or not (c'8' <= text.at[19] <= c'9' or c'a' <= text.at[19] <= c'b'):
        return False
    for i in range(UUID_TEXT):
        got = text.at[i]
        if i == 8 or i == 13 or i == 18 or i == 23:
            if got != c'-':
                return False
        elif not (chr_digit(got) or c'a' <= got <= c'f'):
            return False
    return True
