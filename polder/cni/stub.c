/* polder-cni: passes a CNI call to the node's agent and prints its answer.
 *
 * The agent's socket is found as "polder-cni.sock" (usually a symbolic link) beside this program. The wire format is in
 * wire.py. Started as "loopback" it does what containerd expects of that plugin, without the agent: brings lo up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET_NAME "polder-cni.sock"
#define PATIENCE 150 /* seconds until a call is given up; runtimes give up before */
#define LIMIT (1 << 20)

extern char **environ;

static int fail(int code, const char *message, const char *details)
{
    printf("{\"cniVersion\":\"1.0.0\",\"code\":%d,\"msg\":\"%s\",\"details\":\"%s: %s\"}\n", code, message, details,
           strerror(errno));
    return 1;
}

static int away(const char *what)
{
    char details[160];
    snprintf(details, sizeof details, "the node's Polder agent does not answer, the call changed nothing (%s)", what);
    return fail(11, "try again later", details);
}

static int send_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t done = send(fd, data, size, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return -1;
        data += done;
        size -= (size_t)done;
    }
    return 0;
}

/* Reads to the end; the size, or -1. */
static ssize_t read_all(int fd, char *buffer, size_t room)
{
    size_t size = 0;
    while (size < room) {
        ssize_t got = read(fd, buffer + size, room - size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            return (ssize_t)size;
        size += (size_t)got;
    }
    errno = EMSGSIZE;
    return -1;
}

static int loopback(void)
{
    static char config[LIMIT];
    const char *command = getenv("CNI_COMMAND"), *netns = getenv("CNI_NETNS");
    ssize_t size = read_all(0, config, sizeof config - 1);
    char version[16] = "1.0.0", *at = size > 0 ? strstr(config, "\"cniVersion\"") : NULL;
    if (at)
        sscanf(at + 12, " : \"%15[0-9.]\"", version);
    if (command && !strcmp(command, "VERSION")) {
        printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n", version);
        return 0;
    }
    if (!command || strcmp(command, "ADD"))
        return 0; /* lo goes with its namespace */
    int space = open(netns ? netns : "", O_RDONLY | O_CLOEXEC);
    if (space < 0 || setns(space, CLONE_NEWNET))
        return fail(4, "invalid environment", "CNI_NETNS");
    struct ifreq request = {.ifr_name = "lo"};
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0 || ioctl(sock, SIOCGIFFLAGS, &request))
        return fail(5, "input or output failed", "flags of lo");
    request.ifr_flags |= IFF_UP;
    if (ioctl(sock, SIOCSIFFLAGS, &request))
        return fail(5, "input or output failed", "bringing lo up");
    printf("{\"cniVersion\":\"%s\",\"interfaces\":[{\"name\":\"lo\",\"mac\":\"00:00:00:00:00:00\",\"sandbox\":\"%s\"}],"
           "\"ips\":[{%s\"address\":\"127.0.0.1/8\",\"interface\":0}],\"dns\":{}}\n",
           version, netns, version[0] == '0' ? "\"version\":\"4\"," : "");
    return 0;
}

static int pass(void)
{
    static char buffer[LIMIT];
    char self[4096];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = size > 0 ? (self[size] = 0, strrchr(self, '/')) : NULL;
    struct sockaddr_un where = {.sun_family = AF_UNIX, .sun_path = SOCKET_NAME};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!slash || (*slash = 0, chdir(self)) || fd < 0)
        return fail(5, "input or output failed", "finding the agent's socket");
    if (connect(fd, (struct sockaddr *)&where, sizeof where))
        return away("connect");
    if (send_all(fd, "polder-cni 1\n", 13))
        return away("send");
    int any = 0;
    for (char **entry = environ; *entry; entry++) {
        if (strncmp(*entry, "CNI_", 4))
            continue;
        any = 1;
        if (send_all(fd, *entry, strlen(*entry) + 1))
            return away("send");
    }
    size = read_all(0, buffer, sizeof buffer);
    if (size < 0)
        return fail(5, "input or output failed", "reading stdin");
    if (send_all(fd, "\0\0", any ? 1 : 2) || send_all(fd, buffer, (size_t)size) || shutdown(fd, SHUT_WR))
        return away("send");
    size = read_all(fd, buffer, sizeof buffer);
    char *end = size > 0 ? memchr(buffer, '\n', (size_t)size) : NULL;
    if (!end)
        return away("the answer broke off");
    fwrite(end + 1, 1, (size_t)(buffer + size - end - 1), stdout);
    return atoi(buffer);
}

int main(int argc, char **argv)
{
    const char *slash = argc ? strrchr(argv[0], '/') : NULL;
    alarm(PATIENCE);
    return !strcmp(slash ? slash + 1 : argc ? argv[0] : "", "loopback") ? loopback() : pass();
}
