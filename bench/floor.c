/* floor: the least that a server on epoll can do for a pixel.
 *
 * It reads, counts CRLFCRLF and writes one ready answer a head, those of one read in one write. The answer has the
 * size of the collector's, so that the difference to it is what parsing, decoding and storing cost.
 * It must not know HTTP: no method, no header, no body. `--close` closes after the first answer, which is what
 * `Connection: close` asks of a real server. One thread, loopback only; ends after `--seconds` whatever happens.
 *
 *     floor PORT [--close] [--seconds N]        port 0: the kernel picks; the port is printed on stderr
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 16384, EVENTS = 512, READ_SIZE = 65536, JOINED = 64, CARRY = 3, DEFAULT_SECONDS = 600 };

static const char HEAD[] =
    "HTTP/1.1 200 OK\r\n"
    "Content-Type: image/gif\r\n"
    "Content-Length: 43\r\n"
    "Cache-Control: no-store, no-cache, must-revalidate, private, max-age=0\r\n"
    "Pragma: no-cache\r\n"
    "Expires: 0\r\n"
    "Vary: Origin\r\n"
    "Access-Control-Allow-Origin: *\r\n"
    "Access-Control-Expose-Headers: X-Fastpixel\r\n"
    "Cross-Origin-Resource-Policy: cross-origin\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    "\r\n";
static const char GIF[43] =
    "GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    "\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02" "D\x01\x00;";

/* The last bytes of a connection's previous read: a CRLFCRLF may lie across two reads. */
typedef struct { unsigned char length; char bytes[CARRY]; } Carry;

static Carry carries[MAX_FD];
static char answers[JOINED * (sizeof HEAD - 1 + sizeof GIF)];
static const size_t answer_size = sizeof HEAD - 1 + sizeof GIF;
static bool close_after_answer;
static int poller;

static void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void prepare_answers(void)
{
    for (char *p = answers; p < answers + sizeof answers; p += answer_size) {
        memcpy(p, HEAD, sizeof HEAD - 1);
        memcpy(p + sizeof HEAD - 1, GIF, sizeof GIF);
    }
}

static int open_listener(int port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((unsigned short)port),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t size = sizeof at;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one)) die("socket");
    if (bind(fd, (struct sockaddr *)&at, size) || listen(fd, 4096)) die("bind");
    if (getsockname(fd, (struct sockaddr *)&at, &size)) die("getsockname");
    fprintf(stderr, "listening on http://127.0.0.1:%d\n", ntohs(at.sin_port));
    return fd;
}

static void watch(int fd)
{
    struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static void accept_all(int listener)
{
    int one = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_FD) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        carries[fd].length = 0;
        watch(fd);
    }
}

static size_t count_heads(char *buffer, size_t size, Carry *carry)
{
    size_t heads = 0;
    char *from = buffer, *end = buffer + size, *found;
    for (; (found = memmem(from, (size_t)(end - from), "\r\n\r\n", 4)); from = found + 4) heads++;
    size_t rest = (size_t)(end - from);
    carry->length = (unsigned char)(rest < CARRY ? rest : CARRY);
    memcpy(carry->bytes, end - carry->length, carry->length);
    return heads;
}

/* A full socket is waited for: it is rare here, and a queue would be more than the least. */
static bool send_all(int fd, const char *bytes, size_t size)
{
    while (size) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return false;
        if (sent < 0) { poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, 1000); continue; }
        bytes += sent;
        size -= (size_t)sent;
    }
    return true;
}

static bool answer(int fd, size_t heads)
{
    while (heads) {
        size_t now = heads < JOINED ? heads : JOINED;
        if (!send_all(fd, answers, now * answer_size)) return false;
        heads -= now;
    }
    return true;
}

/* One read an event: level-triggered epoll reports again what is left. */
static void serve(int fd)
{
    static char buffer[CARRY + READ_SIZE];
    Carry *carry = &carries[fd];
    memcpy(buffer, carry->bytes, carry->length);
    ssize_t size = recv(fd, buffer + carry->length, READ_SIZE, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) { close(fd); return; }
    size_t heads = count_heads(buffer, carry->length + (size_t)size, carry);
    if (!answer(fd, heads) || (heads && close_after_answer)) close(fd);
}

static void run(int listener)
{
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener) accept_all(listener);
            else serve(events[i].data.fd);
        }
    }
}

int main(int argc, char **argv)
{
    unsigned seconds = DEFAULT_SECONDS;
    if (argc < 2) { fprintf(stderr, "usage: floor PORT [--close] [--seconds N]\n"); return 2; }
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "--close")) close_after_answer = true;
        else if (!strcmp(argv[i], "--seconds") && i + 1 < argc) seconds = (unsigned)atoi(argv[++i]);
        else { fprintf(stderr, "floor: unknown argument %s\n", argv[i]); return 2; }
    }
    alarm(seconds);
    prepare_answers();
    if ((poller = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
    int listener = open_listener(atoi(argv[1]));
    watch(listener);
    run(listener);
}
