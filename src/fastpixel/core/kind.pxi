# Kinds of value: what a row's `kind` makes of a parameter's text. One function a kind; `kind_pack` is their table.
#
# Rules (protocols, "Numbers in parameters" and "Time"): numbers are trimmed; times are `-?[0-9]{1,13}(\.[0-9]+)?` or
# ISO 8601; from 1e11 on a number is milliseconds; a time outside the years 1 to 9999 is unusable.

cdef enum:
    TIME_DIGITS = 13
    INT_DIGITS = 18

cdef int64_t TIME_MIN = -62135596800    # 0001-01-01T00:00:00Z in seconds
cdef int64_t TIME_MAX = 253402300799    # 9999-12-31T23:59:59Z
cdef uint64_t MILLISECONDS_FROM = 100000000000


cdef Cursor num_trim(Cursor text) noexcept nogil:
    while text.at < text.end and chr_blank(text.at[0]):
        text.at += 1
    while text.end > text.at and chr_blank((text.end - 1)[0]):
        text.end -= 1
    return text


cdef bint num_read(Cursor text, int max_digits, bint fraction, Decimal* out) noexcept nogil:
    # -?[0-9]{1,max_digits}(\.[0-9]+)? and nothing else. Fraction digits beyond the ninth are cut.
    cdef int digits = 0
    memset(out, 0, sizeof(Decimal))
    text = num_trim(text)
    out.negative = cur_take(&text, c'-')
    while chr_digit(cur_peek(&text)):
        digits += 1
        if digits > max_digits:
            return False
        out.whole = out.whole * 10 + <uint64_t>(cur_next(&text) - c'0')
    if digits == 0:
        return False
    if fraction and cur_take(&text, c'.') and not num_fraction(&text, out):
        return False
    return cur_left(&text) == 0


cdef bint num_fraction(Cursor* text, Decimal* out) noexcept nogil:
    # At least one digit; as billionths.
    cdef uint32_t scale = 100000000
    out.has_fraction = True
    if not chr_digit(cur_peek(text)):
        return False
    while chr_digit(cur_peek(text)):
        out.nanos += <uint32_t>(cur_next(text) - c'0') * scale
        scale //= 10
    return True


cdef bint time_number(Cursor text, bint milliseconds, Time* out) noexcept nogil:
    cdef Decimal number
    if not num_read(text, TIME_DIGITS, True, &number):
        return False
    if milliseconds or number.whole >= MILLISECONDS_FROM:
        number.nanos = <uint32_t>(number.whole % 1000) * 1000000 + number.nanos // 1000
        number.whole //= 1000
    out.seconds = <int64_t>number.whole
    out.nanos = number.nanos
    if number.negative:
        out.seconds = -out.seconds
        if out.nanos:
            out.seconds -= 1
            out.nanos = 1000000000 - out.nanos
    return time_usable(out)


cdef inline bint time_usable(const Time* time) noexcept nogil:
    return TIME_MIN <= time.seconds <= TIME_MAX


cdef int time_digits(Cursor* text, int count) noexcept nogil:
    # Exactly `count` digits, or -1.
    cdef int value = 0, i
    for i in range(count):
        if not chr_digit(cur_peek(text)):
            return -1
        value = value * 10 + cur_next(text) - c'0'
    return value


cdef bint time_iso(Cursor text, Time* out) noexcept nogil:
    # Date, then optionally 'T' or one blank, time and zone.
    cdef int year, month, day, separator
    text = num_trim(text)
    out.nanos = 0
    year = time_digits(&text, 4)
    if year < 1 or not cur_take(&text, c'-'):
        return False
    month = time_digits(&text, 2)
    if not 1 <= month <= 12 or not cur_take(&text, c'-'):
        return False
    day = time_digits(&text, 2)
    if not 1 <= day <= time_month_days(year, month):
        return False
    out.seconds = time_days(year, month, day) * 86400
    separator = cur_next(&text)
    if separator < 0:
        return True
    if separator != c'T' and separator != c't' and separator != c' ':
        return False
    return time_clock(&text, out) and time_zone(&text, out) and cur_left(&text) == 0 and time_usable(out)


cdef bint time_clock(Cursor* text, Time* out) noexcept nogil:
    # hh:mm[:ss[(.|,)digits]]; second 60 is the next minute's first.
    cdef int hour = time_digits(text, 2), minute, second
    cdef Decimal number
    if not 0 <= hour <= 23 or not cur_take(text, c':'):
        return False
    minute = time_digits(text, 2)
    if not 0 <= minute <= 59:
        return False
    out.seconds += hour * 3600 + minute * 60
    if not cur_take(text, c':'):
        return True
    second = time_digits(text, 2)
    if not 0 <= second <= 60:
        return False
    out.seconds += second
    if cur_peek(text) == c'.' or cur_peek(text) == c',':
        text.at += 1
        number.nanos = 0
        if not num_fraction(text, &number):
            return False
        out.nanos = number.nanos
    return True


cdef bint time_zone(Cursor* text, Time* out) noexcept nogil:
    # Nothing, Z, +hh, +hhmm or +hh:mm.
    cdef int sign = cur_next(text), hour, minute = 0
    if sign < 0 or sign == c'Z' or sign == c'z':
        return True
    if sign != c'+' and sign != c'-':
        return False
    hour = time_digits(text, 2)
    if cur_take(text, c':') or cur_left(text):
        minute = time_digits(text, 2)
    if not 0 <= hour <= 23 or not 0 <= minute <= 59:
        return False
    out.seconds -= (hour * 3600 + minute * 60) * (1 if sign == c'+' else -1)
    return True


cdef int time_month_days(int year, int month) noexcept nogil:
    if month == 2:
        return 29 if (year % 4 == 0 and year % 100 != 0) or year % 400 == 0 else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


cdef int64_t time_days(int year, int month, int day) noexcept nogil:
    # Days since 1970-01-01 in the proleptic Gregorian calendar; the year starts in March so that a leap day is its last.
    cdef int64_t y = year - 1 if month <= 2 else year
    cdef int64_t era = y // 400
    cdef int64_t of_era = y - era * 400
    cdef int64_t of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


cdef void time_civil(int64_t days, int* year, int* month, int* day) noexcept nogil:
    # The inverse of time_days, for days since 1970-01-01 from the year 1 on.
    cdef int64_t era, of_era, year_of_era, of_year, shifted
    days += 719468
    era = days // 146097
    of_era = days - era * 146097
    year_of_era = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    day[0] = <int>(of_year - (153 * shifted + 2) // 5 + 1)
    month[0] = <int>(shifted + 3 if shifted < 10 else shifted - 9)
    year[0] = <int>(year_of_era + era * 400 + (1 if month[0] <= 2 else 0))


cdef void time_put(byte* out, int value, int digits) noexcept nogil:
    while digits > 0:
        digits -= 1
        out[digits] = <byte>(c'0' + value % 10)
        value //= 10


cdef void time_text(Time time, byte* out) noexcept nogil:
    # RFC 3339 with milliseconds and Z, TIME_TEXT bytes; for the years 1 to 9999.
    cdef int year, month, day
    cdef int64_t days = time.seconds // 86400
    cdef int64_t rest = time.seconds % 86400
    if rest < 0:
        rest += 86400
        days -= 1
    time_civil(days, &year, &month, &day)
    memcpy(out, b"0000-00-00T00:00:00.000Z", TIME_TEXT)
    time_put(out, year, 4)
    time_put(out + 5, month, 2)
    time_put(out + 8, day, 2)
    time_put(out + 11, <int>(rest // 3600), 2)
    time_put(out + 14, <int>(rest // 60 % 60), 2)
    time_put(out + 17, <int>(rest % 60), 2)
    time_put(out + 20, <int>(time.nanos // 1000000), 3)


cdef Time clock_now() noexcept nogil:
    cdef timespec spec
    cdef Time time
    clock_gettime(CLOCK_REALTIME, &spec)
    time.seconds = spec.tv_sec
    time.nanos = <uint32_t>spec.tv_nsec
    return time


cdef Time time_of(object ns):
    # From Python's nanoseconds since the epoch.
    cdef Time time
    time.seconds = ns // 1000000000
    time.nanos = ns % 1000000000
    return time


cdef bint time_read(int kind, Cursor text, Time* out) noexcept nogil:
    if kind == K_UNIX_MS:
        return time_number(text, True, out)
    if kind == K_ISO8601 and time_iso(text, out):
        return True
    return time_number(text, False, out)


cdef bint kind_pack(Rec* rec, int kind, Cursor text, Pack* out) noexcept nogil:
    # Appends the value; False: unusable.
    cdef Decimal number
    cdef Time time
    if kind == K_INT:
        if not num_read(text, INT_DIGITS, False, &number):
            return False
        pk_int(out, -<int64_t>number.whole if number.negative else <int64_t>number.whole)
        return True
    if kind == K_NUMBER:
        return kind_number(text, out)
    if kind == K_BOOL:
        return kind_bool(text, out)
    if kind == K_UNIX or kind == K_UNIX_MS or kind == K_ISO8601:
        if not time_read(kind, text, &time):
            return False
        pk_seconds(out, time.seconds, time.nanos)
        return True
    return kind_json(rec, kind, text, out)


cdef bint kind_number(Cursor text, Pack* out) noexcept nogil:
    cdef Decimal number
    if not num_read(text, INT_DIGITS, True, &number):
        return False
    text = num_trim(text)
    if number.has_fraction:
        pk_double(out, kind_double(text))
    else:
        pk_int(out, -<int64_t>number.whole if number.negative else <int64_t>number.whole)
    return True


cdef double kind_double(Cursor text) noexcept nogil:
    # Digits that num_read has seen; those that a double cannot hold are cut.
    cdef char buffer[64]
    cdef size_t length = <size_t>min(cur_left(&text), <Py_ssize_t>63)
    memcpy(buffer, text.at, length)
    buffer[length] = 0
    return flt_read(buffer)


cdef bint kind_bool(Cursor text, Pack* out) noexcept nogil:
    cdef Py_ssize_t length
    text = num_trim(text)
    length = cur_left(&text)
    if (length == 4 and memcmp(text.at, b"true", 4) == 0) or (length == 1 and text.at[0] == c'1'):
        pk_bool(out, True)
        return True
    if (length == 5 and memcmp(text.at, b"false", 5) == 0) or (length == 1 and text.at[0] == c'0'):
        pk_bool(out, False)
        return True
    return False


cdef bint kind_json(Rec* rec, int kind, Cursor text, Pack* out) noexcept nogil:
    # A failed document leaves no bytes behind. For base64 the caller has made room in the scratch buffer.
    cdef Py_ssize_t start = out.len
    cdef Py_ssize_t length
    if kind == K_BASE64_JSON:
        length = b64_decode(text.at, cur_left(&text), rec.scratch.data + rec.scratch.len)
        if length < 0:
            return False
        text = cur_of(rec.scratch.data + rec.scratch.len, length)
    if jsn_pack(&rec.json, text.at, cur_left(&text), out, PARAM_DEPTH) == JSN_OK:
        return True
    out.len = start
    return False
