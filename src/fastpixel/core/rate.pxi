# Rate limits: how many events a second a source may send, over all workers.
#
# How it works (GCRA): a cell holds the time until which the source has used its rate up. An event moves it on by the
# interval between two events; while it is less than a second ahead of the clock, the event is within the limit. The
# cells lie in memory that the workers share, so they are changed by compare-and-swap; the clock is the machine's own
# (CLOCK_MONOTONIC), the same in all processes. Nothing is reset or swept.

cdef extern from *:
    """
    #include <stdint.h>
    static inline int fp_swap(uint64_t *cell, uint64_t *seen, uint64_t next) {
        return __atomic_compare_exchange_n(cell, seen, next, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
    static inline uint64_t fp_load(uint64_t *cell) {
        return __atomic_load_n(cell, __ATOMIC_RELAXED);
    }
    """
    bint rate_swap "fp_swap"(uint64_t* cell, uint64_t* seen, uint64_t next) noexcept nogil
    uint64_t rate_load "fp_load"(uint64_t* cell) noexcept nogil

cdef enum:
    RATE_BURST = 1000000000         # ns that a source may be ahead: a second's events at once


cdef bint rate_take(uint64_t* cell, uint64_t interval, uint64_t now, bint whatever) noexcept nogil:
    # Counts one event of the source. False: it is over its limit, and was not counted. `whatever`: it is a further one
    # of a request that was let in, which is stored whole or not at all.
    cdef uint64_t seen = rate_load(cell), start
    while True:
        start = seen if seen > now else now
        if start - now + interval > max(interval, <uint64_t>RATE_BURST) and not whatever:
            return False
        if rate_swap(cell, &seen, start + interval):
            return True


cdef bint rate_admits(const PlanData* plan, const Source* source, bint whatever) noexcept nogil:
    if source is NULL or source.cell < 0 or plan.cells is NULL:
        return True
    return rate_take(plan.cells + source.cell, source.interval, <uint64_t>clock_ns(), whatever)


cdef int64_t clock_ns() noexcept nogil:
    cdef timespec spec
    clock_gettime(CLOCK_MONOTONIC, &spec)
    return <int64_t>spec.tv_sec * 1000000000 + spec.tv_nsec
