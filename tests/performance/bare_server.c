/* The floor: one epoll loop that writes each event to each socket with write(2), and nothing else.
 *
 * What this costs, the kernel asks of every server on the machine at hand; the figures of the others
 * mean little without it. It believes that every request comes whole and is what the load generator
 * sends, so it must face nobody else. The body of a POST is the event's text.
 *
 * Usage: bare_server PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SLOTS = 1 << 16, CONNECTIONS = 1 << 17, READ = 1 << 16, BACKLOG = 4096 };

struct session { uint64_t name; int *fds, count, room; };
static struct session sessions[SLOTS]; /* a hash table: the hash of the path is the name */
static struct session *session_of[CONNECTIONS];
static int place_of[CONNECTIONS];

static struct session *session_at(const char *path, size_t length) {
    uint64_t name = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < length; i++) name = (name ^ (unsigned char)path[i]) * 1099511628211u;
    for (uint64_t slot = name;; slot++) {
        struct session *session = &sessions[slot % SLOTS];
        if (session->name == 0) session->name = name;
        if (session->name == name) return session;
    }
}

static void say(int fd, const char *bytes, size_t length) {
    if (write(fd, bytes, length) < 0) perror("write");
}

static void join(struct session *session, int fd) {
    if (session->count == session->room) {
        session->room = session->room ? 2 * session->room : 1;
        session->fds = realloc(session->fds, session->room * sizeof *session->fds);
    }
    session_of[fd] = session;
    place_of[fd] = session->count;
    session->fds[session->count++] = fd;
}

static void leave(int fd) {
    struct session *session = session_of[fd];
    if (session) {
        int last = session->fds[--session->count];
        session->fds[place_of[fd]] = last;
        place_of[last] = place_of[fd];
        session_of[fd] = NULL;
    }
    close(fd);
}

static void serve(int fd) {
    static const char stream[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        "Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n15\r\nretry: 3000\n: stream\n\r\n";
    static const char done[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    static const char last[] =
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    static char request[READ + 1], frame[READ + 128];
    static long last_id;
    ssize_t length = read(fd, request, READ);
    if (length <= 0) { leave(fd); return; }
    request[length] = 0;
    char *path = strchr(request, ' ') + 1, *body = strstr(path, "\r\n\r\n") + 4;
    size_t path_length = strcspn(path, " ");
    if (request[0] == 'G' && strncmp(path, "/health ", 8) != 0) {
        say(fd, stream, sizeof stream - 1);
        join(session_at(path, path_length), fd);
        return;
    }
    if (request[0] == 'P') {
        struct session *session = session_at(path, path_length);
        char id[32];
        int size = snprintf(id, sizeof id, "%ld", ++last_id) + (int)strlen(body) + 13;
        int bytes = snprintf(frame, sizeof frame, "%x\r\nid: %s\ndata: %s\n\n\r\n", size, id, body);
        for (int i = 0; i < session->count; i++) say(session->fds[i], frame, bytes);
    }
    if (strcasestr(path, "\r\nConnection: close\r\n")) {
        say(fd, last, sizeof last - 1);
        leave(fd);
    } else {
        say(fd, done, sizeof done - 1);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1])),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct epoll_event ready[512], interest = {.events = EPOLLIN};
    int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, BACKLOG)) {
        perror("bind");
        return 1;
    }
    interest.data.fd = listener;
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &interest);
    for (;;) {
        int count = epoll_wait(epoll, ready, 512, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd != listener) { serve(fd); continue; }
            interest.data.fd = accept(listener, NULL, NULL);
            if (interest.data.fd < 0) { perror("accept"); continue; }
            setsockopt(interest.data.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            epoll_ctl(epoll, EPOLL_CTL_ADD, interest.data.fd, &interest);
        }
    }
}
