/* unseeded FILE PROGRAM ARG...: runs PROGRAM, and what it starts, as a kernel does that has no random numbers yet (Linux before 5.4, for
 * seconds to many minutes after its start), until FILE is there: getrandom waits, and who will not wait gets EAGAIN. Every wait is told
 * on stderr. Signals that end or reload are passed on; the exit code is PROGRAM's, or 125 where this kernel offers no such thing.
 *
 * By a filter of system calls that asks this process what to answer (SECCOMP_RET_USER_NOTIF, Linux 5.5). */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NONBLOCK = 1, INSECURE = 4, CANNOT = 125, MOST = 64 };

static pid_t child;

static void pass_on(int signal) { kill(child, signal); }

/* In the child: filters, sends the descriptor that answers, becomes the program. */
static void become(char **words, int socket)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    char byte = 0, space[CMSG_SPACE(sizeof(int))] = { 0 };
    struct iovec part = { &byte, 1 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int listener;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0) _exit(CANNOT);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof listener);
    memcpy(CMSG_DATA(header), &listener, sizeof listener);
    if (sendmsg(socket, &message, 0) != 1) _exit(CANNOT);
    close(listener);
    close(socket);
    execvp(words[0], words);
    _exit(127);
}

/* The descriptor that answers; -1 where there is none. */
static int receive(int socket)
{
    char byte, space[CMSG_SPACE(sizeof(int))];
    struct iovec part = { &byte, 1 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
    int listener = -1;

    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&message))
        memcpy(&listener, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof listener);
    return listener;
}

static void answer(int listener, __u64 id, int error, __u32 flags)
{
    struct seccomp_notif_resp response = { .id = id, .error = error, .flags = flags };
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response); /* or whoever asked has ended */
}

int main(int argc, char **argv)
{
    int pair[2], listener, status = 0, is_seeded, waiting = 0;
    __u64 waits[MOST];

    if (argc < 3 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) return 2;
    if ((child = fork()) == 0) become(argv + 2, pair[1]);
    close(pair[1]);
    if ((listener = receive(pair[0])) < 0) return CANNOT;
    signal(SIGTERM, pass_on);
    signal(SIGINT, pass_on);
    signal(SIGHUP, pass_on);
    while (waitpid(child, &status, WNOHANG) != child) {
        struct pollfd asked = { listener, POLLIN, 0 };
        poll(&asked, 1, 10);
        is_seeded = access(argv[1], F_OK) == 0;
        if (asked.revents & POLLIN) {
            struct seccomp_notif call;
            memset(&call, 0, sizeof call);
            if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call)) continue;
            if (is_seeded) answer(listener, call.id, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
            else if (call.data.args[2] & INSECURE) answer(listener, call.id, -EINVAL, 0);
            else if (call.data.args[2] & NONBLOCK) answer(listener, call.id, -EAGAIN, 0);
            else if (waiting < MOST) {
                fprintf(stderr, "unseeded: thread %u waits\n", call.pid);
                waits[waiting++] = call.id;
            }
        }
        while (is_seeded && waiting) answer(listener, waits[--waiting], 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
