/* A plugin of QEMU (docs/devel/tcg-plugins, interface version 1): a digest of every
   instruction that is executed and of every address that is read or written, between one
   reading of the board's timer and the next. A line per reading: digest, instructions,
   accesses. The functions are declared here as that interface documents them. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t plugin_id;
struct plugin_tb;
struct plugin_insn;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct plugin_tb *));
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct plugin_tb *);
struct plugin_insn *qemu_plugin_tb_get_insn(const struct plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct plugin_insn *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct plugin_insn *,
    void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_mem_cb(struct plugin_insn *,
    void (*)(unsigned, uint32_t, uint64_t, void *), int, int, void *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

/* TIMER_VALUE of firmware/src/bin/timing.rs. */
static const uint64_t boundary = 0x40000004;
/* QEMU_PLUGIN_CB_NO_REGS; QEMU_PLUGIN_MEM_RW. */
enum { no_registers = 0, read_and_write = 3 };

static FILE *out;
static uint64_t digest, instructions, accesses;

static void mix(uint64_t word)
{
    digest = (digest ^ word) * 0x100000001b3u;
    digest = digest << 23 | digest >> 41;
}

static void executed(unsigned cpu, void *address)
{
    (void)cpu;
    mix((uintptr_t)address);
    instructions++;
}

static void accessed(unsigned cpu, uint32_t info, uint64_t address, void *unused)
{
    (void)cpu, (void)info, (void)unused;
    if (address == boundary) {
        fprintf(out, "%016llx %llu %llu\n", (unsigned long long)digest,
            (unsigned long long)instructions, (unsigned long long)accesses);
        digest = 0xcbf29ce484222325u;
        instructions = accesses = 0;
        return;
    }
    mix(~address);
    accesses++;
}

static void translated(plugin_id id, struct plugin_tb *block)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
        void *address = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);
        qemu_plugin_register_vcpu_insn_exec_cb(insn, executed, no_registers, address);
        qemu_plugin_register_vcpu_mem_cb(insn, accessed, no_registers, read_and_write, NULL);
    }
}

static void ended(plugin_id id, void *unused)
{
    (void)id, (void)unused;
    fclose(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(
    plugin_id id, const void *info, int count, char **arguments)
{
    static const char name[] = "out=";
    (void)info;
    if (count != 1 || strncmp(arguments[0], name, sizeof name - 1) != 0)
        return -1;
    out = fopen(arguments[0] + sizeof name - 1, "w");
    if (!out)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
