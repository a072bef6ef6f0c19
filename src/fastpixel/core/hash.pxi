# Hashes of names, keyed per process: for tables whose entries a sender chooses.
#
# How it works: a folded multiply, as in Wang Yi's wyhash: 16 bytes a step go, under a secret key, through one 64 x 64 bit
# multiplication whose halves are xored. Nobody outside knows the key, so nobody can choose names that fall into one place.

from os import urandom as hsh_urandom

cdef extern from *:
    """
    static inline uint64_t fp_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    """
    uint64_t hsh_fold "fp_fold"(uint64_t a, uint64_t b) noexcept nogil

cdef uint64_t[3] HSH_KEY


cdef void hsh_seed(const byte* seed) noexcept nogil:
    memcpy(HSH_KEY, seed, sizeof(HSH_KEY))


hsh_seed(<bytes>hsh_urandom(24))
del hsh_urandom


cdef inline uint64_t hsh_short(const byte* p, Py_ssize_t n) noexcept nogil:
    # Up to seven bytes as one number.
    cdef uint32_t low = 0, high = 0
    if n >= 4:
        memcpy(&low, p, 4)
        memcpy(&high, p + n - 4, 4)
        return <uint64_t>high << 32 | low
    if n == 0:
        return 0
    return <uint64_t>p[0] << 16 | <uint64_t>p[n >> 1] << 8 | p[n - 1]


cdef inline uint64_t hsh_bytes(const byte* p, Py_ssize_t n) noexcept nogil:
    cdef uint64_t hash = HSH_KEY[0] ^ <uint64_t>n
    while n >= 16:
        hash = hsh_fold(utf_word(p) ^ HSH_KEY[1], utf_word(p + 8) ^ hash)
        p += 16
        n -= 16
    if n >= 8:
        return hsh_fold(utf_word(p) ^ HSH_KEY[1], utf_word(p + n - 8) ^ hash ^ HSH_KEY[2])
    return hsh_fold(hsh_short(p, n) ^ HSH_KEY[1], hash ^ HSH_KEY[2])
