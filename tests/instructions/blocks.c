/* A qemu-user plugin: how often each block of a program ran, for tests/instructions.rs.
 *
 *   cc -O2 -shared -fPIC -DPLUGIN_API=1 -o blocks.so blocks.c
 *   qemu-aarch64 -plugin ./blocks.so,table=FILE PROGRAM ARGUMENT...
 *
 * FILE is a table of `struct block`, shared, so that it can be read at any moment while the program runs. Its first line is no
 * block: the address at which the program begins, the lines that follow, and the lines for which there was no room.
 *
 * A block runs from its first instruction to its last, so that executions times instructions is exact. Counts are atomic: the
 * program has threads. Debian ships no qemu-plugin.h: what is used of it is declared here. A qemu takes plugins of the versions of
 * the interface that it knows, so PLUGIN_API is tried.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint64_t plugin_id;
struct qemu_tb;
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_tb *, void (*)(unsigned, void *), int no_registers, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_tb *);
extern uint64_t qemu_plugin_entry_code(void);

int qemu_plugin_version = PLUGIN_API;

enum { LINES = 1 << 18 };
struct block {
    uint64_t address, instructions, executions;
};
static struct block *table;

static void executed(unsigned cpu, void *block)
{
    (void)cpu;
    __atomic_fetch_add(&((struct block *)block)->executions, 1, __ATOMIC_RELAXED);
}

static void translated(plugin_id id, struct qemu_tb *tb)
{
    (void)id;
    table[0].address = qemu_plugin_entry_code(); /* not known before the first block */
    uint64_t line = 1 + __atomic_fetch_add(&table[0].instructions, 1, __ATOMIC_RELAXED);
    if (line >= LINES) {
        __atomic_fetch_add(&table[0].executions, 1, __ATOMIC_RELAXED);
        return;
    }
    table[line].address = qemu_plugin_tb_vaddr(tb);
    table[line].instructions = qemu_plugin_tb_n_insns(tb);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, &table[line]);
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    const char *path = argc == 1 && strncmp(argv[0], "table=", 6) == 0 ? argv[0] + 6 : "";
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || ftruncate(file, LINES * sizeof *table) != 0) {
        fprintf(stderr, "blocks: table=%s: %s\n", path, strerror(errno));
        return 1;
    }
    table = mmap(NULL, LINES * sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (table == MAP_FAILED) {
        fprintf(stderr, "blocks: %s: %s\n", path, strerror(errno));
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
