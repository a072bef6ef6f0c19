# Which address a request came from, when trusted proxies stand between.
#
# Rule: X-Forwarded-For counts only if the peer itself is trusted; then the rightmost address that is not trusted is the
# client. What stands left of it was written by the client and proves nothing.


@cython.final
cdef class Proxies:
    """The trusted networks: ipaddress networks or their texts."""

    cdef Network* networks
    cdef int count

    def __init__(self, networks=()):
        cdef int i
        cdef bytes packed
        rows = [ip_network(network, strict=False) for network in networks]
        self.networks = <Network*>calloc(max(len(rows), 1), sizeof(Network))
        if self.networks is NULL:
            raise MemoryError()
        for i, network in enumerate(rows):
            packed = network.network_address.packed
            memcpy(self.networks[i].prefix, <const byte*>packed, len(packed))
            self.networks[i].bits = network.prefixlen
            self.networks[i].size = len(packed)
        self.count = len(rows)

    def __dealloc__(self):
        free(self.networks)

    cdef bint trusts(self, const Address* address) noexcept nogil:
        cdef int i
        for i in range(self.count):
            if prx_contains(&self.networks[i], address):
                return True
        return False

    cdef int client(self, const Request* request, char* text) noexcept nogil:
        # Length of the client's address in `text` (INET6_ADDRSTRLEN bytes); 0: the peer is it.
        cdef Cursor value
        cdef Address address
        cdef int found = 0, i = request.forwarded_count
        while i > 0:
            i -= 1
            value = cur_of(request.head + (request.forwarded[i].at & SPAN_MASK), request.forwarded[i].len)
            while cur_left(&value):
                if not prx_address(prx_last(&value), &address):
                    return found
                prx_text(&address, text)
                found = <int>strlen(text)
                if not self.trusts(&address):
                    return found
        return found

    def resolve(self, str peer, forwarded):
        """The client's address, given the peer's and the values of X-Forwarded-For in order."""
        cdef Request request
        cdef char text[INET6_ADDRSTRLEN]
        cdef int length
        head = _head("GET", b"/", [(b"Host", b"x"), *((b"X-Forwarded-For", value) for value in forwarded)])
        if head_parse(<const byte*><bytes>head, len(head), &request) != HEAD_DONE or not self.trusts_text(peer):
            return peer
        length = self.client(&request, text)
        return text[:length].decode() if length else peer

    cdef bint trusts_text(self, str text):
        cdef Address address
        cdef bytes data = text.encode()
        return self.count > 0 and prx_address(cur_of(data, len(data)), &address) and self.trusts(&address)


cdef bint prx_contains(const Network* network, const Address* address) noexcept nogil:
    cdef int whole = network.bits // 8, rest = network.bits % 8
    if network.size != address.size or memcmp(network.prefix, address.bytes, <size_t>whole) != 0:
        return False
    return rest == 0 or (network.prefix[whole] ^ address.bytes[whole]) >> (8 - rest) == 0


cdef Cursor prx_last(Cursor* value) noexcept nogil:
    # Takes the last element of the comma-separated list.
    cdef const byte* end = value.end
    cdef Cursor element
    while value.end > value.at and (value.end - 1)[0] != c',':
        value.end -= 1
    element = num_trim(cur_of(value.end, end - value.end))
    if value.end > value.at:
        value.end -= 1
    return element


cdef bint prx_address(Cursor text, Address* out) noexcept nogil:
    # 1.2.3.4, 1.2.3.4:80, 2001:db8::1 or [2001:db8::1]:80. IPv4 in IPv6 counts as IPv4.
    cdef char buffer[INET6_ADDRSTRLEN]
    cdef const byte* end
    if cur_take(&text, c'['):
        end = <const byte*>memchr(text.at, c']', <size_t>cur_left(&text)) if cur_left(&text) else NULL
        if end is NULL:
            return False
        text.end = end
    elif head_has(text, b".") and not head_has(text, b"::"):
        end = <const byte*>memchr(text.at, c':', <size_t>cur_left(&text))
        text.end = text.end if end is NULL else end
    if not 0 < cur_left(&text) < INET6_ADDRSTRLEN:
        return False
    memcpy(buffer, text.at, <size_t>cur_left(&text))
    buffer[cur_left(&text)] = 0
    return prx_parse(buffer, out)


cdef bint prx_parse(const char* text, Address* out) noexcept nogil:
    out.size = 4
    if inet_pton(AF_INET, text, out.bytes) == 1:
        return True
    out.size = 16
    if inet_pton(AF_INET6, text, out.bytes) != 1:
        return False
    if memcmp(out.bytes, b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff", 12) == 0:
        memmove(out.bytes, out.bytes + 12, 4)
        out.size = 4
    return True


cdef Py_ssize_t prx_truncate(Cursor text, char* short) noexcept nogil:
    # Writes the first 24 bits of an IPv4 address or 48 of an IPv6 one, zeros behind; its length, 0: it is no address.
    cdef Address address
    cdef int kept
    if not prx_address(num_trim(text), &address):
        return 0
    kept = 3 if address.size == 4 else 6
    memset(address.bytes + kept, 0, <size_t>(address.size - kept))
    prx_text(&address, short)
    return <Py_ssize_t>strlen(short)


cdef void prx_text(const Address* address, char* text) noexcept nogil:
    if inet_ntop(AF_INET if address.size == 4 else AF_INET6, address.bytes, text, INET6_ADDRSTRLEN) is NULL:
        text[0] = 0
