/* Makes a process make a system call, as an intruder in it would: make_call PID NUMBER. Its first thread must be asleep in epoll_wait;
 * the call's arguments are what its registers held. Exit code: 0 the call was begun; 1 it could not be. */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
    struct user_regs_struct registers;
    struct iovec all = { &registers, sizeof registers };
    pid_t pid = argc == 3 ? atoi(argv[1]) : 0;
    int status;

    if (ptrace(PTRACE_ATTACH, pid, 0, 0) || waitpid(pid, &status, __WALL) != pid ||
        ptrace(PTRACE_GETREGSET, pid, (void *)NT_PRSTATUS, &all)) {
        perror(argv[0]);
        return 1;
    }
    registers.pc -= 4; /* epoll_wait ends with EINTR: back to its svc instruction */
    registers.regs[8] = (unsigned long)atol(argv[2]);
    if (ptrace(PTRACE_SETREGSET, pid, (void *)NT_PRSTATUS, &all) || ptrace(PTRACE_DETACH, pid, 0, 0)) {
        perror(argv[0]);
        return 1;
    }
    return 0;
}
