/* One byte to and fro over one TCP connection: "rtt server PORT" echoes for one client,
 * "rtt client ADDRESS PORT COUNT" prints the mean round trip in nanoseconds. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int die(const char *what) { perror(what); exit(1); }

static void bounce(int fd, long count, int first) {
    char byte = 1;
    for (long i = 0; count < 0 || i < count; i++) {
        if (first && write(fd, &byte, 1) != 1) die("write");
        if (read(fd, &byte, 1) != 1) { if (!first) return; die("read"); }
        if (!first && write(fd, &byte, 1) != 1) return;
    }
}

int main(int argc, char **argv) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET};
    if (fd < 0 || argc < 3) die("socket or arguments");
    if (strcmp(argv[1], "server") == 0) {
        at.sin_port = htons(atoi(argv[2]));
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, (void *)&at, sizeof at) || listen(fd, 4)) die("bind");
        puts("ready");
        fflush(stdout);
        int client = accept(fd, NULL, NULL);
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        bounce(client, -1, 0);
        return 0;
    }
    struct timespec begun, ended;
    long count = atol(argv[4]);
    at.sin_port = htons(atoi(argv[3]));
    inet_pton(AF_INET, argv[2], &at.sin_addr);
    if (connect(fd, (void *)&at, sizeof at)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    bounce(fd, count / 10, 1); /* warm */
    clock_gettime(CLOCK_MONOTONIC, &begun);
    bounce(fd, count, 1);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%.0f\n", ((ended.tv_sec - begun.tv_sec) * 1e9 + (ended.tv_nsec - begun.tv_nsec)) / count);
    return 0;
}
