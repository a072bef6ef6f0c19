
# Doubles as decimal text, both ways, the same in every locale and without the GIL.
#
# flt_read is strtod in the C locale: correctly rounded. flt_write gives Python's repr: the shortest digits that read back
# as the same double, fixed notation for exponents from -4 to 15. It must not know JSON: finite values only.

from libc.stdio cimport snprintf

cdef extern from "<locale.h>" nogil:
    ctypedef void* locale_t
    locale_t newlocale(int mask, const char* name, locale_t base)
    int LC_ALL_MASK

cdef extern from "<stdlib.h>" nogil:
    double strtod_l(const char* text, char** end, locale_t locale)

cdef enum:
    FLT_TEXT = 32                   # room for any repr: sign, 17 digits, point, e-308 or leading zeros
    FLT_TENS = 23

cdef struct Digits:                 # d.ddd x 10^exponent
    char text[20]
    int count
    int exponent

cdef double[FLT_TENS] FLT_TEN = [   # the powers of ten that a double holds exactly
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
]
cdef locale_t FLT_LOCALE = newlocale(LC_ALL_MASK, "C", NULL)

if FLT_LOCALE is NULL:
    raise MemoryError


cdef inline double flt_read(const char* text) noexcept nogil:
    # Of a NUL-terminated number; beyond the range: an infinity or zero.
    return strtod_l(text, NULL, FLT_LOCALE)


cdef inline bint flt_scaled(uint64_t mantissa, int exponent, double* value) noexcept nogil:
    # mantissa x 10^exponent where both parts are exact, so that one operation rounds once (W. D. Clinger, "How to Read
    # Floating Point Numbers Accurately", 1990). False: outside that range.
    if mantissa > (1uLL << 53) or not -FLT_TENS < exponent < FLT_TENS:
        return False
    if exponent < 0:
        value[0] = <double>mantissa / FLT_TEN[-exponent]
    else:
        value[0] = <double>mantissa * FLT_TEN[exponent]
    return True


cdef void flt_strip(Digits* digits) noexcept nogil:
    while digits.count > 1 and digits.text[digits.count - 1] == 48:
        digits.count -= 1


cdef void flt_set(Digits* digits, uint64_t number, int decimals) noexcept nogil:
    # The digits of number / 10^decimals.
    cdef int count = 0, i
    cdef uint64_t rest = number
    while rest:
        rest //= 10
        count += 1
    for i in range(count):
        digits.text[count - 1 - i] = <char>(48 + number % 10)
        number //= 10
    digits.count = count
    digits.exponent = count - 1 - decimals
    flt_strip(digits)


cdef bint flt_short(double value, Digits* digits) noexcept nogil:
    # Prices and coordinates: up to six decimals. Fifteen digits that read back as the value are its shortest, because
    # no two texts of fifteen digits mean the same double.
    cdef int decimals
    cdef uint64_t number
    for decimals in range(7):
        if value * FLT_TEN[decimals] >= 1e15:
            return False
        number = <uint64_t>(value * FLT_TEN[decimals] + 0.5)
        if <double>number / FLT_TEN[decimals] == value:
            flt_set(digits, number, decimals)
            return True
    return False


cdef bint flt_same(const Digits* digits, double value) noexcept nogil:
    cdef char text[FLT_TEXT]
    snprintf(text, FLT_TEXT, "%.*se%d", digits.count, digits.text, digits.exponent - digits.count + 1)
    return flt_read(text) == value


cdef void flt_round(double value, int count, Digits* digits) noexcept nogil:
    # The nearest decimal of `count` digits. What printf puts for the point depends on the locale and is stepped over.
    cdef char text[FLT_TEXT]
    cdef int i = 0
    digits.count = 0
    snprintf(text, FLT_TEXT, "%.*e", count - 1, value)
    while text[i] != 101:
        if chr_digit(text[i]):
            digits.text[digits.count] = text[i]
            digits.count += 1
        i += 1
    digits.exponent = flt_exponent(&text[i + 1])


cdef int flt_exponent(const char* text) noexcept nogil:
    cdef int value = 0, i = 1
    while text[i]:
        value = value * 10 + text[i] - 48
        i += 1
    return -value if text[0] == 45 else value


cdef void flt_bump(Digits* digits) noexcept nogil:
    # Adds one to the last digit.
    cdef int i = digits.count - 1
    while i >= 0 and digits.text[i] == 57:
        digits.text[i] = 48
        i -= 1
    if i >= 0:
        digits.text[i] += 1
    else:
        digits.text[0] = 49
        digits.exponent += 1


cdef void flt_shortest(double value, Digits* digits) noexcept nogil:
    # Tries fifteen digits, sixteen, seventeen; one and more for a subnormal, which holds fewer. The values that read back
    # as a power of two reach twice as far above it as below, so there the upper neighbour may be the shorter one.
    cdef int count = 15 if value >= 2.2250738585072014e-308 else 1
    cdef uint64_t bits
    memcpy(&bits, &value, 8)
    for count in range(count, 18):
        flt_round(value, count, digits)
        if flt_same(digits, value):
            break
        if count == 16 and bits << 12 == 0:
            flt_bump(digits)
            if flt_same(digits, value):
                break
    flt_strip(digits)


cdef int flt_fixed(const Digits* digits, char* out) noexcept nogil:
    # 0.00012, 12.5, 1200.0: digit i weighs 10^(exponent - i), so the point follows digit `exponent`.
    cdef int i = digits.exponent if digits.exponent < 0 else 0, length = 0
    while i < digits.count or i < digits.exponent + 2:
        out[length] = digits.text[i] if 0 <= i < digits.count else 48
        length += 1
        if i == digits.exponent:
            out[length] = 46
            length += 1
        i += 1
    return length


cdef int flt_scientific(const Digits* digits, char* out) noexcept nogil:
    # 1e+16, 1.5e-07.
    cdef int length = 1
    out[0] = digits.text[0]
    if digits.count > 1:
        out[1] = 46
        memcpy(out + 2, digits.text + 1, <size_t>(digits.count - 1))
        length += digits.count
    return length + snprintf(out + length, <size_t>8, "e%+03d", digits.exponent)


cdef int flt_write(double value, char* out) noexcept nogil:
    # The repr of a finite value; gives its length. `out` has room for FLT_TEXT.
    cdef Digits digits
    cdef int sign = 0
    if flt_negative(value):
        out[0] = 45
        value = -value
        sign = 1
    if value == 0:
        memcpy(out + sign, <const char*>"0.0", 3)
        return sign + 3
    if not flt_short(value, &digits):
        flt_shortest(value, &digits)
    if -4 <= digits.exponent < 16:
        return sign + flt_fixed(&digits, out + sign)
    return sign + flt_scientific(&digits, out + sign)


cdef inline bint flt_negative(double value) noexcept nogil:
    # By its sign bit: -0.0 is.
    cdef uint64_t bits
    memcpy(&bits, &value, 8)
    return bits >> 63 != 0
