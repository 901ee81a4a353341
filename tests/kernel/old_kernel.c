/* old_kernel PROGRAM ARG...: runs PROGRAM, and what it starts, as Linux 4.9 would: newer system calls, and newer uses of old ones, get
 * what 4.9 answers, and /proc/sys/kernel/seccomp (4.14) is not there. x86_64 only; exit code 125 where that cannot be had here.
 *
 * What no filter of system calls can see is not played: structures in memory that became longer, files of /proc that are newer, and
 * how the kernel itself behaves. The image on a real 4.9 is for that. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_ARGUMENT(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (n))
#define ANSWER(action) BPF_STMT(BPF_RET | BPF_K, action)
#define FAIL(error) ANSWER(SECCOMP_RET_ERRNO | (error))
#define ALLOW ANSWER(SECCOMP_RET_ALLOW)
/* Goes over `more` instructions unless the loaded word is, or is above, the value. */
#define UNLESS_IS(value, more) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, more)
#define UNLESS_ABOVE(value, more) BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, value, 0, more)

enum { LAST_CALL = 331 /* pkey_free, of 4.9 */, X32 = 0x40000000, TRACER = 0xffffffff };

static const struct sock_filter OLD[] = {
    LOAD(arch),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
    ALLOW, /* not ours to judge */
    LOAD(nr),
    UNLESS_IS(TRACER, 1), ALLOW,
    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32, 0, 1), ALLOW,
    UNLESS_ABOVE(LAST_CALL, 1), FAIL(ENOSYS),
    /* seccomp: SET_MODE_STRICT, SET_MODE_FILTER; of the flags TSYNC. */
    UNLESS_IS(SYS_seccomp, 7),
    LOAD_ARGUMENT(0), UNLESS_ABOVE(SECCOMP_SET_MODE_FILTER, 1), FAIL(EINVAL),
    LOAD_ARGUMENT(1), UNLESS_ABOVE(SECCOMP_FILTER_FLAG_TSYNC, 1), FAIL(EINVAL),
    ALLOW,
    /* getrandom: GRND_NONBLOCK, GRND_RANDOM. */
    UNLESS_IS(SYS_getrandom, 4),
    LOAD_ARGUMENT(2), UNLESS_ABOVE(3, 1), FAIL(EINVAL),
    ALLOW,
    /* madvise: up to MADV_DODUMP (17), and the poisons from 100 on. */
    UNLESS_IS(SYS_madvise, 5),
    LOAD_ARGUMENT(2), UNLESS_ABOVE(17, 2), BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 100, 1, 0), FAIL(EINVAL),
    ALLOW,
    /* prctl: up to PR_CAP_AMBIENT (47), and Yama's PR_SET_PTRACER. */
    UNLESS_IS(SYS_prctl, 5),
    LOAD_ARGUMENT(0), UNLESS_ABOVE(47, 2), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_PTRACER, 1, 0), FAIL(EINVAL),
    ALLOW,
    /* mmap: MAP_SHARED and MAP_PRIVATE; MAP_SHARED_VALIDATE (3) is both of them, and newer. */
    UNLESS_IS(SYS_mmap, 5),
    LOAD_ARGUMENT(3), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 3), UNLESS_IS(3, 1), FAIL(EINVAL),
    ALLOW,
    ALLOW,
};

int main(int argc, char **argv)
{
    struct sock_fprog program = { sizeof OLD / sizeof *OLD, (struct sock_filter *)OLD };

    if (argc < 2) return 2;
    /* A folder of its own namespace with nothing in it. */
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", "/proc/sys/kernel/seccomp", "tmpfs", MS_RDONLY, NULL)) {
        perror("old_kernel: /proc/sys/kernel/seccomp");
        return 125;
    }
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) {
        perror("old_kernel: seccomp");
        return 125;
    }
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
#else
int main(void)
{
    fputs("old_kernel: for x86_64 only\n", stderr);
    return 125;
}
#endif
